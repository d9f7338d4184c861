package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
	"go.yaml.in/yaml/v4"

	"tideline/pkg/chat"
	"tideline/schemas/openapi"
)

// documentJSON gives the contract as JSON. The document is part of the program: one that is no YAML does not pass its tests.
func documentJSON() []byte {
	var tree any
	if err := yaml.Unmarshal(openapi.Document, &tree); err != nil {
		return nil
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return nil
	}
	return text
}

// document serves the contract in one form.
func (s *Server) document(mediaType string, text []byte) gin.HandlerFunc {
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(c *gin.Context) {
		if len(text) == 0 {
			s.refuse(c, fmt.Errorf("the document has no form as %s", mediaType))
			return
		}
		c.Header("ETag", tag)
		c.Header("Cache-Control", "no-cache")
		if matches(c.GetHeader("If-None-Match"), tag) {
			c.Status(http.StatusNotModified)
			return
		}
		c.Data(http.StatusOK, mediaType, text)
	}
}

// matches tells whether the header If-None-Match names a tag. A proxy that compresses makes a tag weak (W/); for what is
// only read that is the same.
func matches(header, tag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == tag {
			return true
		}
	}
	return false
}

// queries are the fields that each call knows in its query. A misspelt one must not be ignored: a page of the wrong
// size looks right.
var queries = map[string][]string{
	"GET /v1/users":                                    {"query"},
	"GET /v1/groups/:cid/members":                      {"limit", "cursor"},
	"GET /v1/conversations/:cid/messages":              {"after", "before", "around", "around_time", "limit", "told"},
	"GET /v1/conversations/:cid/receipts":              {"seq"},
	"GET /v1/conversations/:cid/receipts/:seq/readers": {"limit", "cursor"},
}

// knownQuery refuses fields of the query that the call does not know, or that are given twice where one is meant.
func (s *Server) knownQuery(c *gin.Context) {
	if c.Request.URL.RawQuery == "" {
		return
	}
	values, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		s.refuse(c, chat.Refuse(chat.CodeMalformed, "the query of the address is not readable").Because(err))
		return
	}
	known := queries[c.Request.Method+" "+c.FullPath()]
	for name, list := range values {
		switch {
		case !utf8.ValidString(name) || slices.ContainsFunc(list, func(v string) bool { return !utf8.ValidString(v) }):
			s.refuse(c, chat.Refuse(chat.CodeMalformed, "the query of the address is not valid UTF-8"))
		case !slices.Contains(known, name):
			s.refuse(c, chat.RefuseField(chat.CodeUnknownField, clip(name), "is not known here"))
		case len(list) > 1 && name != "seq":
			s.refuse(c, chat.RefuseField(chat.CodeInvalidField, name, "is given %d times", len(list)))
		default:
			continue
		}
		return
	}
}

// clip bounds what is repeated of a name that somebody made up.
func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "")
	}
	return s
}
