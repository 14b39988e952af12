package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
)

// unhex reads hexadecimal bytes; spaces are skipped.
func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestParseHeader(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		want      Header
		n         int
	}{
		{"empty body", "00000006 03 00 00010000", Header{Type: Request, ID: 1 << 16}, 0},
		{"largest body", "00011006 05 01 ffffffff", Header{Type: Part, Flags: More, ID: math.MaxUint32}, MaxBody},
		{"every flag of REQUEST", "00000007 03 7f 00000000", Header{Type: Request, Flags: 0x7f}, 1},
		{"every flag of RESPONSE", "00000007 04 1f 00000000", Header{Type: Response, Flags: 0x1f}, 1},
		{"every flag of CLOSE", "00000007 09 98 00000000", Header{Type: Close, Flags: 0x98}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.hex)
			h, n, err := ParseHeader(b)
			if err != nil || h != tt.want || n != tt.n {
				t.Errorf("got %+v, %d, %v, want %+v, %d", h, n, err, tt.want, tt.n)
			}
			if got := AppendHeader(nil, h, n); !bytes.Equal(got, b) {
				t.Errorf("AppendHeader makes %x, want %x", got, b)
			}
			got := make([]byte, HeaderSize)
			if PutHeader(got, h, n); !bytes.Equal(got, b) {
				t.Errorf("PutHeader makes %x, want %x", got, b)
			}
		})
	}
}

func TestParseHeaderErrors(t *testing.T) {
	for _, tt := range []struct{ name, hex, want string }{
		{"nothing", "", "frame ends early"},
		{"one byte short", "00000006 03 00 000100", "frame ends early"},
		{"length below the header", "00000005 03 00 00010000", "frame length 5 is outside 6 to 69638"},
		{"length beyond the largest body", "00011007 03 00 00010000", "frame length 69639 is outside 6 to 69638"},
		{"text", hex.EncodeToString([]byte("GET / HTTP/1.1")), "frame length 1195725856 is outside 6 to 69638"},
		{"type 0", "00000006 00 00 00000000", "unknown frame type 0"},
		{"type beyond the last", "00000006 11 00 00000000", "unknown frame type 17"},
		{"type 255", "00000006 ff 00 00000000", "unknown frame type 255"},
		{"flag of another type", "00000006 03 80 00010000", "REQUEST frame has flags 0x80 that it does not use"},
		{"two flags of another type", "00000006 04 61 00010000", "RESPONSE frame has flags 0x60 that it does not use"},
		{"DATA with End", "00000006 08 08 00010000", "DATA frame has flags 0x08 that it does not use"},
		{"HELLO with an id", "00000006 01 00 00000001", "HELLO frame has the id 0x1, but concerns the whole connection"},
		{"PING with an id", "00000006 0c 00 00010000", "PING frame has the id 0x10000, but concerns the whole connection"},
		{"PONG with an id", "00000006 0d 00 00010000", "PONG frame has the id 0x10000, but concerns the whole connection"},
		{"GOAWAY with an id", "00000006 0e 00 80000000", "GOAWAY frame has the id 0x80000000, but concerns the whole connection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := ParseHeader(unhex(t, tt.hex))
			wantError(t, err, tt.want)
		})
	}
	if _, _, err := ParseHeader(nil); err != ErrShort {
		t.Errorf("ParseHeader of nothing is %v, want ErrShort itself", err)
	}
}

// TestAllowedFlags lists every pair of a type and a flag, so that a new flag is
// a decision for each type.
func TestAllowedFlags(t *testing.T) {
	want := map[Type]string{
		Request:  "More HasMeta Packed HasLimit OneWay Callback Check",
		Response: "More HasMeta Packed End Failed",
		Part:     "More FromCallee",
		Item:     "More FromCallee",
		Data:     "FromCallee",
		Close:    "End Failed FromCallee",
		Stop:     "FromCallee",
		Credit:   "FromCallee",
	}
	for typ := Hello; typ <= lastType; typ++ {
		var got []string
		for i, name := range flagNames(typ) {
			frame := AppendHeader(nil, Header{Type: typ, Flags: 1 << i}, 0)
			if _, _, err := ParseHeader(frame); err == nil {
				got = append(got, name)
			}
		}
		if got := strings.Join(got, " "); got != want[typ] {
			t.Errorf("%v takes the flags %q, want %q", typ, got, want[typ])
		}
	}
}

func TestTypeString(t *testing.T) {
	for typ := Hello; typ <= lastType; typ++ {
		if s := typ.String(); s == "" || s != strings.ToUpper(s) || strings.Contains(s, " ") {
			t.Errorf("type %d is called %q", uint8(typ), s)
		}
	}
	for typ, want := range map[Type]string{0: "type 0", lastType + 1: "type 17", 255: "type 255"} {
		if got := typ.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestPreface holds the preface to what makes a shared port possible: it begins
// as no other protocol there can.
func TestPreface(t *testing.T) {
	if len(Preface) != 8 {
		t.Errorf("the preface has %d bytes, want 8", len(Preface))
	}
	// ASCII text, TLS records and gob's one-byte lengths are below 0x80; so is the
	// first byte of a session frame of less than 2 GiB. Gob's longer lengths begin
	// with 0xf8 or more.
	if c := Preface[0]; c < 0x80 || c >= 0xf8 {
		t.Errorf("the preface begins with %#02x, want 0x80 to 0xf7", c)
	}
	if _, _, err := ParseHeader([]byte(Preface + "\x00\x00")); err == nil {
		t.Error("the preface can begin a frame")
	}
}

func TestUvarint(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		want      uint64
		err       string
	}{
		{"zero", "00", 0, ""},
		{"largest of one byte", "7f", 127, ""},
		{"smallest of two bytes", "8001", 128, ""},
		{"largest", "ffffffffffffffffff01", math.MaxUint64, ""},
		{"nothing", "", 0, "frame ends early"},
		{"cut off", "80", 0, "frame ends early"},
		{"cut off after ten bytes", "80808080808080808080", 0, "frame ends early"},
		{"65 bits", "ffffffffffffffffff02", 0, "number has more than 64 bits"},
		{"eleven bytes", "8080808080808080808001", 0, "number has more than 64 bits"},
		{"zero in two bytes", "8000", 0, "number is not in its shortest form"},
		{"one in three bytes", "818000", 0, "number is not in its shortest form"},
		{"zero in ten bytes", "80808080808080808000", 0, "number is not in its shortest form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, rest, err := uvarint(unhex(t, tt.hex))
			wantError(t, err, tt.err)
			if v != tt.want || len(rest) > 0 {
				t.Errorf("got %d and %x after it, want %d", v, rest, tt.want)
			}
		})
	}
}

// TestBlobCapacity keeps an append to a parsed value from writing over the value
// that follows it in the frame.
func TestBlobCapacity(t *testing.T) {
	b := unhex(t, "0161 0162")
	v, rest, err := blob(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(v, 0xff)
	if !bytes.Equal(rest, []byte("\x01b")) {
		t.Errorf("an append to the first value has changed the second: %x", rest)
	}
}

// wantError checks an error's exact text; "" stands for no error. A text with
// "frame ends early" must be ErrShort to errors.Is, too.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("got the error %q, want none", err)
		}
		return
	}
	if err == nil {
		t.Errorf("got no error, want %q", want)
		return
	}
	if err.Error() != want {
		t.Errorf("got the error\n%s\nwant\n%s", err, want)
	}
	if short := strings.HasSuffix(want, ErrShort.Error()); short != errors.Is(err, ErrShort) {
		t.Errorf("errors.Is(err, ErrShort) is %t for %q", !short, err)
	}
}
