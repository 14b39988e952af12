package plain

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
)

// Encode appends v to buf and reports whether it did: if the type of v is not plain, buf is as it
// was.
func Encode(buf *bytes.Buffer, v any) bool {
	if v == nil {
		return false
	}
	value := reflect.ValueOf(v)
	p := planOf(value.Type())
	if p == nil {
		return false
	}
	e := encoder{buf, buf.AvailableBuffer()}
	e.value(p, value)
	buf.Write(e.b)
	return true
}

// flushAt is how many bytes an encoder collects before it gives them to the buffer, so that a large
// value is not copied whole, nor needs twice its memory.
const flushAt = 4 << 10

type encoder struct {
	buf *bytes.Buffer
	b   []byte // follows what is in buf, mostly in the memory that it has left
}

func (e *encoder) flush() {
	e.buf.Write(e.b)
	e.b = e.buf.AvailableBuffer()
}

func (e *encoder) value(p *plan, v reflect.Value) {
	switch p.kind {
	case reflect.Bool:
		b := byte(simpleFalse)
		if v.Bool() {
			b = simpleTrue
		}
		e.b = append(e.b, b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n := v.Int(); n < 0 {
			e.b = appendHead(e.b, majorNegative, uint64(^n))
		} else {
			e.b = appendHead(e.b, majorUint, uint64(n))
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.b = appendHead(e.b, majorUint, v.Uint())
	case reflect.Float32, reflect.Float64:
		e.float(p.kind, v.Float())
	case reflect.String:
		s := v.String()
		e.b = appendHead(e.b, majorText, uint64(len(s)))
		if len(s) < flushAt {
			e.b = append(e.b, s...)
		} else {
			e.flush()
			e.buf.WriteString(s)
			e.b = e.buf.AvailableBuffer()
		}
	case reflect.Pointer:
		if v.IsNil() {
			e.b = append(e.b, simpleNull)
		} else {
			e.value(p.elem, v.Elem())
		}
	case reflect.Slice:
		switch {
		case v.IsNil():
			e.b = append(e.b, simpleNull)
		case p.bytes:
			e.bytes(v.Bytes())
		default:
			e.list(p, v, v.Len())
		}
	case reflect.Array:
		if p.bytes {
			e.b = appendHead(e.b, majorBytes, uint64(p.len))
			for i := range p.len { // its memory may not be addressable
				e.b = append(e.b, byte(v.Index(i).Uint()))
			}
		} else {
			e.list(p, v, p.len)
		}
	case reflect.Struct:
		n := len(p.fields)
		if p.sparse {
			for i := range p.fields {
				if f := &p.fields[i]; f.omitEmpty && isEmpty(f.plan, v.Field(f.index)) {
					n--
				}
			}
		}
		e.b = appendHead(e.b, majorMap, uint64(n))
		for i := range p.fields {
			f := &p.fields[i]
			fv := v.Field(f.index)
			if f.omitEmpty && isEmpty(f.plan, fv) {
				continue
			}
			e.b = append(e.b, f.key...)
			e.value(f.plan, fv)
		}
	}
}

func (e *encoder) bytes(b []byte) {
	e.b = appendHead(e.b, majorBytes, uint64(len(b)))
	if len(b) < flushAt {
		e.b = append(e.b, b...)
		return
	}
	e.flush()
	e.buf.Write(b)
	e.b = e.buf.AvailableBuffer()
}

func (e *encoder) list(p *plan, v reflect.Value, n int) {
	e.b = appendHead(e.b, majorArray, uint64(n))
	for i := range n {
		e.value(p.elem, v.Index(i))
		if len(e.b) >= flushAt {
			e.flush()
		}
	}
}

// float appends numbers at their own size, and what is not one as a half.
func (e *encoder) float(kind reflect.Kind, f float64) {
	switch {
	case f != f:
		e.b = append(e.b, simpleFloat16, 0x7e, 0)
	case math.IsInf(f, 1):
		e.b = append(e.b, simpleFloat16, 0x7c, 0)
	case math.IsInf(f, -1):
		e.b = append(e.b, simpleFloat16, 0xfc, 0)
	case kind == reflect.Float32:
		e.b = binary.BigEndian.AppendUint32(append(e.b, simpleFloat32), math.Float32bits(float32(f)))
	default:
		e.b = binary.BigEndian.AppendUint64(append(e.b, simpleFloat64), math.Float64bits(f))
	}
}

// isEmpty reports whether a field with omitempty is left out.
func isEmpty(p *plan, v reflect.Value) bool {
	switch p.kind {
	case reflect.String, reflect.Slice:
		return v.Len() == 0
	case reflect.Float32, reflect.Float64:
		return v.Float() == 0 // -0, too
	}
	return v.IsZero()
}
