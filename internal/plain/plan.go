// Package plain encodes and decodes the CBOR of values made only of booleans, numbers, strings,
// byte strings, slices, arrays, pointers and structs of those: what most calls carry. It is the fast
// path under the CBOR codec, whose library decides everything else.
//
// The library's behaviour, as the codec configures it, is the specification: what [Encode] writes
// and what [Decode] accepts is what the library writes and accepts, byte for byte and value for
// value. Whatever is unusual in a type, a value or the data is left to the library, so that every
// error and every leniency is its own.
package plain

import (
	"encoding"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// A Plan is how values of one type are encoded and decoded.
type Plan struct {
	kind    reflect.Kind
	bytes   bool // a slice or array of bytes: a byte string
	size    int  // of a value, in bytes
	len     int  // of an array
	typ     reflect.Type
	pointer reflect.Type  // *typ
	elem    *Plan         // of a pointer, slice or array
	empty   reflect.Value // a slice without elements that is not nil
	fields  []field       // of a struct
	sparse  bool          // some of the fields are left out when empty
	places  sync.Pool     // of unsafe.Pointer: where values that have no address are put
}

// A field is a field of a struct that travels.
type field struct {
	*Plan
	offset    uintptr
	key       []byte // its name, encoded
	name      int    // how long it is, at the end of key
	omitEmpty bool
}

const (
	maxFields = 64   // of a struct: the bits that note which have been seen
	maxTypes  = 1000 // that a type consists of, so that its values are never nested too deeply
)

// plans caches *Plan by reflect.Type, as encoding/json does; nil for a type that is not plain.
var plans sync.Map

// Of returns the plan of t, or nil if t is not plain.
func Of(t reflect.Type) *Plan {
	if p, ok := plans.Load(t); ok {
		return p.(*Plan)
	}
	p := planner{}.plan(t)
	plans.Store(t, p)
	return p
}

// methods are what a type encodes or decodes itself by.
var methods = [...]reflect.Type{
	reflect.TypeFor[interface{ MarshalCBOR() ([]byte, error) }](),
	reflect.TypeFor[interface{ UnmarshalCBOR([]byte) error }](),
	reflect.TypeFor[encoding.BinaryMarshaler](),
	reflect.TypeFor[encoding.BinaryUnmarshaler](),
	reflect.TypeFor[encoding.TextMarshaler](),
	reflect.TypeFor[encoding.TextUnmarshaler](),
	reflect.TypeFor[interface{ MarshalJSON() ([]byte, error) }](),
	reflect.TypeFor[interface{ UnmarshalJSON([]byte) error }](),
}

// planner has the plans of the types that a type consists of, nil for those that are being made.
type planner map[reflect.Type]*Plan

// plan returns the plan of t, or nil if it is not plain. Recursive types are not: how deeply their
// values are nested, or whether they end, is for others to check.
func (made planner) plan(t reflect.Type) *Plan {
	if p, ok := made[t]; ok || len(made) == maxTypes {
		return p
	}
	made[t] = nil
	p := made.newPlan(t)
	made[t] = p
	return p
}

func (made planner) newPlan(t reflect.Type) *Plan {
	if t.NumMethod() > 0 || t.Kind() != reflect.Pointer && reflect.PointerTo(t).NumMethod() > 0 {
		for _, m := range methods {
			if t.Implements(m) || reflect.PointerTo(t).Implements(m) {
				return nil
			}
		}
	}
	p := &Plan{kind: t.Kind(), size: int(t.Size()), typ: t, pointer: reflect.PointerTo(t)}
	switch p.kind {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return p
	case reflect.Array:
		p.len = t.Len()
	case reflect.Slice:
		p.empty = reflect.MakeSlice(t, 0, 0)
	case reflect.Pointer:
	case reflect.Struct:
		return p.addFields(t, made)
	default:
		return nil
	}
	if p.elem = made.plan(t.Elem()); p.elem == nil {
		return nil
	}
	p.bytes = p.kind != reflect.Pointer && p.elem.kind == reflect.Uint8
	return p
}

// addFields plans the fields of struct type t. It returns nil if one is not plain, or is tagged or
// named in a way that the library has more rules for than a name and omitempty.
func (p *Plan) addFields(t reflect.Type, made planner) *Plan {
	names := make([]string, 0, t.NumField())
	p.fields = make([]field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("cbor")
		if f.Anonymous || f.Name == "_" && tag != "" { // flattened, or how the struct is encoded
			return nil
		}
		if tag == "" {
			tag = f.Tag.Get("json")
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if name == "" {
			name = f.Name
		}
		if slices.Contains(names, name) || len(names) == maxFields {
			return nil
		}
		names = append(names, name)
		fp := made.plan(f.Type)
		if fp == nil {
			return nil
		}
		omit := options == "omitempty"
		if options != "" && !omit || omit && (fp.kind == reflect.Struct || fp.kind == reflect.Array) {
			return nil
		}
		p.sparse = p.sparse || omit
		var key encoder
		key.head(majorText, uint64(len(name)))
		p.fields = append(p.fields, field{fp, f.Offset, append(key.b, name...), len(name), omit})
	}
	return p
}

// elements returns where the elements of the slice are that is at a place. All slices have the
// layout of one of bytes.
func (p *Plan) elements(at unsafe.Pointer) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(*(*[]byte)(at)))
}

// bits returns a boolean or a number as its bits.
func (p *Plan) bits(at unsafe.Pointer) uint64 {
	switch p.size {
	case 1:
		return uint64(*(*uint8)(at))
	case 2:
		return uint64(*(*uint16)(at))
	case 4:
		return uint64(*(*uint32)(at))
	default:
		return *(*uint64)(at)
	}
}

// setBits is the reverse of bits; what does not fit is cut off.
func (p *Plan) setBits(at unsafe.Pointer, n uint64) {
	switch p.size {
	case 1:
		*(*uint8)(at) = uint8(n)
	case 2:
		*(*uint16)(at) = uint16(n)
	case 4:
		*(*uint32)(at) = uint32(n)
	default:
		*(*uint64)(at) = n
	}
}

// Major types and simple values. RFC 8949, sections 3.1 and 3.3.
const (
	majorUint = iota << 5
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple

	simpleFalse   = majorSimple | 20
	simpleTrue    = majorSimple | 21
	simpleNull    = majorSimple | 22
	simpleByte    = majorSimple | 24
	simpleFloat16 = majorSimple | 25
	simpleFloat32 = majorSimple | 26
	simpleFloat64 = majorSimple | 27

	tagBig         = 2 // section 3.4.3
	tagNegativeBig = 3
)

// cutHead reads the head of a data item of definite length.
func cutHead(data []byte) (major byte, n uint64, rest []byte, ok bool) {
	if len(data) == 0 {
		return 0, 0, nil, false
	}
	major, n = data[0]&^31, uint64(data[0]&31)
	rest = data[1:]
	switch {
	case n < 24:
	case n == 24 && len(rest) >= 1:
		n, rest = uint64(rest[0]), rest[1:]
	case n == 25 && len(rest) >= 2:
		n, rest = uint64(binary.BigEndian.Uint16(rest)), rest[2:]
	case n == 26 && len(rest) >= 4:
		n, rest = uint64(binary.BigEndian.Uint32(rest)), rest[4:]
	case n == 27 && len(rest) >= 8:
		n, rest = binary.BigEndian.Uint64(rest), rest[8:]
	default:
		return 0, 0, nil, false
	}
	return major, n, rest, true
}
