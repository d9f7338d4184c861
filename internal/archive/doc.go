// Package archive copies im.messages and im.receipts to ClickHouse, each record exactly once (P9), without transactions.
//
// For each partition the store holds a position and an intent. An archiver first notes by compare-and-set which offsets it
// is about to insert, then inserts exactly those as one block whose deduplication token is the range, then changes what the
// range's edits and recalls aim at, then moves the position. Whoever finds an intent pending does the same range again
// before anything else: it looks whether the block is there, and where it is not, inserts it with the same token, so that
// a predecessor's insert that is still under way and its own cannot both stand.
//
// Changes are made by mutations that have finished before the position moves. They can be repeated, in any order: an edit
// never reaches a row that was recalled, or that a later edit has reached.
//
// A ClickHouse that is away is waited for; nothing else notices.
package archive
