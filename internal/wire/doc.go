// Package wire turns the vocabulary of pkg/chat into bytes and back: the protobuf of schemas/wire, and the JSON form of
// commands. It holds no judgement beyond "readable or not".
package wire
