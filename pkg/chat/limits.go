package chat

// Limits of what a command may carry. They are part of the contract: raising one is safe, lowering one is not.
const (
	MaxClientMsgIDBytes  = 64
	MaxContentBytes      = 64 << 10
	MaxRawContentBytes   = 512 << 10 // with its white space: the largest body of a request, as http.max-body has it by default
	MaxMentions          = 50
	MaxRecipients        = 100
	MaxMembersPerCommand = 500     // so that one command is one event of a bounded size
	MaxGroupMembers      = 100_000 // a larger audience is what s-all is for
	MaxNameRunes         = 100
	MaxURLBytes          = 1024
	MaxProducerBytes     = 64
	// MaxOriginalAheadMS is how far original_at may lie ahead of the clock of whoever numbers, ms: clocks differ, and people
	// write down local times as UTC, but nothing was said next week.
	MaxOriginalAheadMS = 24 * 60 * 60 * 1000
	// MaxCommandBytes bounds a record of im.inbound: the largest content, the largest lists, and room for the rest.
	MaxCommandBytes = 96 << 10
	// MaxRejectedBytes is how much of a record a Rejection keeps. The log takes 1 MiB, and that leaves room for the rest of
	// the note; whatever could have been a command is kept whole ten times over.
	MaxRejectedBytes = 1<<20 - 8<<10
	// MaxRejectedTextBytes bounds each text of a Rejection that somebody else may have written: names of fields, headers,
	// ids. It is more than what any of them may have, so that what is cut is never mistaken for what was meant.
	MaxRejectedTextBytes = 512
)
