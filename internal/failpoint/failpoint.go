// Package failpoint names the places at which tests end a process, or put it to sleep, from outside. It does so only in
// binaries that were built with the tag failpoints; in all others Here is empty, and the compiler leaves nothing of it.
//
// A test sets the variable FAILPOINT of a process to name:n:act, for instance
//
//	FAILPOINT=ingest/events-written:3:kill
//
// and the process does the act when it comes to the place for the n-th time, once: kill ends it as a power cut does, stop
// puts it to sleep until it is woken with SIGCONT.
//
// CLOCK_SKEW, a duration such as -3h, sets the clock of such a binary forward or back; see Now.
package failpoint
