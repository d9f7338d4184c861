// Package chat is the vocabulary of the platform: ids, commands, events and the reasons for which something is refused.
// It holds no technology: commands and events travel as protobuf (internal/wire), are numbered by pkg/seq and kept by
// pkg/timeline, and all of them mean what is written here.
package chat
