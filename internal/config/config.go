package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Section is a struct of settings under a name; Into points at a struct that holds the defaults. If it has a method
// Validate() error, that is called once everything is filled in.
type Section struct {
	Name string
	Into any
}

// Validator is a section that can judge itself. It names every fault at once.
type Validator interface{ Validate() error }

// Finder is a section that finds values for settings of other sections, once it is filled in itself. They replace defaults
// only: what a file, a variable or a flag sets stays. Keys that no section has are ignored. The source is shown by
// -print-config.
type Finder interface {
	Find() (source string, values map[string]string, err error)
}

// Loaded is the result of Load.
type Loaded struct {
	settings []*setting
	faults   error
	// PrintConfig reports whether -print-config was given: the caller prints and ends. Settings that are not right are printed
	// too, because that is when one wants to see where they come from.
	PrintConfig bool
	// PrintVersion reports whether -version was given: the caller prints the version and ends. Nothing else is looked at.
	PrintVersion bool
	// Args are the arguments behind the flags.
	Args []string
}

type setting struct {
	key, env, help string
	value          reflect.Value
	source         string
}

// Load fills the sections for the command called name. It returns flag.ErrHelp when help was asked for; the usage is then
// written already. Every fault is in the error, one a line.
func Load(name string, args, environ []string, output io.Writer, sections ...Section) (*Loaded, error) {
	l := &Loaded{}
	for _, s := range sections {
		l.collect(s.Name, reflect.ValueOf(s.Into).Elem())
	}
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	file := fs.String("config", "", "YAML file of settings (TIDELINE_CONFIG)")
	fs.BoolVar(&l.PrintConfig, "print-config", false, "print every setting, its value and where it comes from, and end")
	fs.BoolVar(&l.PrintVersion, "version", false, "print the version of this build, and end")
	type given struct {
		s    *setting
		text string
	}
	var flags []given
	for _, s := range l.settings {
		take := func(text string) error { flags = append(flags, given{s, text}); return nil }
		usage := fmt.Sprintf("%s (%s, default %q)", s.help, s.env, text(s.value))
		if s.value.Kind() == reflect.Bool {
			fs.BoolFunc(s.key, usage, take)
		} else {
			fs.Func(s.key, usage, take)
		}
	}
	if err := ParseFlags(fs, args, output); err != nil {
		return nil, err
	}
	if l.Args = fs.Args(); l.PrintVersion {
		return l, nil
	}

	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(k, prefix) {
			env[k] = v
		}
	}
	if *file == "" {
		*file = env[prefix+"CONFIG"]
	}
	delete(env, prefix+"CONFIG")
	var faults []error
	if *file != "" {
		faults = append(faults, l.fromFile(*file))
	}
	faults = append(faults, l.fromEnvironment(env))
	for _, f := range flags {
		faults = append(faults, f.s.set(f.text, "flag -"+f.s.key))
	}
	if l.faults = errors.Join(faults...); l.faults == nil {
		for _, s := range sections {
			if f, ok := s.Into.(Finder); ok {
				faults = append(faults, l.find(f))
			}
		}
		for _, s := range sections {
			if v, ok := s.Into.(Validator); ok {
				faults = append(faults, v.Validate())
			}
		}
		l.faults = errors.Join(faults...)
	}
	if l.faults != nil && !l.PrintConfig {
		return nil, l.faults
	}
	return l, nil
}

// find sets what the section has found for settings that nothing else has set.
func (l *Loaded) find(f Finder) error {
	source, values, err := f.Find()
	if err != nil {
		return err
	}
	var faults []error
	for key, value := range values {
		if s := l.first(func(s *setting) bool { return s.key == key }); s != nil && s.source == byDefault {
			faults = append(faults, s.set(value, source))
		}
	}
	return errors.Join(faults...)
}

// byDefault is the source of what nothing has set.
const byDefault = "default"

const prefix = "TIDELINE_"

func (l *Loaded) collect(section string, v reflect.Value) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		tag, ok := field.Tag.Lookup("conf")
		if !ok {
			continue
		}
		key := tag
		if section != "" {
			key = section + "." + tag
		}
		env := prefix + strings.NewReplacer(".", "_", "-", "_").Replace(strings.ToUpper(key))
		l.settings = append(l.settings, &setting{key: key, env: env, help: field.Tag.Get("help"), value: v.Field(i), source: byDefault})
	}
}

func (l *Loaded) fromFile(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the configuration file: %w", err)
	}
	values, err := fileValues(raw)
	if err != nil {
		return fmt.Errorf("reading the configuration file %s: %w", path, err)
	}
	var faults []error
	source, seen := "file "+path, map[string]bool{}
	for _, v := range values {
		s := l.first(func(s *setting) bool { return s.key == v.key })
		switch {
		case s == nil:
			faults = append(faults, unknown("setting "+v.key+" in "+path, Nearest(v.key, l.names(func(s *setting) string { return s.key }))))
		case seen[v.key]:
			faults = append(faults, fmt.Errorf("%s (%s): stands there twice", v.key, source))
		case v.fault != "":
			faults = append(faults, fmt.Errorf("%s (%s): %s", v.key, source, v.fault))
		default:
			faults = append(faults, s.set(v.text, source))
		}
		seen[v.key] = true
	}
	return errors.Join(faults...)
}

func (l *Loaded) fromEnvironment(env map[string]string) error {
	var faults []error
	for name, value := range env {
		if strings.HasPrefix(name, prefix+"TEST_") || name == prefix+"REQUIRE_SERVERS" {
			continue // the test suite's own
		}
		s := l.first(func(s *setting) bool { return s.env == name })
		if s == nil {
			// A secret may stand in a file: TIDELINE_X_FILE names it.
			base, isFile := strings.CutSuffix(name, "_FILE")
			s = l.first(func(s *setting) bool { return isFile && s.env == base && s.value.Type() == reflect.TypeFor[Secret]() })
			if s == nil {
				faults = append(faults, unknown("variable "+name, l.nearestVariable(name)))
				continue
			}
			raw, err := os.ReadFile(value)
			if err != nil {
				faults = append(faults, fmt.Errorf("reading the file that %s names: %w", name, err))
				continue
			}
			value = strings.TrimRight(string(raw), "\r\n")
		}
		faults = append(faults, s.set(value, "environment "+name))
	}
	return errors.Join(faults...)
}

// nearestVariable compares names without what all of them begin with: it would make any two of them look alike.
func (l *Loaded) nearestVariable(name string) string {
	best := Nearest(strings.TrimPrefix(name, prefix), l.names(func(s *setting) string { return strings.TrimPrefix(s.env, prefix) }))
	if best == "" {
		return ""
	}
	return prefix + best
}

func (l *Loaded) first(is func(*setting) bool) *setting {
	if i := slices.IndexFunc(l.settings, is); i >= 0 {
		return l.settings[i]
	}
	return nil
}

func (l *Loaded) names(of func(*setting) string) []string {
	names := make([]string, len(l.settings))
	for i, s := range l.settings {
		names[i] = of(s)
	}
	return names
}

// ParseFlags parses the arguments of a command. The usage is written only where help is asked for, and flag.ErrHelp returned;
// otherwise the error is one line that names the nearest known flag, and how to list them all.
func ParseFlags(fs *flag.FlagSet, args []string, output io.Writer) error {
	fs.SetOutput(io.Discard) // the flag package would write the whole usage below the fault
	usage := fs.Usage
	fs.Usage = func() {}
	err := fs.Parse(args)
	fs.Usage = usage
	fs.SetOutput(output)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, flag.ErrHelp) && usage != nil:
		usage()
		return err
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprintf(output, "usage of %s:\n", fs.Name())
		fs.PrintDefaults()
		return err
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		var known []string
		fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
		suggestion := Nearest(name, known)
		if suggestion != "" {
			suggestion = "-" + suggestion
		}
		err = unknown("flag -"+name, suggestion)
	}
	return fmt.Errorf("%w (-h lists the flags)", err)
}

// unknown is the error for a name that is not known; the suggestion may be empty.
func unknown(what, suggestion string) error {
	if suggestion == "" {
		return fmt.Errorf("unknown %s", what)
	}
	return fmt.Errorf("unknown %s; did you mean %s?", what, suggestion)
}

// Nearest returns the known name that differs least from the given one, or "" where more than a third of it would differ: a
// suggestion that has nothing in common with what was typed misleads.
func Nearest(name string, known []string) string {
	best, distance := "", max(len(name)/3, 1)+1
	for _, k := range known {
		if d := editDistance(name, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance is Levenshtein's, for names of a few dozen bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func (s *setting) set(text, source string) error {
	fault := func(why string) error { return fmt.Errorf("%s (%s): %s", s.key, source, why) }
	v := s.value
	switch v.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fault("is no duration such as 200ms or 10s")
		}
		v.SetInt(int64(d))
	case []string:
		var list []string
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		v.Set(reflect.ValueOf(list))
	default:
		switch v.Kind() {
		case reflect.String:
			v.SetString(text)
		case reflect.Bool:
			b, err := strconv.ParseBool(text)
			if err != nil {
				return fault("is neither true nor false")
			}
			v.SetBool(b)
		case reflect.Int, reflect.Int64:
			n, err := parseInt(text)
			if err != nil {
				return fault("is no whole number, nor one with KiB, MiB or GiB")
			}
			v.SetInt(n)
		case reflect.Float64:
			f, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return fault("is no number")
			}
			v.SetFloat(f)
		default:
			return fault("has a type that settings cannot have: " + v.Type().String())
		}
	}
	s.source = source
	return nil
}

func parseInt(text string) (int64, error) {
	unit := int64(1)
	for suffix, size := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = strings.TrimSpace(number), size
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && unit > 1 && (n > (1<<62)/unit || n < 0) {
		return 0, strconv.ErrRange
	}
	return n * unit, err
}

func text(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case []string:
		return strings.Join(value, ",")
	case fmt.Stringer:
		return value.String()
	default:
		return fmt.Sprint(value)
	}
}

// Print writes a table of every setting, its value (secrets hidden) and its source. Its error is what is wrong with the
// settings, as Load would give it.
func (l *Loaded) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "setting\tvalue\tsource")
	for _, s := range l.settings {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", s.key, text(s.value), s.source)
	}
	return errors.Join(t.Flush(), l.faults)
}
