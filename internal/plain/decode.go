package plain

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"unsafe"
)

// maxInflation is how much larger than the bytes behind its head the memory of a slice may be. What
// claims more is left to the library, which makes it only once all of the data is well-formed.
const maxInflation = 64

// Decode reads one value from the front of data into what into points to, and returns the bytes
// behind it. If it does not understand everything, it reports false and leaves into as it was: the
// library has the last word. So it does where something is there already, with which the library
// would merge the value. It withstands any data.
func Decode(data []byte, into any) (rest []byte, ok bool) {
	if into == nil {
		return nil, false
	}
	v := reflect.ValueOf(into)
	p := Of(v.Type())
	if p == nil || p.kind != reflect.Pointer {
		return nil, false
	}
	return p.elem.Decode(data, v, new(Texts))
}

// Decode is the function of that name, for into that points to a value of the plan's type.
func (p *Plan) Decode(data []byte, into reflect.Value, t *Texts) (rest []byte, ok bool) {
	if into.Type() != p.pointer {
		return nil, false
	}
	at := into.UnsafePointer()
	if at == nil || !isClear(at, p.size) && !isZero(p, at, false) {
		return nil, false
	}
	if rest, ok = decode(p, data, at, t); !ok {
		isZero(p, at, true)
	}
	return rest, ok
}

// maxShared is how many bytes strings may share, and so the most that one of them can keep in
// memory which nobody has any more.
const maxShared = 128

// Texts makes the strings of values that are decoded one after the other. Short ones share their
// memory. The zero value is ready to use; a copy of one that has been used is not.
type Texts struct {
	// Least, unless it is 0, is how many bytes a string or a byte string must have to share the data's
	// memory, which is nobody else's then. Kept is set when one does.
	Least int
	Kept  bool

	shared []byte // what it has room for comes next
}

// cut returns the first n of what is left of the data as a string.
func (t *Texts) cut(rest []byte, n int) string {
	switch {
	case t.keeps(n):
		return unsafe.String(&rest[0], n)
	case n > maxShared/2 || n == 0:
		return string(rest[:n])
	}
	at := len(t.shared)
	if cap(t.shared)-at < n {
		size := maxShared
		if t.shared == nil { // there may be no other value
			size = min(len(rest), maxShared)
		}
		t.shared, at = make([]byte, 0, size), 0
	}
	t.shared = append(t.shared, rest[:n]...)
	return unsafe.String(&t.shared[at], n)
}

// keeps reports whether n bytes share the data's memory, which they then do.
func (t *Texts) keeps(n int) bool {
	if t.Least == 0 || n < t.Least {
		return false
	}
	t.Kept = true
	return true
}

// isClear reports whether all of a value's memory is zero, if that is quickly found.
func isClear(at unsafe.Pointer, size int) bool {
	if (uintptr(at)|uintptr(size))%8 != 0 {
		return false
	}
	for i := 0; i < size; i += 8 {
		if *(*uint64)(unsafe.Add(at, i)) != 0 {
			return false
		}
	}
	return true
}

// isZero reports whether nothing that decoding writes to is set at a value's place, or makes it so.
// It tells -0 from 0.
func isZero(p *Plan, at unsafe.Pointer, clear bool) bool {
	switch {
	case p.kind == reflect.Struct:
		for i := range p.fields {
			if f := &p.fields[i]; !isZero(f.Plan, unsafe.Add(at, f.offset), clear) {
				return false
			}
		}
		return true
	case p.kind == reflect.Array && !p.bytes:
		for i := range p.len {
			if !isZero(p.elem, unsafe.Add(at, i*p.elem.size), clear) {
				return false
			}
		}
		return true
	case clear:
		reflect.NewAt(p.typ, at).Elem().SetZero()
		return true
	}
	switch p.kind {
	case reflect.Array:
		return !slices.ContainsFunc(unsafe.Slice((*byte)(at), p.len), func(b byte) bool { return b != 0 })
	case reflect.String:
		return *(*string)(at) == ""
	case reflect.Slice:
		return *(*[]byte)(at) == nil
	case reflect.Pointer:
		return *(*unsafe.Pointer)(at) == nil
	default:
		return p.bits(at) == 0
	}
}

// decode reads one value to its place, which is zero. If it fails, parts may have been written.
func decode(p *Plan, data []byte, at unsafe.Pointer, t *Texts) (rest []byte, ok bool) {
	if len(data) == 0 {
		return nil, false
	}
	first := data[0]
	switch p.kind {
	case reflect.Bool:
		if first != simpleFalse && first != simpleTrue {
			return nil, false
		}
		*(*bool)(at) = first == simpleTrue
		return data[1:], true
	case reflect.Pointer:
		if first == simpleNull {
			return data[1:], true
		}
		elem := reflect.New(p.elem.typ).UnsafePointer()
		*(*unsafe.Pointer)(at) = elem
		return decode(p.elem, data, elem, t)
	case reflect.Slice:
		if first == simpleNull {
			return data[1:], true
		}
	case reflect.Float32, reflect.Float64:
		return decodeFloat(p, data, at)
	}

	major, n, rest, ok := cutHead(data)
	if !ok {
		return nil, false
	}
	switch p.kind {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		// A number fits if all bits from its sign on are the same: n has those of a negative one inverted.
		if major > majorNegative || n>>(8*p.size-1) != 0 {
			return nil, false
		}
		if major == majorNegative {
			n = ^n
		}
		p.setBits(at, n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if major != majorUint || n>>(8*p.size-1)>>1 != 0 {
			return nil, false
		}
		p.setBits(at, n)
	case reflect.String:
		if major != majorText || n > uint64(len(rest)) {
			return nil, false
		}
		*(*string)(at) = t.cut(rest, int(n))
		return rest[n:], true
	case reflect.Slice:
		if p.bytes {
			if major != majorBytes || n > uint64(len(rest)) {
				return nil, false
			}
			b := rest[:n:n]
			if !t.keeps(int(n)) {
				b = make([]byte, n)
				copy(b, rest)
			}
			*(*[]byte)(at) = b
			return rest[n:], true
		}
		if major != majorArray || n > uint64(len(rest)) || n > maxInflation*uint64(len(rest))/max(uint64(p.elem.size), 1) {
			return nil, false
		}
		return decodeList(p.elem, rest, p.makeSlice(at, int(n)), int(n), t)
	case reflect.Array:
		if p.bytes {
			if major != majorBytes || n != uint64(p.len) || n > uint64(len(rest)) {
				return nil, false
			}
			copy(unsafe.Slice((*byte)(at), p.len), rest)
			return rest[n:], true
		}
		if major != majorArray || n != uint64(p.len) {
			return nil, false
		}
		return decodeList(p.elem, rest, at, p.len, t)
	case reflect.Struct:
		if major != majorMap || n > uint64(len(rest)) {
			return nil, false
		}
		return decodeFields(p, rest, at, int(n), t)
	}
	return rest, true
}

// makeSlice makes a slice of n elements at its place, and returns where they are.
func (p *Plan) makeSlice(at unsafe.Pointer, n int) unsafe.Pointer {
	switch {
	case p.elem.kind == reflect.String: // as most are; all such have one layout
		*(*[]string)(at) = make([]string, n)
	case n == 0:
		reflect.NewAt(p.typ, at).Elem().Set(p.empty)
	default:
		v := reflect.NewAt(p.typ, at).Elem()
		v.Grow(n) // not MakeSlice, which allocates the slice's head, too
		v.SetLen(n)
		v.SetCap(n)
	}
	return p.elements(at)
}

func decodeFloat(p *Plan, data []byte, at unsafe.Pointer) (rest []byte, ok bool) {
	var f float64
	switch first := data[0]; {
	case first == simpleFloat64 && len(data) >= 9:
		f, data = math.Float64frombits(binary.BigEndian.Uint64(data[1:])), data[9:]
	case first == simpleFloat32 && len(data) >= 5:
		f, data = float64(math.Float32frombits(binary.BigEndian.Uint32(data[1:]))), data[5:]
	default: // halves, and integers
		return nil, false
	}
	if p.kind == reflect.Float64 {
		*(*float64)(at) = f
		return data, true
	}
	if reflect.TypeFor[float32]().OverflowFloat(f) {
		return nil, false
	}
	*(*float32)(at) = float32(f)
	return data, true
}

// decodeList reads n values, one after the other, of what may be a slice or an array.
func decodeList(elem *Plan, data []byte, at unsafe.Pointer, n int, t *Texts) (rest []byte, ok bool) {
	for i := range n {
		if data, ok = decode(elem, data, unsafe.Add(at, i*elem.size), t); !ok {
			return nil, false
		}
	}
	return data, true
}

// decodeFields reads n pairs of a name and a value. The names are compared as they are encoded, first
// with that of the field which follows the last one: mostly they come in the struct's order. What
// has no field here, because the other end knows more, is skipped.
func decodeFields(p *Plan, data []byte, at unsafe.Pointer, n int, t *Texts) (rest []byte, ok bool) {
	var seen uint64
	next := 0
	for range n {
		tried := 0
		for ; tried < len(p.fields); tried++ {
			if next == len(p.fields) {
				next = 0
			}
			if bytes.HasPrefix(data, p.fields[next].key) {
				break
			}
			next++
		}
		if tried == len(p.fields) {
			if data, ok = skipUnknown(p, data); !ok {
				return nil, false
			}
			continue
		}
		if seen&(1<<next) != 0 {
			return nil, false
		}
		seen |= 1 << next
		f := &p.fields[next]
		if data, ok = decode(f.Plan, data[len(f.key):], unsafe.Add(at, f.offset), t); !ok {
			return nil, false
		}
		next++
	}
	return data, true
}

// skipUnknown skips a name that is no field's, and the value that goes with it.
func skipUnknown(p *Plan, data []byte) (rest []byte, ok bool) {
	major, n, rest, ok := cutHead(data)
	if !ok || major != majorText || n > uint64(len(rest)) {
		return nil, false
	}
	name := rest[:n]
	for i := range p.fields {
		f := &p.fields[i]
		if own := f.key[len(f.key)-f.name:]; len(own) == len(name) && bytes.EqualFold(own, name) { // the library's field
			return nil, false
		}
	}
	return skip(rest[n:], maxSkipped)
}

// maxSkipped is how deeply what is skipped may be nested, in levels.
const maxSkipped = 64

// skip returns what follows a value that nobody wants, if that has no more than so many levels.
// Indefinite lengths are the library's, and so are big numbers, of which a codec has limits.
func skip(data []byte, levels int) (rest []byte, ok bool) {
	major, n, rest, ok := cutHead(data)
	if !ok || levels == 0 {
		return nil, false
	}
	switch major {
	case majorBytes, majorText:
		if n > uint64(len(rest)) {
			return nil, false
		}
		return rest[n:], true
	case majorArray, majorMap:
		if n > uint64(len(rest)) {
			return nil, false
		}
		if major == majorMap {
			n *= 2
		}
	case majorTag:
		if n == tagBig || n == tagNegativeBig {
			return nil, false
		}
		n = 1
	case majorSimple:
		return rest, data[0] != simpleByte || n >= 32 // what is below has a form of its own
	default:
		return rest, true
	}
	for range n {
		if rest, ok = skip(rest, levels-1); !ok {
			return nil, false
		}
	}
	return rest, true
}
