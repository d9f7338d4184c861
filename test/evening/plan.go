// Package evening is a busy evening on a platform: people in groups who send, retry, edit, take back, read, pull and ask, some
// of them online, while whoever runs it breaks things. Everything that they do and see stands in a history (pkg/history),
// and so does what the stores have once all has come to rest. The check of it is pkg/history/check.
package evening

import "time"

// partitions is the count that platforms of the tests have.
const partitions = 8

// Plan is how busy it is. Rates are a second.
type Plan struct {
	// Seed decides who does what and when; how the platform interleaves it is its own.
	Seed uint64

	Groups  int // besides the big one
	Members int // of each of these
	Big     int // members of the big group
	Online  int // of the big group, who listen and do little else

	Messages float64
	Reads    float64
	Pulls    float64
	Changes  float64 // edits and recalls, half and half
	Moves    float64 // joins and leaves
	Asks     float64 // syncs and receipts, half and half

	// Retried is the part of numbered messages that is sent again all the same, now and then with another body.
	Retried float64
	// Kafka and Socket are the parts of messages that come through these doors instead of HTTP.
	Kafka, Socket float64
	// Busy bounds what is under way at once. What comes due while everybody is busy is not done.
	Busy int
	// Patience is how long somebody tries to get a message through.
	Patience time.Duration
}

// Full is the evening of a community: 20 groups, one of 10,000 of whom 500 are online.
func Full(seed uint64) Plan {
	return Plan{
		Seed: seed, Groups: 19, Members: 12, Big: 10_000, Online: 500,
		Messages: 200, Reads: 50, Pulls: 20, Changes: 4, Moves: 1, Asks: 4,
		Retried: 0.01, Kafka: 0.05, Socket: 0.15, Busy: 400, Patience: 2 * time.Minute,
	}
}

// Small is the same evening in a smaller place, for every run of the tests.
func Small(seed uint64) Plan {
	p := Full(seed)
	p.Groups, p.Big, p.Online = 5, 1000, 60
	p.Messages, p.Reads, p.Pulls, p.Retried, p.Busy = 80, 20, 20, 0.03, 200
	return p
}
