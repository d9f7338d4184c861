// Package importer moves a community in: it reads a chat export (JSON Lines, see docs/import.md), makes its people and its
// group over the administrators' calls, and produces what was said to im.inbound as any backend would.
//
// It can be stopped and started again at any line. Every command has a client id that follows from the import's name and
// the line, so a line that is produced twice becomes one message; a checkpoint file only saves the time. What it counts at
// the end it reads from the logs, where the outcomes stand, and not from what it believes to have sent.
package importer
