// Package config reads the settings of a process from defaults, a YAML file, the environment and flags, in that order of
// growing precedence, and remembers where each value came from. The settings themselves live beside their users, as
// structs with defaults and a Validate method; this package only knows how to fill them.
//
// A field tagged `conf:"addr"` in a section named "http" is the key http.addr in the file (nested or dotted), the
// variable TIDELINE_HTTP_ADDR, and the flag -http.addr. Nothing unknown is ignored: it is refused with the nearest known
// name.
package config
