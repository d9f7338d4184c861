package accounts

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// commonPacked are the commonest passwords, see passwords/README.md for where they are from and their licences.
//
//go:embed passwords/common.txt.gz
var commonPacked []byte

// common returns them sorted: 0.4 MB, unpacked at the first use.
var common = sync.OnceValue(func() []string {
	r, err := gzip.NewReader(bytes.NewReader(commonPacked))
	if err != nil {
		panic("the list of common passwords: " + err.Error())
	}
	text, err := io.ReadAll(r)
	if err != nil {
		panic("the list of common passwords: " + err.Error())
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
})

// isCommon reports whether a password, in any case, is one of the first that are tried.
func isCommon(password string) bool {
	_, found := slices.BinarySearch(common(), strings.ToLower(strings.TrimSpace(password)))
	return found
}

// checkPassword judges a new password. What it refuses is what an attacker tries first: the budgets of failed logins
// bound how many tries there are, not how good they are.
func checkPassword(field, password, username string) error {
	if n := utf8.RuneCountInString(password); n < minPassword || n > maxPassword {
		return chat.RefuseField(chat.CodeInvalidField, field, "must be %d to %d characters", minPassword, maxPassword)
	}
	name, _ := sqlstore.NormalUsername(username)
	if form, _ := sqlstore.NormalUsername(strings.TrimSpace(password)); password == username || form != "" && form == name {
		return chat.RefuseField(chat.CodeInvalidField, field, "must not be the username")
	}
	if isCommon(password) {
		return chat.RefuseField(chat.CodeInvalidField, field, "is one of the commonest passwords")
	}
	return nil
}
