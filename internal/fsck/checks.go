package fsck

// The parts that are looked at.
const (
	PartStore   = "store"
	PartLog     = "log"
	PartArchive = "archive"
	PartRedis   = "redis"
)

// Parts lists them.
func Parts() []string { return []string{PartStore, PartLog, PartArchive, PartRedis} }

// Check is one thing that has to hold. Names are public: scripts and runbooks hold on to them.
type Check struct {
	Name string `json:"name"`
	Part string `json:"part"`
	// Promise is the one of the design that it guards.
	Promise string `json:"promise"`
	// Holds is what has to hold, as the rest of a sentence.
	Holds string `json:"holds"`
}

// The names of the checks.
const (
	checkRows        = "rows"
	checkOrdinals    = "ordinals"
	checkTimes       = "times"
	checkRecalled    = "recalled"
	checkContent     = "content"
	checkCorrections = "corrections"
	checkTargets     = "targets"
	checkClientIDs   = "client-ids"
	checkMembers     = "members"
	checkMarks       = "marks"
	checkMeant       = "meant"
	checkHome        = "home"
	checkOrphans     = "orphans"
	checkParked      = "parked"

	checkPositions  = "positions"
	checkLogOrder   = "log-order"
	checkLogInbound = "log-inbound"
	checkLogForm    = "log-form"
	checkLogStore   = "log-store"
	checkLogChanges = "log-changes"
	checkRejected   = "rejected"
	checkDuplicates = "duplicates"
	checkOutcomes   = "outcomes"
	checkReceipts   = "receipts"
	checkRest       = "rest"

	checkArchiveRows    = "archive-rows"
	checkArchiveContent = "archive-content"
	checkArchiveMarks   = "archive-marks"

	checkFastMembers = "fast-members"
	checkFastMarks   = "fast-marks"
)

// Checks lists all checks, in the order in which they are reported.
func Checks() []Check {
	return []Check{
		{checkRows, PartStore, "P2", "that the rows of a conversation are 1 to max_seq, each once"},
		{checkOrdinals, PartStore, "P7", "that ordinals count the countable messages, up to the head's"},
		{checkTimes, PartStore, "P2", "that each row knows the highest time up to it, and the head the highest of all"},
		{checkRecalled, PartStore, "P10", "that what was recalled has no content and means nobody any more, and nothing else is without"},
		{checkContent, PartStore, "P5", "that every client can read the content of every message"},
		{checkCorrections, PartStore, "P7", "that the corrections of unread agree with the rows, and the head knows how far they go"},
		{checkTargets, PartStore, "P1", "that every edit and recall aims at a message that carries it, and nothing else was changed"},
		{checkClientIDs, PartStore, "P3", "that a client id stands once for a sender, and a tombstone points at its first"},
		{checkMembers, PartStore, "P7", "that memberships are what the events say, and the head counts them"},
		{checkMarks, PartStore, "P6", "that read marks exist, have the ordinal of their place and include what a member said"},
		{checkMeant, PartStore, "P7", "that there is a row for everybody who is meant by a message, and no other"},
		{checkHome, PartStore, "P2", "that a conversation is in the partition of its key"},
		{checkOrphans, PartStore, "P2", "that every row belongs to a conversation that has a head"},
		{checkParked, PartStore, "P1", "that no record is parked"},
		{checkPositions, PartLog, "P1", "that positions lie within their logs"},
		{checkLogOrder, PartLog, "P2", "that numbers in im.messages follow one another"},
		{checkLogInbound, PartLog, "P1", "that each inbound record became at most one event, in order"},
		{checkLogForm, PartLog, "P2", "that records of im.messages can be read, and say outside what they say inside"},
		{checkLogStore, PartLog, "P1", "that the store has what the log has up to its position, and nothing behind it"},
		{checkLogChanges, PartLog, "P10", "that rows carry the edits and recalls of the log"},
		{checkRejected, PartLog, "P1", "that records of im.rejected can be read, and what they refuse became no event"},
		{checkDuplicates, PartLog, "P3", "that a duplicate repeats an event that exists"},
		{checkOutcomes, PartLog, "P1", "that every inbound record has an outcome"},
		{checkReceipts, PartLog, "P6", "that the store has the read marks of im.receipts up to its position"},
		{checkRest, PartLog, "P1", "that everything came to rest"},
		{checkArchiveRows, PartArchive, "P9", "that the archive has every event up to its position once, and no other"},
		{checkArchiveContent, PartArchive, "P10", "that the archive says what the store says"},
		{checkArchiveMarks, PartArchive, "P9", "that the archive has every read mark up to its position once"},
		{checkFastMembers, PartRedis, "P8", "that sets that are ready have exactly those who are in"},
		{checkFastMarks, PartRedis, "P6", "that fast marks that are ready are the store's"},
	}
}
