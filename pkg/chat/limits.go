package chat

// Limits of what a command may carry. They are part of the contract: raising one is safe, lowering one is not.
const (
	MaxClientMsgIDBytes  = 64
	MaxContentBytes      = 64 << 10
	MaxMentions          = 50
	MaxRecipients        = 100
	MaxMembersPerCommand = 500     // so that one command is one event of a bounded size
	MaxGroupMembers      = 100_000 // a larger audience is what s-all is for
	MaxNameRunes         = 100
	MaxURLBytes          = 1024
	MaxProducerBytes     = 64
	// MaxCommandBytes bounds a record of im.inbound: the largest content, the largest lists, and room for the rest.
	MaxCommandBytes = 96 << 10
)
