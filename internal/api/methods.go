package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"tideline/pkg/chat"
)

// fixedPaths returns the methods of each path without a field. Such a path also fits routes with a field in its place
// (/users/batch fits /users/:uid), whose methods it does not take.
func fixedPaths(routes gin.RoutesInfo) map[string][]string {
	fixed := map[string][]string{}
	for _, r := range routes {
		if !strings.Contains(r.Path, ":") {
			fixed[r.Path] = append(fixed[r.Path], r.Method)
		}
	}
	for path, methods := range fixed {
		fixed[path] = withHead(methods)
	}
	return fixed
}

// withHead returns methods sorted, with HEAD where GET is one of them.
func withHead(methods []string) []string {
	list := slices.Clone(methods)
	if slices.Contains(list, http.MethodGet) {
		list = append(list, http.MethodHead)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// routedPath is the path by which gin finds a route.
func routedPath(r *http.Request) string {
	if r.URL.RawPath != "" {
		return r.URL.RawPath
	}
	return r.URL.Path
}

// knownMethod refuses a method that a path without fields does not take, before a route with a field takes it.
func (s *Server) knownMethod(c *gin.Context) {
	if methods, fixed := s.fixed[routedPath(c.Request)]; fixed && !slices.Contains(methods, c.Request.Method) {
		s.refuseMethod(c, methods)
	}
}

func (s *Server) noRoute(c *gin.Context) {
	if methods, fixed := s.fixed[routedPath(c.Request)]; fixed { // the socket, which is no route of gin's
		s.refuseMethod(c, methods)
		return
	}
	s.refuse(c, chat.Refuse(chat.CodeNotFound, "there is nothing at this address"))
}

func (s *Server) noMethod(c *gin.Context) {
	methods, fixed := s.fixed[routedPath(c.Request)]
	if !fixed {
		methods = withHead(strings.Split(c.Writer.Header().Get("Allow"), ", ")) // gin's own finding
	}
	s.refuseMethod(c, methods)
}

func (s *Server) refuseMethod(c *gin.Context, methods []string) {
	allowed := strings.Join(methods, ", ")
	c.Header("Allow", allowed)
	s.refuse(c, chat.Refuse(chat.CodeMethodNotAllowed, "the method must be one of %s", allowed))
}
