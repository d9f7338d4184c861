// Package seq numbers the messages of conversations. A partition is a small machine with one writer: records go in, and
// each has exactly one outcome, an event with the next number of its conversation, a rejection, or a move to the partition
// where it belongs.
//
// Machine is the judgement alone, without I/O or clocks of its own, so that it can be driven through every interleaving.
// Owner is the loop around it that reads, writes and survives: it takes a partition over from a checkpoint and the tail of
// the log, and derives its progress from what it has written, never from a committed offset. Log and Store are what an
// Owner needs of the world; the suite in pkg/seq/seqtest holds every Log to its promises under crashes.
package seq
