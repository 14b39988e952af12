package wire

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// addFrames seeds a target with the bodies of the scripts' frames of some types.
func addFrames(f *testing.F, add func(h Header, body []byte), types ...Type) {
	for _, frame := range scriptFrames(f) {
		h, _, err := ParseHeader(frame)
		if err != nil {
			f.Fatal(err)
		}
		for _, t := range types {
			if h.Type == t {
				add(h, frame[HeaderSize:])
			}
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, frame := range scriptFrames(f) {
		f.Add(frame)
	}
	f.Add([]byte(Preface))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHeader(b)
		if err != nil {
			return
		}
		if n < 0 || n > MaxBody {
			t.Fatalf("a body of %d bytes", n)
		}
		if again := AppendHeader(nil, h, n); !bytes.Equal(again, b[:HeaderSize]) {
			t.Fatalf("%x encodes to %x", b[:HeaderSize], again)
		}
	})
}

func FuzzHello(f *testing.F) {
	addFrames(f, func(_ Header, b []byte) { f.Add(b) }, Hello)
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := ParseHello(b)
		if err != nil {
			return
		}
		if len(g.Codecs) == 0 || len(g.Codecs) > 16 || g.MaxCalls == 0 || g.MaxCalls > MaxSlots || g.Window < MinWindow || g.Window > MaxWindow {
			t.Fatalf("beyond the limits: %+v", g)
		}
		again, err := ParseHello(AppendHello(nil, g))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(g, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzRequest(f *testing.F) {
	addFrames(f, func(h Header, b []byte) { f.Add(uint8(h.Flags), uint16(1024), b) }, Request)
	f.Fuzz(func(t *testing.T, flags uint8, maxMeta uint16, b []byte) {
		fl := Flags(flags) & allowed[Request]
		r, args, tooBig, err := ParseRequest(b, fl, int(maxMeta))
		if err != nil {
			return
		}
		checkMeta(t, r.Meta, fl, tooBig, int(maxMeta))
		if !bytes.HasSuffix(b, args) {
			t.Fatalf("the arguments %x are not the end of %x", args, b)
		}
		if r.Limit < 0 {
			t.Fatalf("a negative limit: %v", r.Limit)
		}
		encoded := append(AppendRequest(nil, fl, &r), args...)
		if fl&(HasMeta|HasLimit) == 0 && !bytes.Equal(encoded, b) {
			t.Fatalf("%x encodes to %x", b, encoded)
		}
		// Metadata has an order, a limit a maximum: then only what is read is equal.
		again, args2, tooBig2, err := ParseRequest(encoded, fl, int(maxMeta))
		if err != nil || tooBig2 || !bytes.Equal(args, args2) {
			t.Fatalf("%x encodes to %x: tooBig %t, %v", b, encoded, tooBig2, err)
		}
		if tooBig {
			again.Meta = nil // AppendRequest has written an empty one
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzResponse(f *testing.F) {
	addFrames(f, func(h Header, b []byte) { f.Add(uint8(h.Flags), uint16(1024), b) }, Response)
	f.Fuzz(func(t *testing.T, flags uint8, maxMeta uint16, b []byte) {
		fl := Flags(flags) & allowed[Response]
		r, rest, tooBig, err := ParseResponse(b, fl, int(maxMeta))
		if err != nil {
			return
		}
		checkMeta(t, r.Meta, fl, tooBig, int(maxMeta))
		if !bytes.HasSuffix(b, rest) {
			t.Fatalf("the rest %x is not the end of %x", rest, b)
		}
		encoded := append(AppendResponse(nil, fl, &r), rest...)
		if fl&HasMeta == 0 && !bytes.Equal(encoded, b) {
			t.Fatalf("%x encodes to %x", b, encoded)
		}
		again, rest2, tooBig2, err := ParseResponse(encoded, fl, int(maxMeta))
		if err != nil || tooBig2 || !bytes.Equal(rest, rest2) {
			t.Fatalf("%x encodes to %x: tooBig %t, %v", b, encoded, tooBig2, err)
		}
		if tooBig {
			again.Meta = nil
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

// checkMeta checks metadata that a head was parsed with.
func checkMeta(t *testing.T, m map[string]string, f Flags, tooBig bool, limit int) {
	switch {
	case (m != nil) != (f&HasMeta != 0 && !tooBig):
		t.Fatalf("metadata %v with flags %#x, tooBig %t", m, f, tooBig)
	case MetaSize(m) > limit:
		t.Fatalf("metadata of %d bytes, the limit is %d", MetaSize(m), limit)
	}
}

func FuzzMeta(f *testing.F) {
	addFrames(f, func(h Header, b []byte) {
		if r, _, _, err := ParseRequest(b, h.Flags, MaxBody); err == nil && r.Meta != nil {
			f.Add(uint16(1024), AppendMeta(nil, r.Meta))
		}
	}, Request)
	f.Add(uint16(100), unhex(f, "08 0161 0162 0161 0163"))
	f.Add(uint16(7), unhex(f, "08 0161 0162 0161 0163 ff"))
	f.Fuzz(func(t *testing.T, limit uint16, b []byte) {
		m, rest, tooBig, err := ParseMeta(b, int(limit))
		if err != nil {
			return
		}
		if !bytes.HasSuffix(b, rest) {
			t.Fatalf("the rest %x is not the end of %x", rest, b)
		}
		checkMeta(t, m, HasMeta, tooBig, int(limit))
		if tooBig {
			if n := len(b) - len(rest); n <= int(limit) {
				t.Fatalf("a block of %d bytes is too big for a limit of %d", n, limit)
			}
			return
		}
		encoded := AppendMeta(nil, m)
		if len(encoded) > len(b)-len(rest) {
			t.Fatalf("%x encodes to %x, which is longer", b, encoded)
		}
		again, tail, tooBig, err := ParseMeta(encoded, int(limit))
		if err != nil || tooBig || len(tail) > 0 {
			t.Fatalf("%x encodes to %x: tail %x, tooBig %t, %v", b, encoded, tail, tooBig, err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzError(f *testing.F) {
	addFrames(f, func(h Header, b []byte) {
		if h.Flags&Failed == 0 {
			return
		}
		if _, rest, _, err := ParseResponse(b, h.Flags, MaxBody); h.Type == Response && err == nil {
			f.Add(rest)
		} else if h.Type == Close {
			f.Add(b[1:])
		}
	}, Response, Close)
	f.Add(AppendError(nil, nested(MaxErrorDepth)))
	f.Add(AppendError(nil, nested(MaxErrorDepth+1)))
	f.Add(AppendError(nil, wide(MaxErrorNodes)))
	f.Add(AppendError(nil, wide(MaxErrorNodes+1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseError(b)
		if err != nil {
			return
		}
		if again := AppendError(nil, e); !bytes.Equal(again, b) {
			t.Fatalf("%x encodes to %x", b, again)
		}
		if nodes, depth := measure(t, e); nodes > MaxErrorNodes || depth > MaxErrorDepth {
			t.Fatalf("%d nodes, %d levels", nodes, depth)
		}
	})
}

// measure counts the nodes and levels of an error and checks each node.
func measure(t *testing.T, e *Error) (nodes, depth int) {
	if len(e.Names) > MaxErrorNames {
		t.Fatalf("%d names", len(e.Names))
	}
	if e.Type == "" && e.Value != nil {
		t.Fatalf("a value of no type: %x", e.Value)
	}
	for _, c := range e.Causes {
		n, d := measure(t, c)
		nodes, depth = nodes+n, max(depth, d)
	}
	return nodes + 1, depth + 1
}

// FuzzBodies has the bodies that no target of their own is for. All of them are
// canonical but for GOAWAY, whose reason is cut.
func FuzzBodies(f *testing.F) {
	addFrames(f, func(h Header, b []byte) { f.Add(uint8(h.Type), uint8(h.Flags), b) },
		Name, Part, Item, Data, Close, Stop, Credit, GoAway)
	f.Fuzz(func(t *testing.T, typ, flags uint8, b []byte) {
		var encoded []byte
		switch typ := Type(typ); typ {
		case Name:
			name, signature, err := ParseName(b)
			if err != nil {
				return
			}
			encoded = AppendName(nil, name, signature)
		case Item:
			channel, rest, err := ParseChannel(typ, b)
			if err != nil {
				return
			}
			encoded = append(encoded, channel)
			if Flags(flags)&More != 0 {
				total, rest, err := ParseTotal(rest)
				if err != nil {
					return
				}
				encoded = append(AppendTotal(encoded, total), rest...)
				break
			}
			for len(rest) > 0 {
				before := len(rest)
				var item []byte
				if item, rest, err = CutItem(rest); err != nil {
					return
				}
				if n := before - len(rest); n != BlobSize(len(item)) {
					t.Fatalf("a value of %d bytes takes %d", len(item), n)
				}
				encoded = AppendBlob(encoded, item)
			}
		case Part, Data, Close, Stop:
			channel, rest, err := ParseChannel(typ, b)
			if err != nil {
				return
			}
			encoded = append(append(encoded, channel), rest...)
		case Credit:
			channel, n, err := ParseCredit(b)
			if err != nil {
				return
			}
			if uint64(int(n)) != n {
				return // AppendCredit cannot say it on this system
			}
			encoded = AppendCredit(nil, channel, int(n))
		case GoAway:
			code, reason, err := ParseGoAway(b)
			if err != nil {
				return
			}
			if len(reason) > 1024 {
				t.Fatalf("a reason of %d bytes", len(reason))
			}
			encoded, b = AppendGoAway(nil, code, reason), b[:min(len(b), 1025)]
		case Resume:
			r, err := ParseResume(b)
			if err != nil {
				return
			}
			if len(r.Session) > MaxSecret {
				t.Fatalf("a secret of %d bytes", len(r.Session))
			}
			encoded = AppendResume(nil, &r)
		case Ack:
			received, err := ParseAck(b)
			if err != nil {
				return
			}
			encoded = AppendAck(nil, received)
		default:
			return
		}
		if !bytes.Equal(encoded, b) {
			t.Fatalf("%v: %x encodes to %x", Type(typ), b, encoded)
		}
	})
}
