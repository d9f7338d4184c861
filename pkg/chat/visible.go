package chat

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// IsInvisible reports whether a character has no shape of its own: format characters (zero-width spaces and joiners,
// byte order marks, marks of direction, tags), variation selectors, fillers, and the blank Braille pattern. They belong
// inside a text, as in a flag or a family of emoji, but do not make one.
func IsInvisible(r rune) bool {
	const blankBraille = 0x2800
	return r == blankBraille || unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Prepended_Concatenation_Mark, r) ||
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// IsBlank reports whether nothing of a text can be seen.
func IsBlank(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsSpace(r) && !unicode.IsControl(r) && !IsInvisible(r) }) < 0
}

// TurnsDirection reports whether a character embeds, overrides or isolates a direction of writing: what follows then
// reads in another order than it is stored, across the end of a name. The marks of direction, which turn nothing, are
// not among them; names in Arabic and Hebrew need them.
func TurnsDirection(r rune) bool {
	return r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069
}

// ValidateName judges a name that people see: trimmed, with something visible in it, without control characters and
// changes of direction, at most MaxNameRunes.
func ValidateName(field, name string) error { return validateName(field, name, false) }

func validateName(field, name string, mayBeEmpty bool) error {
	switch {
	case name == "" && mayBeEmpty:
		return nil
	case !utf8.ValidString(name):
		return RefuseField(CodeMalformed, field, "is not valid UTF-8")
	case IsBlank(name):
		return RefuseField(CodeInvalidField, field, "must have at least one visible character")
	case strings.TrimSpace(name) != name:
		return RefuseField(CodeInvalidField, field, "must not begin or end with white space")
	case utf8.RuneCountInString(name) > MaxNameRunes:
		return RefuseField(CodeInvalidField, field, "is over %d characters", MaxNameRunes)
	case strings.ContainsFunc(name, unicode.IsControl):
		return RefuseField(CodeInvalidField, field, "has a control character")
	case strings.ContainsFunc(name, TurnsDirection):
		return RefuseField(CodeInvalidField, field, "must not have characters that change the direction of writing")
	}
	return nil
}

// ValidateURL judges an address of a picture: empty, or https on a public host name, without user and password, at most
// MaxURLBytes. Every client fetches it, so it must not reach into the network that a client is in.
func ValidateURL(field, s string) error {
	if s == "" {
		return nil
	}
	refused := RefuseField(CodeInvalidField, field, "must be an https address with a public host name, without user and password, of at most %d bytes", MaxURLBytes)
	if len(s) > MaxURLBytes || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || IsInvisible(r) || r == '\\' // browsers take \ for /
	}) {
		return refused
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Opaque != "" || u.User != nil || !isPublicHost(u.Hostname()) {
		return refused
	}
	return nil
}

// privateDomains are the ends of names that are no public hosts: reserved for special use (RFC 2606, 6761, 6762, 7686,
// 8375, 9476), for private use (ICANN's .internal), or common in networks that use none of these.
var privateDomains = []string{
	"localhost", "local", "internal", "test", "invalid", "onion", "alt", "home.arpa", "localdomain", "lan", "home", "corp", "mail", "intranet", "private",
}

// isPublicHost reports whether a name can be one of the public DNS. Addresses are none in any notation, and a name of
// other letters comes in its xn-- form: a browser would map what looks like digits to an address.
func isPublicHost(host string) bool {
	const maxHost, maxLabel = 253, 63
	host = strings.ToLower(host)
	labels := strings.Split(host, ".")
	if len(host) > maxHost || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > maxLabel || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(l, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' }) {
			return false
		}
	}
	// A last label that begins with a digit makes an address of the whole: 127.1, 10.0x1, 2130706433 behind a dot.
	if last := labels[len(labels)-1]; last[0] < 'a' || last[0] > 'z' {
		return false
	}
	for _, d := range privateDomains {
		if strings.HasSuffix(host, "."+d) {
			return false
		}
	}
	return true
}
