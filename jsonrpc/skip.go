package jsonrpc

// A skipper goes through a message that is too large to keep, and finds its id: so it fails its
// own call, and the connection goes on.
type skipper struct {
	scan  scanner
	first byte   // of the message
	head  []byte // how it begins
	name  []byte // of the outermost object's member that comes, as far as it may be "id"
	value []byte // of the id, as far as it has come, and what follows it
	in    bool   // the id comes
	id    []byte // nil: there was none that can be told
	ids   int
}

// maxID is how long an id may be that a message is told by which is too large, in bytes.
const maxID = 256

// skip takes the next piece, as [scanner.scan] does.
func (s *skipper) skip(b []byte) (n int, done bool, err error) {
	if room := maxID - len(s.head); room > 0 {
		s.head = append(s.head, b[:min(len(b), room)]...)
	}
	for i := range b {
		if s.first == 0 {
			s.first = b[i]
		}
		wasKey := s.scan.key
		n, done, err := s.scan.scan(b[i : i+1])
		if done || err != nil {
			s.member(b[i], wasKey)
			return i + n, done, err
		}
		s.member(b[i], wasKey)
	}
	return len(b), false, nil
}

// member takes a byte that the scanner has taken.
func (s *skipper) member(c byte, wasKey bool) {
	switch {
	case s.in:
		if len(s.value) <= maxID {
			s.value = append(s.value, c)
		}
		if s.scan.depth == 0 || s.scan.depth == 1 && s.scan.state == atName {
			s.in = false
			s.id = nil
			if s.ids++; s.ids == 1 && len(s.value) <= maxID {
				s.id = trimSpace(s.value[:len(s.value)-1])
			}
		}
	case s.scan.depth != 1 || s.first != '{':
	case wasKey || s.scan.key:
		if !wasKey {
			s.name = s.name[:0]
		}
		if len(s.name) <= len(`"id"`) {
			s.name = append(s.name, c)
		}
	case s.scan.state == atValue && c == ':':
		s.in = string(s.name) == `"id"`
		s.value = s.value[:0]
	}
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && space(b, len(b)-1) == len(b) {
		b = b[:len(b)-1]
	}
	return b[space(b, 0):]
}
