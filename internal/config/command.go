package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"tideline/internal/version"
)

// Command fills the sections for a command that takes no arguments, and writes what is wrong, the help, the version or the
// settings where one of these is due. The command goes on where goOn is true, and otherwise ends with the code.
func Command(name string, args, environ []string, out, errOut io.Writer, sections ...Section) (code int, goOn bool) {
	say := func(err error) (int, bool) {
		form := "%s: the settings are not right:\n%v\n"
		if !strings.Contains(err.Error(), "\n") {
			form = "%s: %v\n" // a single fault is a single line
		}
		_, _ = fmt.Fprintf(errOut, form, name, err)
		return 2, false
	}
	loaded, err := Load(name, args, environ, errOut, sections...)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0, false
	case err != nil:
		return say(err)
	case loaded.PrintVersion:
		_, _ = fmt.Fprintln(out, version.Line(name))
		return 0, false
	case len(loaded.Args) > 0:
		_, _ = fmt.Fprintf(errOut, "%s takes no arguments, and %q was given\n", name, loaded.Args)
		return 2, false
	case loaded.PrintConfig:
		if err := loaded.Print(out); err != nil {
			return say(err)
		}
		return 0, false
	}
	return 0, true
}
