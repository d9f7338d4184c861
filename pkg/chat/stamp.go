package chat

// Stamp is the time that a client id carries, ms; 0 where it carries none.
//
// Only the canonical lower-case text of a UUIDv7 carries one (RFC 9562, section 5.7): other spellings of the same id are
// other client ids.
func Stamp(clientMsgID string) int64 {
	s := clientMsgID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' || s[14] != '7' {
		return 0
	}
	switch s[19] {
	case '8', '9', 'a', 'b':
	default:
		return 0
	}
	var stamp int64
	for i := 0; i < len(s); i++ {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			continue
		}
		var d byte
		switch b := s[i]; {
		case b >= '0' && b <= '9':
			d = b - '0'
		case b >= 'a' && b <= 'f':
			d = b - 'a' + 10
		default:
			return 0
		}
		if i < 13 {
			stamp = stamp<<4 | int64(d)
		}
	}
	return stamp
}
