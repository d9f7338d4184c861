package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"tideline/internal/accounts"
	"tideline/internal/handlers"
	"tideline/pkg/chat"
	"tideline/schemas/openapi"
)

func (s *Server) routes(g *gin.Engine) {
	v1 := g.Group("/v1", s.knownMethod, s.knownQuery)
	open := v1.Group("", func(c *gin.Context) { s.fromAddress(c) })
	open.POST("/users", s.register)
	open.POST("/sessions", s.login)
	open.POST("/sessions/refresh", s.refresh)
	open.GET("/openapi.yaml", s.document("application/yaml", openapi.Document))
	open.GET("/openapi.json", s.document("application/json", documentJSON()))

	own := v1.Group("", func(c *gin.Context) {
		if caller, ok := s.caller(c); ok && s.fromUser(c, caller) {
			visitOf(c).caller = caller
		}
	})
	own.GET("/sessions", s.sessions)
	own.DELETE("/sessions/current", s.logout)
	own.DELETE("/sessions/:sid", s.endSession)
	own.PUT("/users/me/password", s.changePassword)
	own.GET("/users/me", func(c *gin.Context) {
		v, err := s.service.User(c.Request.Context(), who(c).User)
		s.answer(c, 200, v, err)
	})
	own.PATCH("/users/me", func(c *gin.Context) {
		var r handlers.UpdateUserRequest
		if s.body(c, &r) && s.key(c, &r.ClientMsgID) {
			v, err := s.service.UpdateUser(c.Request.Context(), who(c).User, r)
			s.answer(c, 200, v, err)
		}
	})
	own.GET("/users", func(c *gin.Context) {
		v, err := s.service.SearchUsers(c.Request.Context(), c.Query("query"))
		s.answer(c, 200, v, err)
	})
	own.GET("/users/:uid", func(c *gin.Context) {
		if id, ok := s.user(c, who(c)); ok {
			v, err := s.service.User(c.Request.Context(), id)
			s.answer(c, 200, v, err)
		}
	})
	own.POST("/users/batch", func(c *gin.Context) {
		var r struct {
			UserIDs []chat.UserID `json:"user_ids"`
		}
		if !s.body(c, &r) {
			return
		}
		if r.UserIDs == nil {
			s.refuse(c, chat.RefuseField(chat.CodeInvalidField, "user_ids", "is required"))
			return
		}
		v, err := s.service.UsersByID(c.Request.Context(), r.UserIDs)
		s.answer(c, 200, v, err)
	})
	s.groupRoutes(own)
	s.conversationRoutes(own)
	own.POST("/sync", func(c *gin.Context) {
		var r handlers.SyncRequest
		if s.body(c, &r) {
			v, err := s.service.Sync(c.Request.Context(), who(c).User, r)
			s.answer(c, 200, v, err)
		}
	})

	admin := v1.Group("/admin", func(c *gin.Context) { s.isAdmin(c) })
	admin.POST("/users", func(c *gin.Context) {
		var r handlers.ImportUsersRequest
		if s.body(c, &r) && s.key(c, &r.ClientMsgID) {
			v, err := s.service.ImportUsers(c.Request.Context(), r)
			s.answer(c, 200, v, err)
		}
	})
	admin.POST("/sessions", s.admit)
	admin.POST("/groups/reserve", func(c *gin.Context) {
		var r handlers.ReserveGroupRequest
		if s.body(c, &r) && s.key(c, &r.ClientMsgID) {
			v, err := s.service.ReserveGroup(c.Request.Context(), r)
			s.answer(c, 200, v, err)
		}
	})
}

func (s *Server) groupRoutes(own *gin.RouterGroup) {
	own.POST("/groups", func(c *gin.Context) {
		var r handlers.CreateGroupRequest
		if s.body(c, &r) && s.key(c, &r.ClientMsgID) {
			v, err := s.service.CreateGroup(c.Request.Context(), who(c).User, r)
			s.answer(c, 201, v, err)
		}
	})
	g := own.Group("/groups/:cid")
	g.GET("", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		return s.service.Group(c.Request.Context(), u, id)
	}))
	g.PATCH("", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		var r handlers.UpdateGroupRequest
		if !s.body(c, &r) || !s.key(c, &r.ClientMsgID) {
			return nil, nil
		}
		return s.service.UpdateGroup(c.Request.Context(), u, id, r)
	}))
	g.DELETE("", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		key, ok := s.onlyKey(c)
		if !ok {
			return nil, nil
		}
		return s.service.Dissolve(c.Request.Context(), u, id, key)
	}))
	g.GET("/members", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		limit, ok := s.limit(c)
		if !ok {
			return nil, nil
		}
		return s.service.Members(c.Request.Context(), u, id, c.Query("cursor"), int(limit))
	}))
	g.POST("/members", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		var r handlers.AddMembersRequest
		if !s.body(c, &r) || !s.key(c, &r.ClientMsgID) {
			return nil, nil
		}
		return s.service.AddMembers(c.Request.Context(), u, id, r)
	}))
	g.DELETE("/members/:uid", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		key, ok := s.onlyKey(c)
		if !ok {
			return nil, nil
		}
		member, ok := s.user(c, who(c))
		if !ok {
			return nil, nil
		}
		return s.service.RemoveMember(c.Request.Context(), u, id, member, key)
	}))
	g.PATCH("/members/:uid", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		var r handlers.UpdateMemberRequest
		if !s.body(c, &r) || !s.key(c, &r.ClientMsgID) {
			return nil, nil
		}
		member, ok := s.user(c, who(c))
		if !ok {
			return nil, nil
		}
		return s.service.UpdateMember(c.Request.Context(), u, id, member, r)
	}))
}

func (s *Server) conversationRoutes(own *gin.RouterGroup) {
	own.POST("/conversations/private", func(c *gin.Context) {
		var r struct {
			ClientMsgID string      `json:"client_msg_id"`
			User        chat.UserID `json:"user_id"`
		}
		if s.body(c, &r) && s.key(c, &r.ClientMsgID) {
			v, err := s.service.OpenPrivate(c.Request.Context(), who(c).User, r.User)
			s.answer(c, 200, v, err)
		}
	})
	g := own.Group("/conversations/:cid")
	g.GET("", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		return s.service.Conversation(c.Request.Context(), u, id)
	}))
	g.POST("/messages", s.send)
	g.GET("/messages", s.pull)
	g.GET("/messages/by-client-id/:client_msg_id", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		return s.service.ByClientID(c.Request.Context(), u, id, c.Param("client_msg_id"))
	}))
	g.PATCH("/messages/:seq", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		var r handlers.EditRequest
		if !s.body(c, &r) || !s.key(c, &r.ClientMsgID) {
			return nil, nil
		}
		seq, ok := s.pathSeq(c)
		if !ok {
			return nil, nil
		}
		return s.service.Edit(c.Request.Context(), u, id, seq, r)
	}))
	g.DELETE("/messages/:seq", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		key, ok := s.onlyKey(c)
		if !ok {
			return nil, nil
		}
		seq, ok := s.pathSeq(c)
		if !ok {
			return nil, nil
		}
		return s.service.Recall(c.Request.Context(), u, id, seq, key)
	}))
	g.PUT("/read", s.of(func(c *gin.Context, _ chat.UserID, id chat.ConversationID) (any, error) {
		var r struct {
			ClientMsgID string `json:"client_msg_id"`
			Seq         *int64 `json:"seq"`
		}
		if !s.body(c, &r) || !s.key(c, &r.ClientMsgID) {
			return nil, nil
		}
		if r.Seq == nil {
			return nil, chat.RefuseField(chat.CodeInvalidField, "seq", "is missing")
		}
		return s.service.Read(c.Request.Context(), who(c), handlers.ReadRequest{Conversation: id, Seq: *r.Seq})
	}))
	g.GET("/receipts", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		var seqs []int64
		for _, text := range c.QueryArray("seq") {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 1 {
				return nil, chat.RefuseField(chat.CodeInvalidField, "seq", "is not a number of a message")
			}
			seqs = append(seqs, n)
		}
		return s.service.Receipts(c.Request.Context(), u, id, seqs)
	}))
	g.GET("/receipts/:seq/readers", s.of(func(c *gin.Context, u chat.UserID, id chat.ConversationID) (any, error) {
		limit, ok := s.limit(c)
		if !ok {
			return nil, nil
		}
		seq, ok := s.pathSeq(c)
		if !ok {
			return nil, nil
		}
		return s.service.Readers(c.Request.Context(), u, id, seq, c.Query("cursor"), int(limit))
	}))
}

func who(c *gin.Context) accounts.Caller { return visitOf(c).caller }

// of wraps an operation on the conversation of the path. One that has answered already returns nothing.
func (s *Server) of(do func(*gin.Context, chat.UserID, chat.ConversationID) (any, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		id, ok := s.conversation(c)
		if !ok {
			return
		}
		v, err := do(c, who(c).User, id)
		if err != nil {
			s.refuse(c, err)
		} else if v != nil && !c.IsAborted() {
			s.answer(c, http.StatusOK, v, nil)
		}
	}
}

func (s *Server) conversation(c *gin.Context) (chat.ConversationID, bool) {
	id, err := chat.ParseConversationID(c.Param("cid"))
	if err != nil {
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, "conversation_id", "is not the id of a conversation").Because(err))
		return id, false
	}
	return id, true
}

func (s *Server) user(c *gin.Context, caller accounts.Caller) (chat.UserID, bool) {
	if c.Param("uid") == "me" {
		return caller.User, true
	}
	id, err := chat.ParseUserID(c.Param("uid"))
	if err != nil {
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, "user_id", "is not the id of a user").Because(err))
		return 0, false
	}
	return id, true
}

func (s *Server) pathSeq(c *gin.Context) (int64, bool) {
	n, err := strconv.ParseInt(c.Param("seq"), 10, 64)
	if err != nil || n < 1 {
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, "seq", "is not a number of a message"))
		return 0, false
	}
	return n, true
}

// number reads a number of the query; 0 where it is absent.
func (s *Server) number(c *gin.Context, name string) (int64, bool) {
	text, given := c.GetQuery(name)
	if !given {
		return 0, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, name, "is not a number"))
		return 0, false
	}
	return n, true
}

// limit reads the limit of a page. It returns 0 where the query has none, which is not a limit that a client can set.
func (s *Server) limit(c *gin.Context) (int64, bool) {
	n, ok := s.number(c, "limit")
	if _, given := c.GetQuery("limit"); ok && given && n == 0 {
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, "limit", "must be at least 1"))
		return 0, false
	}
	return n, ok
}

// key takes the header Idempotency-Key where the body names no client_msg_id. Whether there has to be one is the call's
// own to say. A name that is given and empty is refused: its sender believes that retries are safe.
func (s *Server) key(c *gin.Context, id *string) bool {
	const field = "client_msg_id"
	headers := c.Request.Header["Idempotency-Key"]
	switch {
	case len(headers) > 1:
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, field, "the header Idempotency-Key must be given once"))
		return false
	case len(headers) == 1 && headers[0] == "":
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, field, "the header Idempotency-Key must not be empty"))
		return false
	case *id == "" && hasClientMsgID(visitOf(c).payload.bytes):
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, field, "must not be empty"))
		return false
	case len(headers) == 0:
	case *id == "":
		*id = headers[0]
	case *id != headers[0]:
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, field, "differs from the header Idempotency-Key"))
		return false
	}
	if *id == "" {
		return true
	}
	if err := chat.ValidateClientMsgID(*id); err != nil {
		s.refuse(c, err)
		return false
	}
	return true
}

// hasClientMsgID reports whether a body that was decoded strictly has a client_msg_id other than null.
func hasClientMsgID(body []byte) bool {
	var r struct {
		ClientMsgID *string `json:"client_msg_id"`
	}
	return len(body) > 0 && json.Unmarshal(body, &r) == nil && r.ClientMsgID != nil
}

// onlyKey reads the body of a call that takes nothing but a client_msg_id.
func (s *Server) onlyKey(c *gin.Context) (string, bool) {
	var r struct {
		ClientMsgID string `json:"client_msg_id"`
	}
	ok := s.body(c, &r) && s.key(c, &r.ClientMsgID)
	return r.ClientMsgID, ok
}

func (s *Server) register(c *gin.Context) {
	var r struct {
		ClientMsgID string `json:"client_msg_id"`
		Username    string `json:"username"`
		Password    string `json:"password"`
		Nickname    string `json:"nickname"`
	}
	if s.body(c, &r) && s.key(c, &r.ClientMsgID) {
		u, err := s.accounts.Register(c.Request.Context(), accounts.Registration{
			Address: s.proxies.Address(c.Request), Key: r.ClientMsgID, Username: r.Username, Password: r.Password, Nickname: r.Nickname,
		})
		s.answer(c, http.StatusCreated, handlers.UserOf(u), err)
	}
}

type tokens struct {
	Access    string        `json:"access_token"`
	Refresh   string        `json:"refresh_token"`
	ExpiresIn int64         `json:"expires_in"` // seconds
	SocketURL string        `json:"socket_url"`
	User      handlers.User `json:"user"`
}

func (s *Server) tokens(c *gin.Context, t accounts.Tokens) tokens {
	return tokens{
		Access: t.Access, Refresh: t.Refresh, ExpiresIn: int64(t.ExpiresIn / time.Second), SocketURL: s.public.SocketURL(c.Request, socketPath), User: handlers.UserOf(t.User),
	}
}

func (s *Server) login(c *gin.Context) {
	var r struct {
		ClientMsgID string `json:"client_msg_id"`
		Username    string `json:"username"`
		Password    string `json:"password"`
		DeviceID    string `json:"device_id"`
		Platform    string `json:"platform"`
	}
	if s.body(c, &r) && s.key(c, &r.ClientMsgID) {
		t, err := s.accounts.Login(c.Request.Context(), accounts.Login{
			Address: s.proxies.Address(c.Request), Key: r.ClientMsgID, Username: r.Username, Password: r.Password, DeviceID: r.DeviceID, Platform: r.Platform,
		})
		s.answer(c, http.StatusCreated, s.tokens(c, t), err)
	}
}

func (s *Server) admit(c *gin.Context) {
	var r struct {
		ClientMsgID string      `json:"client_msg_id"`
		User        chat.UserID `json:"user_id"`
		DeviceID    string      `json:"device_id"`
		Platform    string      `json:"platform"`
	}
	if s.body(c, &r) && s.key(c, &r.ClientMsgID) {
		t, err := s.accounts.Admit(c.Request.Context(), accounts.Admission{Key: r.ClientMsgID, User: r.User, DeviceID: r.DeviceID, Platform: r.Platform})
		s.answer(c, http.StatusCreated, s.tokens(c, t), err)
	}
}

func (s *Server) refresh(c *gin.Context) {
	var r struct {
		ClientMsgID string `json:"client_msg_id"`
		Refresh     string `json:"refresh_token"`
	}
	if s.body(c, &r) && s.key(c, &r.ClientMsgID) {
		t, err := s.accounts.Refresh(c.Request.Context(), s.proxies.Address(c.Request), r.Refresh, r.ClientMsgID)
		s.answer(c, http.StatusOK, s.tokens(c, t), err)
	}
}

func (s *Server) logout(c *gin.Context) {
	if _, ok := s.onlyKey(c); !ok {
		return
	}
	if err := s.accounts.Revoke(c.Request.Context(), who(c).Session); err != nil {
		s.refuse(c, err)
		return
	}
	c.Status(http.StatusNoContent)
}

// sessionView is a session as its owner sees it.
type sessionView struct {
	ID          string `json:"session_id"`
	Platform    string `json:"platform"`
	DeviceID    string `json:"device_id"`
	CreatedAt   int64  `json:"created_at"`
	RefreshedAt int64  `json:"refreshed_at"`
	ExpiresAt   int64  `json:"expires_at"`
	Current     bool   `json:"current"`
}

func (s *Server) sessions(c *gin.Context) {
	list, err := s.accounts.Sessions(c.Request.Context(), who(c))
	out := struct {
		Sessions []sessionView `json:"sessions"`
	}{[]sessionView{}}
	for _, v := range list {
		out.Sessions = append(out.Sessions, sessionView{
			ID: strconv.FormatInt(v.ID, 10), Platform: v.Platform, DeviceID: v.DeviceID, CreatedAt: v.CreatedAt, RefreshedAt: v.RefreshedAt, ExpiresAt: v.ExpiresAt,
			Current: v.ID == who(c).Session,
		})
	}
	s.answer(c, http.StatusOK, out, err)
}

func (s *Server) endSession(c *gin.Context) {
	id, err := strconv.ParseInt(c.Param("sid"), 10, 64)
	if err != nil || id < 1 || strconv.FormatInt(id, 10) != c.Param("sid") {
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, "session_id", "must be the id of a session"))
		return
	}
	if _, ok := s.onlyKey(c); !ok {
		return
	}
	if err := s.accounts.EndSession(c.Request.Context(), who(c), id); err != nil {
		s.refuse(c, err)
		return
	}
	c.Status(http.StatusNoContent)
}

func (s *Server) changePassword(c *gin.Context) {
	var r struct {
		ClientMsgID string  `json:"client_msg_id"`
		Current     *string `json:"current_password"`
		New         string  `json:"new_password"`
	}
	if !s.body(c, &r) || !s.key(c, &r.ClientMsgID) {
		return
	}
	if r.Current == nil { // a retry is compared by its new password alone
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, "current_password", "is required"))
		return
	}
	err := s.accounts.ChangePassword(c.Request.Context(), accounts.PasswordChange{
		Address: s.proxies.Address(c.Request), Key: r.ClientMsgID, Caller: who(c), Current: *r.Current, New: r.New,
	})
	if err != nil {
		s.refuse(c, err)
		return
	}
	c.Status(http.StatusNoContent)
}

func (s *Server) send(c *gin.Context) {
	id, ok := s.conversation(c)
	if !ok {
		return
	}
	var r handlers.SendRequest
	if !s.body(c, &r) || !s.key(c, &r.ClientMsgID) {
		return
	}
	if !r.Conversation.IsZero() && r.Conversation != id {
		s.refuse(c, chat.RefuseField(chat.CodeInvalidField, "conversation_id", "differs from the address"))
		return
	}
	r.Conversation = id
	sent, err := s.service.Send(c.Request.Context(), who(c).User, r)
	status := http.StatusOK
	if sent.Accepted() {
		status = http.StatusAccepted
	}
	s.answer(c, status, sent, err)
}

func (s *Server) pull(c *gin.Context) {
	id, ok := s.conversation(c)
	if !ok {
		return
	}
	r := handlers.PullRequest{Conversation: id}
	for _, place := range [...]struct {
		name string
		into **int64
	}{{"after", &r.After}, {"before", &r.Before}, {"around", &r.Around}, {"around_time", &r.AroundTime}} {
		if _, given := c.GetQuery(place.name); given {
			n, ok := s.number(c, place.name)
			if !ok {
				return
			}
			*place.into = &n
		}
	}
	limit, ok := s.limit(c)
	if !ok {
		return
	}
	if r.Told, ok = s.number(c, "told"); !ok {
		return
	}
	r.Limit = int(min(limit, 1<<20))
	p, err := s.service.Pull(c.Request.Context(), who(c), r)
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer p.Free()
	h := c.Writer.Header()
	h["Etag"], h["Cache-Control"] = []string{p.ETag}, ownOnly
	if matches(c.GetHeader("If-None-Match"), p.ETag) {
		c.Status(http.StatusNotModified)
		return
	}
	h["Content-Length"], h["Content-Type"] = []string{strconv.Itoa(len(p.JSON))}, jsonOf
	c.Status(http.StatusOK)
	_, _ = c.Writer.Write(p.JSON) // whoever hangs up hears nothing of it
}
