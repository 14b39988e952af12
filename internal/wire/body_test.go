package wire

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Fields of a HELLO that is complete but for the one under test.
const (
	codecField  = "01 04 63626f72 "
	callsField  = "03 01 01 "
	windowField = "06 03 808004 "
	// otherFields begin the HELLO of every row; the last of two fields counts.
	otherFields = "02 01 01 04 01 01 05 02 8020 "
)

func TestParseHello(t *testing.T) {
	least := Greeting{Codecs: []string{"cbor"}, MaxMessage: 1, MaxCalls: 1, MaxNames: 1, MaxMeta: MinMeta, Window: MinWindow}
	for _, tt := range []struct {
		name, hex string
		change    func(*Greeting)
	}{
		{"least", codecField + callsField + windowField, func(*Greeting) {}},
		{"any order", windowField + codecField + callsField, func(*Greeting) {}},
		{"unknown fields are skipped", "0a 03 ffffff" + codecField + "ac02 00" + callsField + windowField, func(*Greeting) {}},
		{"the last of two numbers counts", "03 02 e807" + codecField + callsField + windowField, func(*Greeting) {}},
		{"codecs keep their order", codecField + "01 04 6a736f6e" + callsField + windowField, func(g *Greeting) {
			g.Codecs = append(g.Codecs, "json")
		}},
		{"longest codec name", codecField + "01 40" + strings.Repeat("61", 64) + callsField + windowField, func(g *Greeting) {
			g.Codecs = append(g.Codecs, strings.Repeat("a", 64))
		}},
		{"most codecs", strings.Repeat(codecField, 16) + callsField + windowField, func(g *Greeting) {
			g.Codecs = strings.Fields(strings.Repeat("cbor ", 16))
		}},
		{"most calls", codecField + "03 03 808004" + windowField, func(g *Greeting) { g.MaxCalls = MaxSlots }},
		{"largest window", codecField + callsField + "06 06 808080808020", func(g *Greeting) { g.Window = MaxWindow }},
		{"largest number", codecField + callsField + windowField + "02 0a ffffffffffffffffff01", func(g *Greeting) {
			g.MaxMessage = math.MaxUint64
		}},
		{"compression", codecField + callsField + windowField + "07 04 7a737464", func(g *Greeting) { g.Compression = "zstd" }},
		{"resumption", codecField + callsField + windowField + "08 02 e807 09 10 000102030405060708090a0b0c0d0e0f", func(g *Greeting) {
			g.Resume, g.Session = 1000, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := least
			want.Codecs = strings.Fields("cbor")
			tt.change(&want)
			got, err := ParseHello(unhex(t, otherFields+tt.hex))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParseHelloErrors(t *testing.T) {
	const complete = codecField + callsField + windowField
	for _, tt := range []struct{ name, hex, want string }{
		{"nothing", "", "HELLO: no codec"},
		{"no codec", callsField + windowField, "HELLO: no codec"},
		{"no calls", codecField + windowField, "HELLO: 0 calls at a time is outside 1 to 65536"},
		{"zero calls", codecField + "03 01 00" + windowField, "HELLO: 0 calls at a time is outside 1 to 65536"},
		{"too many calls", codecField + "03 03 818004" + windowField, "HELLO: 65537 calls at a time is outside 1 to 65536"},
		{"no window", codecField + callsField, "HELLO: 0 bytes of window is outside 65536 to 1099511627776"},
		{"small window", codecField + callsField + "06 03 ffff03", "HELLO: 65535 bytes of window is outside 65536 to 1099511627776"},
		{"window of a tebibyte and one", codecField + callsField + "06 06 818080808020", "HELLO: 1099511627777 bytes of window is outside 65536 to 1099511627776"},
		{"window beyond an int64", codecField + callsField + "06 0a 80808080808080808001", "HELLO: 9223372036854775808 bytes of window is outside 65536 to 1099511627776"},
		{"too many codecs", strings.Repeat(codecField, 17) + callsField + windowField, "HELLO: more than 16 codecs, or a name of more than 64 bytes"},
		{"long codec name", "01 41" + strings.Repeat("61", 65) + complete, "HELLO: more than 16 codecs, or a name of more than 64 bytes"},
		{"no messages", complete + "02 01 00", "HELLO: 0 bytes of a message is outside 1 to 18446744073709551615"},
		{"no names", complete + "04 01 00", "HELLO: 0 names is outside 1 to 18446744073709551615"},
		{"little metadata", complete + "05 02 ff1f", "HELLO: 4095 bytes of metadata is outside 4096 to 18446744073709551615"},
		{"long compression name", complete + "07 41" + strings.Repeat("61", 65), "HELLO: a compression's name of more than 64 bytes"},
		{"key cut off", complete + "80", "HELLO: frame ends early"},
		{"no length", complete + "02", "HELLO: frame ends early"},
		{"value cut off", complete + "02 02 01", "HELLO: frame ends early"},
		{"length beyond an int", complete + "02 ffffffffffffffffff01", "HELLO: frame ends early"},
		{"key not shortest", complete + "8200 01 01", "HELLO: number is not in its shortest form"},
		{"key too large", complete + "ffffffffffffffffff02 01 01", "HELLO: number has more than 64 bits"},
		{"empty number", complete + "02 00", "HELLO: field 2 is not one number"},
		{"number cut off", complete + "04 01 80", "HELLO: field 4 is not one number"},
		{"number not shortest", complete + "05 02 8000", "HELLO: field 5 is not one number"},
		{"two numbers", complete + "06 02 0101", "HELLO: field 6 is not one number"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := ParseHello(unhex(t, otherFields+tt.hex))
			wantError(t, err, tt.want)
			if g != nil {
				t.Errorf("got %+v with the error", g)
			}
		})
	}
}

func TestParseRequest(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		flags     Flags
		want      RequestHead
		args      string
	}{
		{"no arguments", "01", 0, RequestHead{Number: 1}, ""},
		{"largest number", "ffffffff0f 01", 0, RequestHead{Number: math.MaxUint32}, "01"},
		{"callback", "80010002 ff 01", Callback, RequestHead{Call: 0x80010002, Arg: 255}, "01"},
		{"no time left", "01 00", HasLimit, RequestHead{Number: 1}, ""},
		{"empty metadata", "01 00", HasMeta, RequestHead{Number: 1, Meta: map[string]string{}}, ""},
		{"all", "00000001 00 e807 02 0000 05 0102", Callback | HasLimit | HasMeta | More,
			RequestHead{Call: 1, Limit: time.Millisecond, Meta: map[string]string{"": ""}, Total: 5}, "0102"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.hex)
			got, args, tooBig, err := ParseRequest(b, tt.flags, 2)
			if err != nil || tooBig {
				t.Fatalf("tooBig %t, error %v", tooBig, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if want := unhex(t, tt.args); !bytes.Equal(args, want) {
				t.Errorf("arguments %x, want %x", args, want)
			}
			if again := append(AppendRequest(nil, tt.flags, &got), args...); !bytes.Equal(again, b) {
				t.Errorf("AppendRequest makes %x, want %x", again, b)
			}
		})
	}
}

func TestParseRequestErrors(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		flags     Flags
		want      string
	}{
		{"nothing", "", 0, "REQUEST: frame ends early"},
		{"number cut off", "80", 0, "REQUEST: frame ends early"},
		{"number not shortest", "8100", 0, "REQUEST: number is not in its shortest form"},
		{"number of 33 bits", "8080808010", 0, "REQUEST: procedure number 4294967296 has more than 32 bits, which no NAME can give"},
		{"callback cut off", "00010000", Callback, "REQUEST: frame ends early"},
		{"no limit", "01", HasLimit, "REQUEST: remaining time: frame ends early"},
		{"limit of 65 bits", "01 ffffffffffffffffff02", HasLimit, "REQUEST: remaining time: number has more than 64 bits"},
		{"no metadata", "01", HasMeta, "REQUEST: metadata: frame ends early"},
		{"metadata cut off", "01 02 00", HasMeta, "REQUEST: metadata: frame ends early"},
		{"no total", "01", More, "REQUEST: total length: frame ends early"},
		{"total not shortest", "01 8000", More, "REQUEST: total length: number is not in its shortest form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, args, tooBig, err := ParseRequest(unhex(t, tt.hex), tt.flags, MaxBody)
			wantError(t, err, tt.want)
			if args != nil || tooBig {
				t.Errorf("arguments %x, tooBig %t with the error", args, tooBig)
			}
		})
	}
}

// TestLimitRounding: a deadline travels in whole microseconds and must not be
// reached early. The longest Duration once overflowed while it was rounded up.
func TestLimitRounding(t *testing.T) {
	const longest = time.Duration(maxLimit) * time.Microsecond
	for _, tt := range []struct{ in, want time.Duration }{
		{math.MinInt64, 0},
		{-time.Nanosecond, 0},
		{0, 0},
		{1, time.Microsecond},
		{time.Microsecond, time.Microsecond},
		{time.Microsecond + 1, 2 * time.Microsecond},
		{longest, longest},
		{longest + 1, longest},
		{math.MaxInt64 - 999, longest},
		{math.MaxInt64, longest},
	} {
		b := AppendRequest(nil, HasLimit, &RequestHead{Limit: tt.in})
		r, _, _, err := ParseRequest(b, HasLimit, 0)
		if err != nil || r.Limit != tt.want {
			t.Errorf("limit %d ns arrives as %d ns, %v, want %d ns", tt.in, r.Limit, err, tt.want)
		}
		if us, _, err := uvarint(b[1:]); err != nil || us > maxLimit {
			t.Errorf("limit %d ns is written as %d µs, %v; the most is %d µs", tt.in, us, err, maxLimit)
		}
	}

	// What another implementation may send.
	for _, us := range []string{"ffffffffffffffffff01", "80808080808080808001"} {
		r, _, _, err := ParseRequest(unhex(t, "01"+us), HasLimit, 0)
		if err != nil || r.Limit != longest {
			t.Errorf("the limit %s is %v, %v, want %v", us, r.Limit, err, longest)
		}
	}
}

func TestParseResponseErrors(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		flags     Flags
		want      string
	}{
		{"no metadata", "", HasMeta, "RESPONSE: metadata: frame ends early"},
		{"metadata cut off", "05 0161 01", HasMeta, "RESPONSE: metadata: frame ends early"},
		{"no total", "", More, "RESPONSE: total length: frame ends early"},
		{"no total after the metadata", "00", HasMeta | More, "RESPONSE: total length: frame ends early"},
		{"total of 65 bits", "ffffffffffffffffff02", More, "RESPONSE: total length: number has more than 64 bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, rest, tooBig, err := ParseResponse(unhex(t, tt.hex), tt.flags, MaxBody)
			wantError(t, err, tt.want)
			if rest != nil || tooBig {
				t.Errorf("rest %x, tooBig %t with the error", rest, tooBig)
			}
		})
	}
}

// TestMetaTooBig: metadata beyond the limit is skipped, so that its call can be
// answered with an error and the connection go on.
func TestMetaTooBig(t *testing.T) {
	const block = "04 0161 0162" // {a: b}
	for _, tt := range []struct {
		limit  int
		tooBig bool
		meta   map[string]string
	}{
		{4, false, map[string]string{"a": "b"}},
		{3, true, nil},
		{0, true, nil},
	} {
		r, args, tooBig, err := ParseRequest(unhex(t, "01"+block+"02 ff"), HasMeta|More, tt.limit)
		if err != nil || tooBig != tt.tooBig || r.Total != 2 || !bytes.Equal(args, []byte{0xff}) {
			t.Errorf("limit %d: got %+v, %x, %t, %v", tt.limit, r, args, tooBig, err)
		}
		if diff := cmp.Diff(tt.meta, r.Meta); diff != "" {
			t.Errorf("limit %d, -want +got:\n%s", tt.limit, diff)
		}
		s, rest, tooBig, err := ParseResponse(unhex(t, block+"02 ff"), HasMeta|More, tt.limit)
		if err != nil || tooBig != tt.tooBig || s.Total != 2 || !bytes.Equal(rest, []byte{0xff}) {
			t.Errorf("limit %d: got %+v, %x, %t, %v", tt.limit, s, rest, tooBig, err)
		}
		if diff := cmp.Diff(tt.meta, s.Meta); diff != "" {
			t.Errorf("limit %d, -want +got:\n%s", tt.limit, diff)
		}
	}
}

func TestParseMeta(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		want      map[string]string
		err       string
	}{
		{"empty", "00", map[string]string{}, ""},
		{"the last of a key counts", "08 0161 0162 0161 0163", map[string]string{"a": "c"}, ""},
		{"length cut off", "80", nil, "metadata: frame ends early"},
		{"length beyond an int", "ffffffffffffffffff01", nil, "metadata: frame ends early"},
		{"block cut off", "04 0161 01", nil, "metadata: frame ends early"},
		{"key without a value", "02 0161", nil, "metadata: frame ends early"},
		{"key beyond the block", "02 0261 0161", nil, "metadata: frame ends early"},
		{"value beyond the block", "03 0161 01 62", nil, "metadata: frame ends early"},
		{"length not shortest", "8000", nil, "metadata: number is not in its shortest form"},
		{"key length not shortest", "04 8000 0161", nil, "metadata: number is not in its shortest form"},
		{"value length too large", "0b 00 ffffffffffffffffff02", nil, "metadata: number has more than 64 bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, rest, tooBig, err := ParseMeta(unhex(t, tt.hex), MaxBody)
			wantError(t, err, tt.err)
			if diff := cmp.Diff(tt.want, m); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if len(rest) > 0 || tooBig {
				t.Errorf("rest %x, tooBig %t", rest, tooBig)
			}
		})
	}
}

func TestMetaSize(t *testing.T) {
	m := make(map[string]string)
	for i, n := range []int{0, 1, 127, 128, 16383, 16384} {
		m[strings.Repeat("k", n)] = strings.Repeat("v", n)
		m[strconv.Itoa(i)] = "x"
		block := AppendMeta(nil, m)
		size, rest, err := uvarint(block)
		if err != nil || int(size) != len(rest) || MetaSize(m) != len(rest) {
			t.Errorf("MetaSize is %d, the block announces %d and has %d bytes, %v", MetaSize(m), size, len(rest), err)
		}
	}
}

func TestMetaOrder(t *testing.T) {
	m := make(map[string]string)
	for i := range 100 {
		m[strconv.Itoa(i)] = "x"
	}
	want := AppendMeta(nil, m)
	for range 10 {
		if !bytes.Equal(AppendMeta(nil, m), want) {
			t.Fatal("the same metadata has two encodings")
		}
	}
}

// TestBodyErrors has the errors of the bodies that have no more than a few.
func TestBodyErrors(t *testing.T) {
	name := func(b []byte) error { _, _, err := ParseName(b); return err }
	credit := func(b []byte) error { _, _, err := ParseCredit(b); return err }
	total := func(b []byte) error { _, _, err := ParseTotal(b); return err }
	item := func(b []byte) error { _, _, err := CutItem(b); return err }
	goAway := func(b []byte) error { _, _, err := ParseGoAway(b); return err }
	channel := func(typ Type) func([]byte) error {
		return func(b []byte) error { _, _, err := ParseChannel(typ, b); return err }
	}
	for _, tt := range []struct {
		name  string
		parse func([]byte) error
		hex   string
		want  string
	}{
		{"NAME of nothing", name, "", "NAME: frame ends early"},
		{"NAME cut off", name, "0261", "NAME: frame ends early"},
		{"NAME not shortest", name, "8000", "NAME: number is not in its shortest form"},
		{"CREDIT of nothing", credit, "", "CREDIT: frame ends early"},
		{"CREDIT without a number", credit, "01", "CREDIT: frame ends early"},
		{"CREDIT cut off", credit, "0180", "CREDIT: frame ends early"},
		{"CREDIT of 65 bits", credit, "01ffffffffffffffffff02", "CREDIT: number has more than 64 bits"},
		{"CREDIT with more", credit, "010100", "CREDIT: bytes after the number"},
		{"total of nothing", total, "", "total length: frame ends early"},
		{"total not shortest", total, "8000", "total length: number is not in its shortest form"},
		{"ITEM of nothing", item, "", "ITEM: frame ends early"},
		{"ITEM cut off", item, "0201", "ITEM: frame ends early"},
		{"ITEM not shortest", item, "810001", "ITEM: number is not in its shortest form"},
		{"GOAWAY of nothing", goAway, "", "GOAWAY: frame ends early"},
		{"PART without a channel", channel(Part), "", "PART: frame ends early"},
		{"ITEM without a channel", channel(Item), "", "ITEM: frame ends early"},
		{"DATA without a channel", channel(Data), "", "DATA: frame ends early"},
		{"CLOSE without a channel", channel(Close), "", "CLOSE: frame ends early"},
		{"STOP without a channel", channel(Stop), "", "STOP: frame ends early"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, tt.parse(unhex(t, tt.hex)), tt.want)
		})
	}
}

// TestGoAwayReason: a reason is for people, and cut at 1024 bytes by both sides.
func TestGoAwayReason(t *testing.T) {
	long := strings.Repeat("x", 2000)
	for _, tt := range []struct {
		name string
		body []byte
		want string
	}{
		{"none", AppendGoAway(nil, 14, ""), ""},
		{"short", AppendGoAway(nil, 14, "bye"), "bye"},
		{"long", AppendGoAway(nil, 14, long), long[:1024]},
		{"long of another implementation", []byte("\x0e" + long), long[:1024]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, reason, err := ParseGoAway(tt.body)
			if err != nil || code != 14 || reason != tt.want {
				t.Errorf("got %d, %q, %v, want 14, %q", code, reason, err, tt.want)
			}
		})
	}
	if n := len(AppendGoAway(nil, 14, long)); n != 1025 {
		t.Errorf("a long reason makes a body of %d bytes, want 1025", n)
	}
}

func TestBlobSize(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 16383, 16384} {
		if got, want := BlobSize(n), len(AppendBlob(nil, make([]byte, n))); got != want {
			t.Errorf("BlobSize(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestSlot(t *testing.T) {
	for id, want := range map[uint32]int{0: 0, 0x00010000: 0, 0x0001ffff: MaxSlots - 1, 0xffff0007: 7} {
		if got := Slot(id); got != want {
			t.Errorf("Slot(%#x) = %d, want %d", id, got, want)
		}
	}
}

// TestNoAllocation: what every frame of a busy connection goes through takes no
// memory of its own.
func TestNoAllocation(t *testing.T) {
	frame := AppendHeader(nil, Header{Type: Request, Flags: HasLimit}, 0)
	frame = AppendRequest(frame, HasLimit, &RequestHead{Number: 7, Limit: time.Second})
	item := AppendBlob(nil, "value")
	dst := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		h, _, err := ParseHeader(frame)
		r, _, _, err2 := ParseRequest(frame[HeaderSize:], h.Flags, MaxBody)
		_, _, err3 := CutItem(item)
		if err != nil || err2 != nil || err3 != nil {
			t.Fatal(err, err2, err3)
		}
		AppendCredit(AppendRequest(AppendHeader(dst, h, 0), h.Flags, &r), 1, 1<<16)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestParseResumeErrors(t *testing.T) {
	for _, tt := range []struct{ name, hex, want string }{
		{"nothing", "", "RESUME: frame ends early"},
		{"a short secret", "02 00", "RESUME: frame ends early"},
		{"no attempt", "00", "RESUME: frame ends early"},
		{"no position", "00 01", "RESUME: frame ends early"},
		{"too much", "00 01 00 00", "RESUME: bytes after the number"},
		{"a long number", "00 01 8000", "RESUME: number is not in its shortest form"},
		{"a secret too long", "41" + strings.Repeat("00", 65) + "01 00", "RESUME: a secret of 65 bytes is longer than 64"},
	} {
		if _, err := ParseResume(unhex(t, tt.hex)); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	for hex, want := range map[string]string{"": "ACK: frame ends early", "00 00": "ACK: bytes after the number"} {
		if _, err := ParseAck(unhex(t, hex)); err == nil || err.Error() != want {
			t.Errorf("ACK of %q: %v, want %s", hex, err, want)
		}
	}
}
