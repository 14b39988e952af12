package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder/internal/fn"
)

var update = flag.Bool("update", false, "rewrite the bytes in testdata/*.txt")

// TestScripts holds the wire scripts in testdata to what they say: each
// description makes the bytes below it, and the bytes make the description.
//
// A line that begins with "-->" is a frame of the dialing side, one with "<--" a
// frame of the accepting side, and the indented line below it is its bytes. The
// frame's type has its flags after it, except for HasMeta and HasLimit, which
// the fields meta and limit stand for.
func TestScripts(t *testing.T) {
	for _, path := range scriptPaths(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			old, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			steps, text, err := readScript(string(old))
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(text, string(old)); diff != "" {
				t.Errorf("the bytes are not what the descriptions make, -want +got (rewrite them with -update):\n%s", diff)
			}
			for _, s := range steps {
				got, err := describe(s.frame)
				if err != nil {
					t.Errorf("%s: %v", s.text, err)
				} else if got != s.text {
					t.Errorf("the bytes of\n%s\nread\n%s", s.text, got)
				}
			}
			checkSequence(t, steps)
		})
	}
}

// A step is one frame of a wire script.
type step struct {
	from  string // "-->" or "<--"
	text  string // the description
	frame []byte
}

func scriptPaths(tb testing.TB) []string {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no wire scripts in testdata: %v", err)
	}
	return paths
}

// scriptFrames returns the frames of all scripts, without the prefaces: the
// seeds of the fuzz targets.
func scriptFrames(tb testing.TB) [][]byte {
	var frames [][]byte
	for _, path := range scriptPaths(tb) {
		text, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		steps, _, err := readScript(string(text))
		if err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
		for _, s := range steps {
			if string(s.frame) != Preface {
				frames = append(frames, s.frame)
			}
		}
	}
	return frames
}

// readScript returns the frames that a script describes, and the script with
// their bytes below the descriptions.
func readScript(text string) (steps []step, rewritten string, err error) {
	var out strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if strings.HasPrefix(line, " ") {
			continue // the old bytes
		}
		fmt.Fprintln(&out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		from, what, _ := strings.Cut(line, " ")
		if from != "-->" && from != "<--" {
			return nil, "", fmt.Errorf("line %d begins with none of -->, <-- and #", i+1)
		}
		pieces, err := encode(what)
		if err != nil {
			return nil, "", fmt.Errorf("line %d: %w", i+1, err)
		}
		fmt.Fprintf(&out, "   ")
		for _, p := range pieces {
			if len(p) > 0 {
				fmt.Fprintf(&out, " %x", p)
			}
		}
		fmt.Fprintln(&out)
		steps = append(steps, step{from, what, bytes.Join(pieces, nil)})
	}
	return steps, out.String(), nil
}

// flagNames returns the names of the flags of a type by their bits. Requests and
// answers share two bits.
func flagNames(t Type) []string {
	names := []string{"More", "HasMeta", "Packed", "End", "Failed", "Callback", "Check", "FromCallee"}
	if t == Request {
		names[3], names[4] = "HasLimit", "OneWay"
	}
	return names
}

// encode returns the bytes of a described frame: the parts of its header, the
// head of its body, and the rest.
func encode(what string) ([][]byte, error) {
	word, fields, err := cutFields(what)
	if err != nil {
		return nil, err
	}
	if word == "PREFACE" {
		return [][]byte{[]byte(Preface)}, nil
	}
	var h Header
	names := strings.Split(word, "|")
	if h.Type = Type(max(0, slices.Index(typeNames[:], names[0]))); h.Type == 0 {
		return nil, fmt.Errorf("no frame type %q", names[0])
	}
	for _, name := range names[1:] {
		i := slices.Index(flagNames(h.Type), name)
		if i < 0 {
			return nil, fmt.Errorf("no flag %q", name)
		}
		h.Flags |= 1 << i
	}
	if fields["meta"] != "" {
		h.Flags |= HasMeta
	}
	if fields["limit"] != "" {
		h.Flags |= HasLimit
	}
	if fields["id"] != "" {
		h.ID = uint32(fields.number("id"))
	}

	var head, body []byte
	channel := func() byte { return byte(fields.number("channel")) }
	switch h.Type {
	case Hello:
		g := &Greeting{
			Codecs:     fromJSON[[]string](fields["codecs"]),
			MaxMessage: fields.number("maxMessage"),
			MaxCalls:   fields.number("maxCalls"),
			MaxNames:   fields.number("maxNames"),
			MaxMeta:    fields.number("maxMeta"),
			Window:     fields.number("window"),
		}
		if fields["compression"] != "" {
			g.Compression = fromJSON[string](fields["compression"])
		}
		if fields["resume"] != "" {
			g.Resume = fields.number("resume")
		}
		if fields["session"] != "" {
			g.Session = fields.hex("session")
		}
		head = AppendHello(nil, g)
	case Name:
		head = AppendName(nil, fromJSON[string](fields["name"]), fromJSON[string](fields["signature"]))
	case Request:
		r := RequestHead{Limit: fields.duration("limit")}
		if h.Flags&Callback != 0 {
			r.Call, r.Arg = uint32(fields.number("call")), byte(fields.number("arg"))
		} else {
			r.Number = fields.number("number")
		}
		if h.Flags&HasMeta != 0 {
			r.Meta = fromJSON[map[string]string](fields["meta"])
		}
		if h.Flags&More != 0 {
			r.Total = fields.number("total")
		}
		head, body = AppendRequest(nil, h.Flags, &r), fields.hex("body")
	case Response:
		var r ResponseHead
		if h.Flags&HasMeta != 0 {
			r.Meta = fromJSON[map[string]string](fields["meta"])
		}
		if h.Flags&More != 0 {
			r.Total = fields.number("total")
		}
		head, body = AppendResponse(nil, h.Flags, &r), fields.hex("body")
		if h.Flags&Failed != 0 {
			body = AppendError(nil, fromJSON[*errorText](fields["error"]).error())
		}
	case Part:
		head, body = []byte{channel()}, fields.hex("body")
	case Cancel:
		head = []byte{byte(fields.number("code"))}
	case Item:
		head = []byte{channel()}
		if h.Flags&More != 0 {
			head = AppendTotal(head, fields.number("total"))
			break
		}
		for _, item := range fromJSON[[]hexText](fields["items"]) {
			body = AppendBlob(body, []byte(item))
		}
	case Data:
		head, body = []byte{channel()}, []byte(fromJSON[string](fields["bytes"]))
	case Close:
		head = []byte{channel()}
		if h.Flags&Failed != 0 {
			body = AppendError(nil, fromJSON[*errorText](fields["error"]).error())
		}
	case Stop:
		head = []byte{channel()}
	case Credit:
		head = AppendCredit(nil, channel(), int(fields.number("bytes")))
	case Ping, Pong:
		head = fields.hex("opaque")
	case GoAway:
		head = AppendGoAway(nil, byte(fields.number("code")), fromJSON[string](fields["reason"]))
	case Resume:
		r := Resumption{Attempt: fields.number("attempt"), Received: fields.number("received")}
		if fields["session"] != "" {
			r.Session = fields.hex("session")
		}
		head = AppendResume(nil, &r)
	case Ack:
		head = AppendAck(nil, fields.number("received"))
	}
	header := AppendHeader(nil, h, len(head)+len(body))
	return [][]byte{header[:4], header[4:5], header[5:6], header[6:], head, body}, nil
}

// describe is the inverse of encode.
func describe(frame []byte) (string, error) {
	if string(frame) == Preface {
		return "PREFACE", nil
	}
	h, n, err := ParseHeader(frame)
	if err != nil {
		return "", err
	}
	b := frame[HeaderSize:]
	if n != len(b) {
		return "", fmt.Errorf("the header announces %d bytes, %d follow", n, len(b))
	}
	var out strings.Builder
	fmt.Fprint(&out, h.Type)
	for i, name := range flagNames(h.Type) {
		if h.Flags&(1<<i) != 0 && name != "HasMeta" && name != "HasLimit" { // their fields imply these
			fmt.Fprint(&out, "|", name)
		}
	}
	switch h.Type {
	case Hello, Ping, Pong, GoAway, Resume, Ack:
	default:
		fmt.Fprintf(&out, " id=0x%08x", h.ID)
	}
	field := func(name string, v any) { fmt.Fprintf(&out, " %s=%v", name, v) }

	var channel uint8
	switch h.Type {
	case Part, Item, Data, Close, Stop:
		if channel, b, err = ParseChannel(h.Type, b); err != nil {
			return "", err
		}
		field("channel", channel)
	}

	switch h.Type {
	case Hello:
		g, err := ParseHello(b)
		if err != nil {
			return "", err
		}
		field("codecs", toJSON(g.Codecs))
		field("maxMessage", g.MaxMessage)
		field("maxCalls", g.MaxCalls)
		field("maxNames", g.MaxNames)
		field("maxMeta", g.MaxMeta)
		field("window", g.Window)
		if g.Compression != "" {
			field("compression", toJSON(g.Compression))
		}
		if g.Resume > 0 {
			field("resume", g.Resume)
		}
		if len(g.Session) > 0 {
			field("session", hex.EncodeToString(g.Session))
		}
	case Name:
		name, signature, err := ParseName(b)
		if err != nil {
			return "", err
		}
		field("name", toJSON(name))
		field("signature", toJSON(signature))
	case Request:
		r, args, _, err := ParseRequest(b, h.Flags, MaxBody)
		if err != nil {
			return "", err
		}
		if h.Flags&Callback != 0 {
			fmt.Fprintf(&out, " call=0x%08x arg=%d", r.Call, r.Arg)
		} else {
			field("number", r.Number)
		}
		if h.Flags&HasLimit != 0 {
			field("limit", r.Limit)
		}
		if h.Flags&HasMeta != 0 {
			field("meta", toJSON(r.Meta))
		}
		if h.Flags&More != 0 {
			field("total", r.Total)
		}
		if len(args) > 0 {
			field("body", hex.EncodeToString(args))
		}
	case Response:
		r, rest, _, err := ParseResponse(b, h.Flags, MaxBody)
		if err != nil {
			return "", err
		}
		if h.Flags&HasMeta != 0 {
			field("meta", toJSON(r.Meta))
		}
		if h.Flags&More != 0 {
			field("total", r.Total)
		}
		if h.Flags&Failed != 0 {
			e, err := ParseError(rest)
			if err != nil {
				return "", err
			}
			field("error", toJSON(newErrorText(e)))
		} else if len(rest) > 0 {
			field("body", hex.EncodeToString(rest))
		}
	case Part:
		field("body", hex.EncodeToString(b))
	case Cancel:
		if len(b) != 1 {
			return "", fmt.Errorf("CANCEL of %d bytes", len(b))
		}
		field("code", b[0])
	case Item:
		if h.Flags&More != 0 {
			total, rest, err := ParseTotal(b)
			if err != nil {
				return "", err
			}
			if len(rest) > 0 {
				return "", fmt.Errorf("%d bytes after the total length", len(rest))
			}
			field("total", total)
			break
		}
		var items []hexText
		for len(b) > 0 {
			var item []byte
			if item, b, err = CutItem(b); err != nil {
				return "", err
			}
			items = append(items, item)
		}
		field("items", toJSON(items))
	case Data:
		field("bytes", toJSON(string(b)))
	case Close:
		if h.Flags&Failed != 0 {
			e, err := ParseError(b)
			if err != nil {
				return "", err
			}
			field("error", toJSON(newErrorText(e)))
		} else if len(b) > 0 {
			return "", fmt.Errorf("%d bytes after the channel", len(b))
		}
	case Stop:
		if len(b) > 0 {
			return "", fmt.Errorf("%d bytes after the channel", len(b))
		}
	case Credit:
		channel, n, err := ParseCredit(b)
		if err != nil {
			return "", err
		}
		field("channel", channel)
		field("bytes", n)
	case Ping, Pong:
		if len(b) != 8 {
			return "", fmt.Errorf("%v of %d bytes", h.Type, len(b))
		}
		field("opaque", hex.EncodeToString(b))
	case GoAway:
		code, reason, err := ParseGoAway(b)
		if err != nil {
			return "", err
		}
		field("code", code)
		field("reason", toJSON(reason))
	case Resume:
		r, err := ParseResume(b)
		if err != nil {
			return "", err
		}
		if len(r.Session) > 0 {
			field("session", hex.EncodeToString(r.Session))
		}
		field("attempt", r.Attempt)
		field("received", r.Received)
	case Ack:
		received, err := ParseAck(b)
		if err != nil {
			return "", err
		}
		field("received", received)
	}
	return out.String(), nil
}

// checkSequence checks what single frames cannot show: a frame concerns a call
// that its sender or the other side has made, parts add up to the announced
// total, whole payloads are sequences of the codec that the dialing side has chosen,
// and signatures are in the grammar.
func checkSequence(t *testing.T, steps []step) {
	type key struct {
		caller  string // "-->" or "<--": who made the call
		id      uint32
		from    string
		channel uint8
	}
	type message struct {
		total uint64
		got   []byte
	}
	calls := make(map[key]bool)
	open := make(map[key]*message)
	// drop forgets the messages in parts that ended is true of.
	drop := func(ended func(key) bool) {
		maps.DeleteFunc(open, func(k key, _ *message) bool { return ended(k) })
	}
	checkValues := checkCBOR
	begin := func(k key, f Flags, total uint64, b []byte) {
		if f&More == 0 {
			if f&Packed == 0 || k.channel != 0 {
				checkValues(t, b)
			}
			return
		}
		if len(b) > 0 {
			t.Errorf("%d bytes of a message stand where its length is announced: %+v", len(b), k)
		}
		if open[k] != nil {
			t.Errorf("a second message in parts begins before the first has ended: %+v", k)
		}
		open[k] = &message{total: total}
	}
	for _, s := range steps {
		if string(s.frame) == Preface {
			continue
		}
		h, _, err := ParseHeader(s.frame)
		if err != nil {
			t.Fatal(err) // describe has said it, too
		}
		b := s.frame[HeaderSize:]
		k := key{caller: s.from, id: h.ID}
		if h.Type == Response || h.Type != Request && h.Flags&FromCallee != 0 {
			k.caller = map[string]string{"-->": "<--", "<--": "-->"}[s.from]
		}
		switch h.Type {
		case Hello:
			if g, err := ParseHello(b); err == nil && s.from == "-->" && g.Codecs[0] == "json" {
				checkValues = checkJSON
			}
			continue
		case Name:
			if _, signature, err := ParseName(b); err == nil {
				if _, err := fn.Parse(signature); err != nil {
					t.Errorf("%s: %v", s.text, err)
				}
			}
			continue
		case Ping, Pong, GoAway, Resume, Ack:
			continue
		case Credit:
			if channel, _, err := ParseCredit(b); err == nil && channel == 0 {
				continue // it concerns the connection
			}
		case Request:
			calls[k] = true
		}
		if !calls[k] {
			t.Errorf("a frame of no call: %s %s", s.from, s.text)
		}
		k.from = s.from
		switch h.Type {
		case Request:
			r, args, _, _ := ParseRequest(b, h.Flags, MaxBody)
			begin(k, h.Flags, r.Total, args)
		case Response:
			r, rest, _, _ := ParseResponse(b, h.Flags, MaxBody)
			delete(open, k) // one answer takes the place of another
			if h.Flags&(End|More) == End {
				drop(func(other key) bool { return other.caller == k.caller && other.id == k.id })
			}
			if h.Flags&Failed == 0 {
				begin(k, h.Flags, r.Total, rest)
			}
		case Item:
			k.channel, b, _ = ParseChannel(h.Type, b)
			if h.Flags&More != 0 {
				total, rest, _ := ParseTotal(b)
				begin(k, h.Flags, total, rest)
				break
			}
			for len(b) > 0 {
				var item []byte
				if item, b, err = CutItem(b); err != nil {
					break
				}
				begin(k, h.Flags, 0, item)
			}
		case Part:
			k.channel, b, _ = ParseChannel(h.Type, b)
			m := open[k]
			if m == nil {
				t.Errorf("a PART of no message: %s", s.text)
				break
			}
			m.got = append(m.got, b...)
			if h.Flags&More != 0 {
				break
			}
			if uint64(len(m.got)) != m.total {
				t.Errorf("parts of %d bytes make up a message of %d: %s", len(m.got), m.total, s.text)
			}
			checkValues(t, m.got)
			delete(open, k)
		case Close:
			k.channel, _, _ = ParseChannel(h.Type, b)
			delete(open, k)
		}
	}
	for k := range open {
		t.Errorf("a message in parts does not end: %+v", k)
	}
}

func checkCBOR(t *testing.T, b []byte) {
	for dec := cbor.NewDecoder(bytes.NewReader(b)); ; {
		if err := dec.Skip(); err == io.EOF {
			return
		} else if err != nil {
			t.Errorf("%x is not a CBOR sequence: %v", b, err)
			return
		}
	}
}

func checkJSON(t *testing.T, b []byte) {
	for dec := json.NewDecoder(bytes.NewReader(b)); ; {
		if err := dec.Decode(new(json.RawMessage)); err == io.EOF {
			return
		} else if err != nil {
			t.Errorf("%q is not a JSON sequence: %v", b, err)
			return
		}
	}
}

// fields are the key=value pairs of a description. Their methods panic on what
// cannot be read, which ends the test with the place.
type fields map[string]string

// cutFields cuts a description into its first word and its fields. A value that
// begins with a quote, a bracket or a brace is JSON; others end at a space.
func cutFields(what string) (word string, in fields, err error) {
	word, what, _ = strings.Cut(what, " ")
	in = make(fields)
	for what != "" {
		key, rest, ok := strings.Cut(what, "=")
		if !ok || rest == "" {
			return "", nil, fmt.Errorf("no value after %q", what)
		}
		n := len(rest)
		if strings.ContainsRune(`"[{`, rune(rest[0])) {
			dec := json.NewDecoder(strings.NewReader(rest))
			if err := dec.Decode(new(json.RawMessage)); err != nil {
				return "", nil, fmt.Errorf("%s: %w", key, err)
			}
			n = int(dec.InputOffset())
		} else if i := strings.IndexByte(rest, ' '); i >= 0 {
			n = i
		}
		in[key], what = rest[:n], strings.TrimPrefix(rest[n:], " ")
	}
	return word, in, nil
}

func (f fields) number(key string) uint64 {
	n, err := strconv.ParseUint(f[key], 0, 64)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", key, err))
	}
	return n
}

func (f fields) duration(key string) time.Duration {
	if f[key] == "" {
		return 0
	}
	d, err := time.ParseDuration(f[key])
	if err != nil {
		panic(fmt.Sprintf("%s: %v", key, err))
	}
	return d
}

func (f fields) hex(key string) []byte {
	b, err := hex.DecodeString(f[key])
	if err != nil {
		panic(fmt.Sprintf("%s: %v", key, err))
	}
	return b
}

// errorText is an error record in a description.
type errorText struct {
	Code    uint8        `json:"code"`
	Message string       `json:"message"`
	Names   []string     `json:"names,omitempty"`
	Type    string       `json:"type,omitempty"`
	Value   hexText      `json:"value,omitempty"`
	Details hexText      `json:"details,omitempty"`
	Causes  []*errorText `json:"causes,omitempty"`
}

func newErrorText(e *Error) *errorText {
	text := &errorText{e.Code, e.Message, e.Names, e.Type, e.Value, e.Details, nil}
	for _, c := range e.Causes {
		text.Causes = append(text.Causes, newErrorText(c))
	}
	return text
}

func (text *errorText) error() *Error {
	e := &Error{text.Code, text.Message, text.Names, text.Type, text.Value, text.Details, nil}
	for _, c := range text.Causes {
		e.Causes = append(e.Causes, c.error())
	}
	return e
}

// hexText is bytes that JSON shows in hexadecimal.
type hexText []byte

func (b hexText) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, b), nil }

func (b *hexText) UnmarshalText(text []byte) (err error) {
	*b, err = hex.AppendDecode(nil, text)
	return err
}

func fromJSON[T any](text string) (v T) {
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		panic(fmt.Sprintf("%q: %v", text, err))
	}
	return v
}

func toJSON(v any) string {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(out.String(), "\n")
}
