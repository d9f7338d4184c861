// Package fsck goes through the stores and the log and derives again what they promise about one another. It is the
// oracle of the fault tests and the operators' answer to "is it all there?": it believes no counter and no position, but
// compares each with what it counts. It only reads.
//
// # Sound while everything moves
//
// A breach is only reported where no order of what happens could explain it. There are three rules:
//
//   - Bounds are read in the order that makes them bounds. What must be there is judged by a position that was read before
//     the thing; what must not be there by one that was read after it. Positions, heads, ends of logs and marks only
//     advance, and rows, heads and positions of the store are of one transaction, so that what is found wrong in this way
//     is wrong.
//   - What is read in several statements (a conversation while it is edited, a set in Redis and the store that it was
//     filled from) is suspected first. It is looked at again, from its beginning, once the writers have passed what stood
//     in the logs at that time, up to three times in all; only what is wrong in the same place every time is reported.
//   - What may have been done but not yet be seen is left out: fast marks of conversations in the writer's last batch,
//     which a successor follows again; edits that the archive has not come to. The number of what was left out is
//     reported.
//
// At rest nothing is left out and nothing is looked at twice: Run waits until the writers have passed the ends of the
// logs, and then everything has to be equal. Whoever writes meanwhile makes breaches; that is what the caller has promised
// to have stopped.
//
// # What it costs
//
// Tables are read in pages of 500 rows in the order of a key, each page a statement of its own, and no transaction is kept
// open. Memory grows with: one page of rows (500 with at most 64 KiB each); the conversations in what a partition of
// im.messages retains (two numbers each), one partition at a time; the refused or moved records in it (16 bytes each); the
// people who spoke in one conversation (16 bytes each); the messages of one conversation that were edited more than once;
// the members of the largest group, for its set in Redis; and what the writers are behind.
package fsck
