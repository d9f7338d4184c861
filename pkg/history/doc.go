// Package history is the record of what clients of the platform did and saw, and of what was found in its stores after
// everything had come to rest: an append-only file that is written while things break, and judged afterwards, offline, by
// package check. It knows no server and no client; whoever drives some of them writes it.
//
// A history is JSON Lines. The first line is a [Header] with the version, every other line is a [Record]. docs/histories.md
// has the format field by field.
package history
