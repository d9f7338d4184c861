// Package marks keeps read marks in Redis: how far each user has read each conversation, fast enough to be asked with
// every sync and every glance at a receipt. Nothing is kept only here: marks are in im.receipts and in the store before
// anybody counts on them, and what Redis forgets is filled again from the store.
//
// There is one sorted set per user and one per conversation, so that a command touches one key and Redis Cluster can put
// them anywhere. Both move with ZADD XX GT: never backwards, never into a key that is not there, without scripts.
//
//	tl:{u:<user>}          <conversation>   -> read seq
//	                       o:<conversation> -> ordinal at that seq
//	tl:{c:<conversation>}  <user>           -> read seq
//	                       j:<user>         -> -(join seq + 1)
//	both                   ready            -> the epoch in which the set was complete; 2^52 until it is
//	                       filling          -> the fill that works on the set; ready is 2^52 then
//	both, with :fill                           the same, as a text: changed in the transactions that change the set whole
//	both, with :lock                           whoever fills, so that others do not try the same
//	tl:epoch                                   the present epoch
//
// A set is believed only if it says that it is ready in the present epoch. Epochs and fills are random numbers between
// 2^52 and 2^53, above every seq, so that a count of seqs never counts them and none comes twice.
//
// # Why a count is never partial
//
// Only a fill creates a complete set: it is built aside, renamed into place, and then is compared with the store in
// rounds. A round first waits until the writers have stored everything that stood in the logs when it began, then reads
// the store, then the set; marks are raised, and a member too many or too few is corrected. The set becomes ready after a
// round that found the same members on both sides: whatever was committed before that round is in, and whatever is
// committed after it is done to the set by the writer, which finds the key in place.
//
// A writer that could not reach Redis begins a new epoch as soon as it can. So does everybody who sees that a Redis
// server is another one than before: it may have come back with less than it had.
package marks
