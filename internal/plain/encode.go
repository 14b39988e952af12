package plain

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"unsafe"
)

// Encode appends v to buf and reports whether it did: if the type of v is not plain, buf is as it
// was.
func Encode(buf *bytes.Buffer, v any) bool {
	if v == nil {
		return false
	}
	value := reflect.ValueOf(v)
	p := Of(value.Type())
	if p == nil {
		return false
	}
	return p.Encode(buf, value)
}

// Encode appends to buf a value of the plan's type, or the one that a pointer points to, and reports
// whether it did: buf is as it was if v is neither.
func (p *Plan) Encode(buf *bytes.Buffer, v reflect.Value) bool {
	t := v.Type()
	if v.Kind() == reflect.Pointer {
		at := v.UnsafePointer()
		switch {
		case t == p.typ:
			p.encode(buf, unsafe.Pointer(&at))
		case t == p.pointer && at != nil:
			p.encode(buf, at)
		default:
			return false
		}
		return true
	}
	if t != p.typ {
		return false
	}
	if v.CanAddr() {
		p.encode(buf, v.Addr().UnsafePointer())
		return true
	}
	at, ok := p.places.Get().(unsafe.Pointer)
	if !ok {
		at = reflect.New(p.typ).UnsafePointer()
	}
	place := reflect.NewAt(p.typ, at).Elem()
	place.Set(v)
	p.encode(buf, at)
	place.SetZero()
	p.places.Put(at)
	return true
}

//go:noinline
func (p *Plan) encode(buf *bytes.Buffer, at unsafe.Pointer) {
	buf.Grow(minBuffer)
	e := encoder{buf, buf.AvailableBuffer()}
	e.value(p, at)
	buf.Write(e.b)
}

// flushAt is how many bytes an encoder collects before it gives them to the buffer, so that a large
// value is not copied whole, nor needs twice its memory.
const flushAt = 4 << 10

// minBuffer is how much room an encoder wants at first, in bytes, so that a new buffer does not grow
// in small steps.
const minBuffer = 64

type encoder struct {
	buf *bytes.Buffer
	b   []byte // follows what is in buf, mostly in the memory that it has left
}

// head appends the head of a data item in its shortest form. RFC 8949, section 3. It is not inlined
// so that programs stay small.
//
//go:noinline
func (e *encoder) head(major byte, n uint64) {
	switch {
	case n < 24:
		e.b = append(e.b, major|byte(n))
	case n < 1<<8:
		e.b = append(e.b, major|24, byte(n))
	case n < 1<<16:
		e.b = binary.BigEndian.AppendUint16(append(e.b, major|25), uint16(n))
	case n < 1<<32:
		e.b = binary.BigEndian.AppendUint32(append(e.b, major|26), uint32(n))
	default:
		e.b = binary.BigEndian.AppendUint64(append(e.b, major|27), n)
	}
}

//go:noinline
func (e *encoder) flush() {
	e.buf.Write(e.b)
	e.b = e.buf.AvailableBuffer()
}

func (e *encoder) value(p *Plan, at unsafe.Pointer) {
	switch p.kind {
	case reflect.Bool:
		if *(*bool)(at) {
			e.head(simpleTrue, 0)
		} else {
			e.head(simpleFalse, 0)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		shift := 64 - 8*p.size
		if n := int64(p.bits(at)) << shift >> shift; n < 0 {
			e.head(majorNegative, uint64(^n))
		} else {
			e.head(majorUint, uint64(n))
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.head(majorUint, p.bits(at))
	case reflect.Float32:
		e.float(p.kind, float64(*(*float32)(at)))
	case reflect.Float64:
		e.float(p.kind, *(*float64)(at))
	case reflect.String:
		s := *(*string)(at)
		e.head(majorText, uint64(len(s)))
		if len(s) < flushAt {
			e.b = append(e.b, s...)
			break
		}
		e.flush()
		e.buf.WriteString(s)
		e.b = e.buf.AvailableBuffer()
	case reflect.Pointer:
		if elem := *(*unsafe.Pointer)(at); elem == nil {
			e.head(simpleNull, 0)
		} else {
			e.value(p.elem, elem)
		}
	case reflect.Slice:
		switch s := *(*[]byte)(at); {
		case s == nil:
			e.head(simpleNull, 0)
		case p.bytes:
			e.bytes(s)
		default:
			e.list(p.elem, p.elements(at), len(s))
		}
	case reflect.Array:
		if p.bytes {
			e.bytes(unsafe.Slice((*byte)(at), p.len))
		} else {
			e.list(p.elem, at, p.len)
		}
	case reflect.Struct:
		n := len(p.fields)
		if p.sparse {
			for i := range p.fields {
				if f := &p.fields[i]; f.omitEmpty && isEmpty(f.Plan, unsafe.Add(at, f.offset)) {
					n--
				}
			}
		}
		e.head(majorMap, uint64(n))
		for i := range p.fields {
			f := &p.fields[i]
			part := unsafe.Add(at, f.offset)
			if f.omitEmpty && isEmpty(f.Plan, part) {
				continue
			}
			e.b = append(e.b, f.key...)
			e.value(f.Plan, part)
		}
	}
}

func (e *encoder) bytes(b []byte) {
	e.head(majorBytes, uint64(len(b)))
	if len(b) < flushAt {
		e.b = append(e.b, b...)
		return
	}
	e.flush()
	e.buf.Write(b)
	e.b = e.buf.AvailableBuffer()
}

// list appends n values, one after the other, of what may be a slice or an array.
func (e *encoder) list(elem *Plan, at unsafe.Pointer, n int) {
	e.head(majorArray, uint64(n))
	for i := range n {
		e.value(elem, unsafe.Add(at, i*elem.size))
		if len(e.b) >= flushAt {
			e.flush()
		}
	}
}

// float appends numbers at their own size, and what is not one as a half.
func (e *encoder) float(kind reflect.Kind, f float64) {
	var half byte
	switch {
	case f != f:
		half = 0x7e
	case f > math.MaxFloat64:
		half = 0x7c
	case f < -math.MaxFloat64:
		half = 0xfc
	case kind == reflect.Float32:
		e.b = binary.BigEndian.AppendUint32(append(e.b, simpleFloat32), math.Float32bits(float32(f)))
		return
	default:
		e.b = binary.BigEndian.AppendUint64(append(e.b, simpleFloat64), math.Float64bits(f))
		return
	}
	e.b = append(e.b, simpleFloat16, half, 0)
}

// isEmpty reports whether a field with omitempty is left out.
func isEmpty(p *Plan, at unsafe.Pointer) bool {
	switch p.kind {
	case reflect.Slice:
		return len(*(*[]byte)(at)) == 0
	case reflect.Float32:
		return *(*float32)(at) == 0 // as is -0
	case reflect.Float64:
		return *(*float64)(at) == 0
	}
	return isZero(p, at, false)
}
