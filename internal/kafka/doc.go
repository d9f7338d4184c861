// Package kafka is how we use Kafka: the topics and their settings, every client option with its reason (options.go), and
// the two ways of reading that the platform knows: as the owner of partitions that a group gives out (Owners), and to the
// end (ReadToEnd).
package kafka
