package yonder

import (
	"bytes"
	"reflect"
	"slices"

	"github.com/yonder-rpc/yonder/internal/fn"
	"github.com/yonder-rpc/yonder/internal/mux"
	"github.com/yonder-rpc/yonder/internal/plain"
)

// encodeValue appends one value, or a pointer's.
func encodeValue(codec Codec, msg *mux.Message, slot *fn.Slot, v any) error {
	if _, ok := codec.(*cborCodec); ok && slot.Plan != nil && slot.Plan.Encode(&msg.Buffer, reflect.ValueOf(v)) {
		return nil
	}
	if slot.Walk {
		if err := fn.Acyclic(reflect.ValueOf(v)); err != nil {
			return err
		}
	}
	before := msg.Len()
	switch b := v.(type) {
	case []byte:
		msg.Reserve(len(b) + maxBytesHead)
	case *[]byte:
		if b != nil {
			msg.Reserve(len(*b) + maxBytesHead)
		}
	}
	err := codec.Encode(&msg.Buffer, v)
	if err != nil {
		msg.Truncate(before)
		if why := fn.Explain(reflect.ValueOf(v)); why != nil {
			return why
		}
	}
	return err
}

// maxBytesHead is what is in front of a byte string at most, in bytes.
const maxBytesHead = 9

// bytesCutter is a codec that can read and write a byte string without copying it.
type bytesCutter interface {
	cutBytes(data []byte) (b, rest []byte, ok bool)
	// appendHead appends what goes before more than copyStep bytes.
	appendHead(buf *bytes.Buffer, n int)
}

// fillBytes reads bytes to memory that is there, and reports false if it is something else that comes.
func (l *link) fillBytes(data *[]byte, into any) bool {
	b, ok := into.(*[]byte)
	if !ok {
		return false
	}
	codec, ok := l.codec.(bytesCutter)
	if !ok {
		return false
	}
	value, rest, ok := codec.cutBytes(*data)
	if !ok {
		return false
	}
	if cap(*b) < len(value) || *b == nil {
		*b = make([]byte, 0, len(value))
	}
	*b, *data = (*b)[:0], rest
	for part := range slices.Chunk(value, copyStep) {
		*b = appendPart(*b, part)
	}
	return true
}

// appendPart is a call because that is where the runtime can stop a goroutine: see copyStep.
//
//go:noinline
func appendPart(b, part []byte) []byte { return append(b, part...) }

// A sharing says what of a value may share the memory of the message that it comes in.
type sharing uint8

const (
	sharesNothing sharing = iota
	sharesBytes           // bytes that are all of it: they are lent
	sharesAll             // bytes, and what is most of it: nothing else uses the message
)

// beginTexts has texts make the strings of a message.
func beginTexts(texts *plain.Texts, message []byte, shares sharing) {
	texts.Kept, texts.Least = false, 0
	if shares == sharesAll {
		texts.Least = max(len(message)/2, leastKept)
	}
}

// leastKept is how many bytes of a message are worth keeping all of it for.
const leastKept = 4 << 10

// decodeValue reads one value of a message, after beginTexts. It sets texts.Kept if the value shares data.
func decodeValue(codec Codec, slot *fn.Slot, data []byte, shares sharing, into any, texts *plain.Texts) (rest []byte, err error) {
	if slot.Plan != nil {
		if c, ok := codec.(*cborCodec); ok {
			if rest, ok := slot.Plan.Decode(data, reflect.ValueOf(into), texts); ok {
				return rest, nil
			}
			return c.decode(data, into)
		}
	} else if b, ok := into.(*[]byte); ok && shares != sharesNothing {
		if cutter, ok := codec.(bytesCutter); ok {
			if value, rest, ok := cutter.cutBytes(data); ok {
				*b, texts.Kept = value, true
				return rest, nil
			}
		}
	}
	return codec.Decode(data, into)
}

var bytesType = reflect.TypeFor[[]byte]()

// endWithBytes appends the last result if that is a large byte string, without a copy. Where it may
// have to be sent again after a loss, it is copied: by then the program may have changed it.
func (l *link) endWithBytes(msg *mux.Message, call *Call) bool {
	codec, ok := l.codec.(bytesCutter)
	if !ok || l.mux.Packs() > 0 {
		return false
	}
	var b []byte
	if p, ok := call.result.(*[]byte); ok {
		b = *p
	} else if call.result == nil {
		if v := call.out[len(call.out)-1]; v.Type() == bytesType {
			b = v.Bytes()
		}
	}
	if len(b) <= copyStep || l.resume > 0 && l.mux.Resumable() {
		return false
	}
	codec.appendHead(&msg.Buffer, len(b))
	msg.End(b)
	return true
}
