// Package pusher keeps the WebSocket connections. It tells members who are online that a conversation moved on; what was
// said they fetch themselves. Requests of the contract are taken on the same connection.
//
// How a hint travels: the follower of im.notify calls TakeNotify, which looks the conversation up in the index and notes the
// newest number with every connection of a member (coalesce.go). A connection with something to say is queued at one of a
// few flushers (flush.go): at once if it was quiet, otherwise for the end of its window. A flusher writes without ever
// waiting; what a socket does not take is finished by a goroutine that exists only for as long (conn.go).
//
// So an idle connection costs one reading goroutine and a few hundred bytes, and a slow one costs memory by the number of
// its conversations, never by traffic.
package pusher
