// Package timeline holds the rules of the timeline: how an event becomes a row, what a reader may see of it, how rows
// form blocks, and how unread messages and receipts are counted. It is pure: stores implement its contracts, and prove it
// with the suite in pkg/timeline/timelinetest.
//
// There is one row per event and conversation, however many members read it. Rows are clustered by (conversation, seq), so
// that a pull is one range scan.
package timeline
