package wire

import (
	"encoding/json"

	"tideline/pkg/chat"
	wirev1 "tideline/schemas/wire/tideline/v1"
)

// bodies is what commands and events share: the one body that their kind names.
type bodies struct {
	message  *chat.Message
	create   *chat.Create
	join     *chat.Join
	leave    *chat.Leave
	role     *chat.SetRole
	mute     *chat.Mute
	nickname *chat.Nickname
	update   *chat.Update
	edit     *chat.Edit
	recall   *chat.Recall
	dissolve *chat.Dissolve
}

func (b *bodies) encode() *wirev1.Body {
	switch {
	case b.message != nil:
		m := b.message
		w := &wirev1.Message{
			Type: string(m.Type), Content: string(m.Content), Recipients: fromUsers(m.Recipients), ReplyTo: m.ReplyTo, Receipt: m.Receipt,
		}
		if m.Mentions != nil {
			w.MentionUserIds, w.MentionAll = fromUsers(m.Mentions.UserIDs), m.Mentions.All
		}
		return &wirev1.Body{Kind: &wirev1.Body_Message{Message: w}}
	case b.create != nil:
		c := b.create
		return &wirev1.Body{Kind: &wirev1.Body_Create{Create: &wirev1.Create{
			Name: c.Name, AvatarUrl: c.AvatarURL, HistoryVisible: c.HistoryVisible, Members: fromUsers(c.Members),
		}}}
	case b.join != nil:
		return &wirev1.Body{Kind: &wirev1.Body_Join{Join: &wirev1.Join{Users: fromUsers(b.join.Users)}}}
	case b.leave != nil:
		return &wirev1.Body{Kind: &wirev1.Body_Leave{Leave: &wirev1.Leave{Users: fromUsers(b.leave.Users)}}}
	case b.role != nil:
		return &wirev1.Body{Kind: &wirev1.Body_Role{Role: &wirev1.SetRole{User: int64(b.role.User), Role: string(b.role.Role)}}}
	case b.mute != nil:
		return &wirev1.Body{Kind: &wirev1.Body_Mute{Mute: &wirev1.Mute{User: int64(b.mute.User), Until: b.mute.Until}}}
	case b.nickname != nil:
		return &wirev1.Body{Kind: &wirev1.Body_Nickname{Nickname: &wirev1.Nickname{User: int64(b.nickname.User), Nickname: b.nickname.Nickname}}}
	case b.update != nil:
		u := b.update
		return &wirev1.Body{Kind: &wirev1.Body_Update{Update: &wirev1.Update{Name: u.Name, AvatarUrl: u.AvatarURL, HistoryVisible: u.HistoryVisible}}}
	case b.edit != nil:
		return &wirev1.Body{Kind: &wirev1.Body_Edit{Edit: &wirev1.Edit{TargetSeq: b.edit.TargetSeq, Content: string(b.edit.Content)}}}
	case b.recall != nil:
		return &wirev1.Body{Kind: &wirev1.Body_Recall{Recall: &wirev1.Recall{TargetSeq: b.recall.TargetSeq}}}
	case b.dissolve != nil:
		return &wirev1.Body{Kind: &wirev1.Body_Dissolve{Dissolve: &wirev1.Dissolve{}}}
	}
	return nil
}

// decodeBody gives the body and its kind; kind 0 where there is none, or one that this version does not know.
func decodeBody(w *wirev1.Body) (chat.Kind, bodies) {
	switch k := w.GetKind().(type) {
	case *wirev1.Body_Message:
		m := k.Message
		c := &chat.Message{
			Type: chat.MessageType(m.GetType()), Content: json.RawMessage(m.GetContent()), Recipients: toUsers(m.GetRecipients()),
			ReplyTo: m.GetReplyTo(), Receipt: m.GetReceipt(),
		}
		if len(m.GetMentionUserIds()) > 0 || m.GetMentionAll() {
			c.Mentions = &chat.Mentions{UserIDs: toUsers(m.GetMentionUserIds()), All: m.GetMentionAll()}
		}
		return chat.KindMessage, bodies{message: c}
	case *wirev1.Body_Create:
		c := k.Create
		return chat.KindCreate, bodies{create: &chat.Create{
			Name: c.GetName(), AvatarURL: c.GetAvatarUrl(), HistoryVisible: c.GetHistoryVisible(), Members: toUsers(c.GetMembers()),
		}}
	case *wirev1.Body_Join:
		return chat.KindJoin, bodies{join: &chat.Join{Users: toUsers(k.Join.GetUsers())}}
	case *wirev1.Body_Leave:
		return chat.KindLeave, bodies{leave: &chat.Leave{Users: toUsers(k.Leave.GetUsers())}}
	case *wirev1.Body_Role:
		return chat.KindRole, bodies{role: &chat.SetRole{User: chat.UserID(k.Role.GetUser()), Role: chat.Role(k.Role.GetRole())}}
	case *wirev1.Body_Mute:
		return chat.KindMute, bodies{mute: &chat.Mute{User: chat.UserID(k.Mute.GetUser()), Until: k.Mute.GetUntil()}}
	case *wirev1.Body_Nickname:
		return chat.KindNickname, bodies{nickname: &chat.Nickname{User: chat.UserID(k.Nickname.GetUser()), Nickname: k.Nickname.GetNickname()}}
	case *wirev1.Body_Update:
		u := k.Update
		return chat.KindUpdate, bodies{update: &chat.Update{Name: u.Name, AvatarURL: u.AvatarUrl, HistoryVisible: u.HistoryVisible}} //nolint:protogetter // presence matters
	case *wirev1.Body_Edit:
		return chat.KindEdit, bodies{edit: &chat.Edit{TargetSeq: k.Edit.GetTargetSeq(), Content: json.RawMessage(k.Edit.GetContent())}}
	case *wirev1.Body_Recall:
		return chat.KindRecall, bodies{recall: &chat.Recall{TargetSeq: k.Recall.GetTargetSeq()}}
	case *wirev1.Body_Dissolve:
		return chat.KindDissolve, bodies{dissolve: &chat.Dissolve{}}
	}
	return 0, bodies{}
}

func fromUsers(ids []chat.UserID) []int64 {
	if len(ids) == 0 {
		return nil
	}
	out := make([]int64, len(ids))
	for i, u := range ids {
		out[i] = int64(u)
	}
	return out
}

func toUsers(ids []int64) []chat.UserID {
	if len(ids) == 0 {
		return nil
	}
	out := make([]chat.UserID, len(ids))
	for i, u := range ids {
		out[i] = chat.UserID(u)
	}
	return out
}
