// Package check judges a history offline: whether what clients did and saw, and what was found in log, store and archive
// after all came to rest, can have come from a platform that keeps its promises P1 to P11.
//
// Every check states its rule above its code. A rule is sound: it does not fire where an order of the overlapping
// operations, within what is promised, explains what was seen; where a rule has to leave something out for that, it says so.
// A check counts what it looked at, because one that looked at nothing has not found nothing.
//
// P4 (one copy) cannot be seen from outside and is not judged here. P8 (Redis holds nothing) is a fault like any other: a
// FLUSHALL during which all other checks hold.
package check
