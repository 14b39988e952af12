package yonder

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/yonder-rpc/yonder/internal/anyjson"
	"github.com/yonder-rpc/yonder/internal/cborjson"
	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/plain"
)

// A Codec turns values into bytes and back. Implementations are safe for concurrent
// use, and keep what they return apart from what they are given.
type Codec interface {
	// Name is how the two ends of a connection agree on it, such as "cbor".
	Name() string
	// Encode appends v. What is appended to buf when it fails is dropped.
	Encode(buf *bytes.Buffer, v any) error
	// Decode reads one value from the front of data into what v points to, and returns
	// the bytes behind it. It must withstand any data, and nothing in v may refer to data, whose memory
	// other messages have later.
	Decode(data []byte, v any) (rest []byte, err error)
}

// CBOR is the default codec: RFC 8949, by github.com/fxamacker/cbor/v2. Structs are
// maps with the fields' names, by the rules and tags of encoding/json, so that fields
// can be added. Strings that are not UTF-8 cross as they are. Types that encode themselves
// as JSON only do so here, too: integers of up to 20,000 digits cross exactly, and other
// numbers as a float64.
var CBOR Codec = newCBOR()

// JSON is the codec that people can read, by encoding/json. A server accepts it if its
// Codecs lists it. NaN, infinities, and strings that are not UTF-8, cannot cross in it. What
// arrives behind an interface is an int64, or a *big.Int if it is larger, where JSON has an integer, as it
// has for a float64 that is whole.
var JSON Codec = jsonCodec{}

// maxNesting is how deeply values may be nested, in levels.
const maxNesting = 10000

type cborCodec struct {
	enc cbor.UserBufferEncMode
	dec cbor.DecMode
	// anyKeys is for maps behind an interface whose keys are not strings.
	anyKeys cbor.DecMode
}

func newCBOR() *cborCodec {
	enc := must(cbor.EncOptions{
		Time:                    cbor.TimeRFC3339Nano,
		TimeTag:                 cbor.EncTagRequired,
		TextMarshaler:           cbor.TextMarshalerTextString,
		JSONMarshalerTranscoder: transcoder(cborjson.AppendCBOR),
	}.UserBufferEncMode())
	options := cbor.DecOptions{
		MaxNestedLevels:           maxNesting + 8,
		MaxArrayElements:          1<<31 - 1, // a message's size is the limit
		MaxMapPairs:               1<<31 - 1,
		IntDec:                    cbor.IntDecConvertSignedOrBigInt,
		DefaultMapType:            reflect.TypeFor[map[string]any](),
		UTF8:                      cbor.UTF8DecodeInvalid,
		TextUnmarshaler:           cbor.TextUnmarshalerTextString,
		JSONUnmarshalerTranscoder: transcoder(cborjson.AppendJSON),
	}
	dec := must(options.DecMode())
	options.DefaultMapType = nil
	return &cborCodec{enc, dec, must(options.DecMode())}
}

// must returns a mode whose options are constants.
func must[T any](mode T, err error) T {
	if err != nil {
		panic(err)
	}
	return mode
}

func (*cborCodec) Name() string { return "cbor" }

func (c *cborCodec) Encode(buf *bytes.Buffer, v any) error {
	b, ok := v.([]byte)
	if p, is := v.(*[]byte); is && p != nil {
		b, ok = *p, true
	}
	if ok && len(b) > copyStep {
		c.appendBytes(buf, b)
		return nil
	}
	if plain.Encode(buf, v) {
		return nil
	}
	return c.enc.MarshalToBuffer(v, buf)
}

// copyStep is how much of a large byte string is copied at a time, in bytes. The runtime
// cannot stop a goroutine while it copies, only between, and all others wait for that when
// it collects garbage.
const copyStep = 512 << 10

// byteString is the head of a byte string. RFC 8949, section 3.
const byteString = 2 << 5

// appendBytes appends a byte string longer than copyStep.
func (c *cborCodec) appendBytes(buf *bytes.Buffer, b []byte) {
	if need := buf.Len() + maxBytesHead + len(b); need > buf.Cap() {
		// Not Grow, which clears all of it in a step of its own.
		*buf = *bytes.NewBuffer(append(make([]byte, 0, need), buf.Bytes()...))
	}
	c.appendHead(buf, len(b))
	for part := range slices.Chunk(b, copyStep) {
		buf.Write(part)
	}
}

// appendHead implements [bytesCutter], for more than 64 KiB.
func (*cborCodec) appendHead(buf *bytes.Buffer, n int) {
	head := buf.AvailableBuffer()
	if size := uint64(n); size <= math.MaxUint32 {
		head = binary.BigEndian.AppendUint32(append(head, byteString|26), uint32(size))
	} else {
		head = binary.BigEndian.AppendUint64(append(head, byteString|27), size)
	}
	buf.Write(head)
}

func (c *cborCodec) Decode(data []byte, v any) ([]byte, error) {
	if rest, ok := plain.Decode(data, v); ok {
		return rest, nil
	}
	return c.decode(data, v)
}

// decode is Decode without package plain.
func (c *cborCodec) decode(data []byte, v any) ([]byte, error) {
	if len(data) > maxTags {
		if err := checkCBOR(data); err != nil {
			return nil, err
		}
	}
	rest, err := c.dec.UnmarshalFirst(data, v)
	if err == nil {
		return rest, nil
	}
	if e, ok := errors.AsType[*cbor.UnmarshalTypeError](err); ok && e.GoType == "string" {
		reflect.ValueOf(v).Elem().SetZero()
		if rest, again := c.anyKeys.UnmarshalFirst(data, v); again == nil {
			return rest, nil
		}
	}
	return rest, err
}

// cutBytes implements [bytesCutter]: it reads the head of a byte string of definite
// length. RFC 8949, section 3.
func (*cborCodec) cutBytes(data []byte) (b, rest []byte, ok bool) {
	if len(data) == 0 || data[0]&0xe0 != byteString {
		return nil, nil, false
	}
	n, head := uint64(data[0]&0x1f), 1
	if n >= 24 {
		size := 1 << (n - 24)
		if n > 27 || len(data) < 1+size {
			return nil, nil, false
		}
		head += size
		n = 0
		for _, c := range data[1:head] {
			n = n<<8 | uint64(c)
		}
	}
	if n > uint64(len(data)-head) {
		return nil, nil, false
	}
	end := head + int(n)
	return data[head:end:end], data[end:], true
}

// transcoder carries the types that only encode themselves as JSON, one way or the other.
type transcoder func(dst, src []byte) ([]byte, error)

// Transcode implements [cbor.Transcoder].
func (f transcoder) Transcode(dst io.Writer, src io.Reader) error {
	var in bytes.Buffer
	in.ReadFrom(src) // bytes in memory
	out, err := f(nil, in.Bytes())
	if err == nil {
		_, err = dst.Write(out)
	}
	return err
}

type jsonCodec struct{}

func (jsonCodec) Name() string { return "json" }

func (jsonCodec) Encode(buf *bytes.Buffer, v any) error {
	value := reflect.ValueOf(v)
	switch value.Kind() {
	case reflect.Invalid, reflect.Pointer, reflect.Map, reflect.Slice:
	default: // methods of the pointer encode, too
		p := reflect.New(value.Type())
		p.Elem().Set(value)
		v = p.Interface()
	}
	text, err := json.Marshal(v)
	if err != nil || bytes.Contains(text, replaced) {
		if why := fn.ExplainText(value); why != nil {
			return why
		}
	}
	if err != nil {
		return err
	}
	buf.Write(text)
	buf.WriteByte('\n')
	return nil
}

// replaced is what encoding/json writes for bytes that are not UTF-8.
var replaced = []byte(`\ufffd`)

func (jsonCodec) Decode(data []byte, v any) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if len(data) > maxDigits {
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return nil, err
		}
		if err := checkDigits(text); err != nil {
			return nil, err
		}
		d = json.NewDecoder(bytes.NewReader(data))
	}
	d.UseNumber()
	err := d.Decode(v)
	if err == nil {
		err = anyjson.Numbers(reflect.ValueOf(v), maxDigits)
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimLeft(data[d.InputOffset():], " \t\r\n"), nil
}
