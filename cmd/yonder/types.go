package main

import (
	"context"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/yonder-rpc/yonder/internal/fn"
)

var (
	anyType      = reflect.TypeFor[any]()
	bigIntType   = reflect.TypeFor[big.Int]()
	bytesType    = reflect.TypeFor[[]byte]()
	durationType = reflect.TypeFor[time.Duration]()
	errorType    = reflect.TypeFor[error]()
	readerType   = reflect.TypeFor[io.Reader]()
	timeType     = reflect.TypeFor[time.Time]()

	basicTypes = map[string]reflect.Type{
		"bool": reflect.TypeFor[bool](), "string": reflect.TypeFor[string](), "bytes": bytesType,
		"int": reflect.TypeFor[int](), "int8": reflect.TypeFor[int8](), "int16": reflect.TypeFor[int16](),
		"int32": reflect.TypeFor[int32](), "int64": reflect.TypeFor[int64](),
		"uint": reflect.TypeFor[uint](), "uint8": reflect.TypeFor[uint8](), "uint16": reflect.TypeFor[uint16](),
		"uint32": reflect.TypeFor[uint32](), "uint64": reflect.TypeFor[uint64](),
		"float32": reflect.TypeFor[float32](), "float64": reflect.TypeFor[float64](),
		"time": timeType, "duration": durationType, "bigint": bigIntType,
		"text": reflect.TypeFor[string](),
	}

	// binaryTypes are the types that encode themselves as bytes, and have a text for people.
	binaryTypes = map[string]reflect.Type{
		"netip.Addr": reflect.TypeFor[netip.Addr](), "netip.AddrPort": reflect.TypeFor[netip.AddrPort](),
		"netip.Prefix": reflect.TypeFor[netip.Prefix](),
	}
)

// maxArray is the largest array type that is made because a server says so, in bytes.
const maxArray = 64 << 10

// bindType returns the type of a function that calls, or is called by, one with this
// signature. With it goes a context if there is one in withContext.
func bindType(sig *fn.Sig, withContext bool) reflect.Type {
	var in, out []reflect.Type
	if withContext {
		in = append(in, reflect.TypeFor[context.Context]())
	}
	for _, t := range sig.Args {
		in = append(in, slotType(t))
	}
	for _, t := range sig.Results {
		out = append(out, slotType(t))
	}
	return reflect.FuncOf(in, append(out, errorType), sig.Variadic)
}

// slotType returns the type of an argument or result.
func slotType(t *fn.Type) reflect.Type {
	switch t.Kind {
	case "reader":
		return readerType
	case "stream":
		yield := reflect.FuncOf([]reflect.Type{typeOf(t.Elem), errorType}, []reflect.Type{basicTypes["bool"]}, false)
		return reflect.FuncOf([]reflect.Type{yield}, nil, false)
	case "func":
		return bindType(t.Func, false)
	}
	return typeOf(t)
}

// typeOf returns a type whose values travel as those of t do. What reflect cannot
// build, types that contain themselves above all, is any.
func typeOf(t *fn.Type) reflect.Type {
	if basic, ok := basicTypes[t.Kind]; ok {
		return basic
	}
	switch t.Kind {
	case "binary":
		if known, ok := binaryTypes[t.Name]; ok {
			return known
		}
		return bytesType
	case "slice":
		return reflect.SliceOf(typeOf(t.Elem))
	case "array":
		elem := typeOf(t.Elem)
		if uint64(t.Len) > maxArray || elem.Size()*uintptr(t.Len) > maxArray {
			return reflect.SliceOf(elem)
		}
		return reflect.ArrayOf(t.Len, elem)
	case "map":
		if key := typeOf(t.Key); key.Comparable() {
			return reflect.MapOf(key, typeOf(t.Elem))
		}
	case "pointer":
		if elem := typeOf(t.Elem); elem != anyType {
			return reflect.PointerTo(elem)
		}
	case "struct":
		return structType(t)
	}
	return anyType
}

// structType is typeOf of a struct.
func structType(t *fn.Type) reflect.Type {
	var fields []reflect.StructField
	for i, f := range t.Fields {
		if f.Type.Kind == "never" {
			continue
		}
		if !isTag(f.Name) {
			return anyType
		}
		fields = append(fields, reflect.StructField{
			Name: "F" + strconv.Itoa(i),
			Type: typeOf(f.Type),
			Tag:  reflect.StructTag("json:" + strconv.Quote(f.Name+",")),
		})
	}
	return reflect.StructOf(fields)
}

// isTag reports whether a field's name on the wire can be given by a tag. An integer
// may stand for one that a tag of the CBOR codec made a number.
func isTag(name string) bool {
	if _, err := strconv.ParseInt(name, 10, 64); err == nil || name == "" {
		return false
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r) {
			return false
		}
	}
	return true
}

// fieldName returns the name of a struct's field in JSON.
func fieldName(f reflect.StructField) string {
	if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
		return name
	}
	return f.Name
}

// definitions appends to list the declarations of the structs in a signature that
// have a name.
func definitions(list []string, sig *fn.Sig) []string {
	var visit func(t *fn.Type, outer []string) *fn.Type
	// visit returns t with the names of structs in place of what they are. outer has
	// the names of those around t.
	visit = func(t *fn.Type, outer []string) *fn.Type {
		if t == nil {
			return nil
		}
		c := *t
		switch t.Kind {
		case "ref":
			return &fn.Type{Kind: "struct", Name: outer[len(outer)-t.Up]}
		case "func":
			list = definitions(list, t.Func)
			return &c
		case "struct":
			name := t.Name
			if name == "" {
				name = "struct{...}"
			}
			outer = append(outer[:len(outer):len(outer)], name)
			at := len(list)
			c.Name, c.Fields = "", nil
			for _, f := range t.Fields {
				c.Fields = append(c.Fields, fn.Field{Name: f.Name, Type: visit(f.Type, outer)})
			}
			if t.Name == "" {
				return &c
			}
			text := (&fn.Sig{Args: []*fn.Type{&c}}).Go()
			text = strings.TrimSuffix(strings.TrimPrefix(text, "func("), ") error")
			text = "type " + t.Name + " " + text
			if !slices.Contains(list, text) {
				list = slices.Insert(list, at, text) // before those of its fields
			}
			return &fn.Type{Kind: "struct", Name: t.Name}
		}
		c.Key, c.Elem = visit(t.Key, outer), visit(t.Elem, outer)
		return &c
	}
	for _, t := range slices.Concat(sig.Args, sig.Results) {
		visit(t, nil)
	}
	return list
}

// wants describes for people what a value of type t is given as.
func wants(t reflect.Type) string {
	switch t {
	case timeType:
		return "a time, such as 2006-01-02T15:04:05Z"
	case durationType:
		return `a duration, such as "1.5s", or a number of nanoseconds`
	case bigIntType:
		return "an integer"
	case bytesType:
		return "text, or base64 in a JSON string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return wants(t.Elem()) + ", or null"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "an integer of type " + t.String()
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a JSON array"
	case reflect.Array:
		return fmt.Sprintf("a JSON array of %d", t.Len())
	case reflect.Map, reflect.Struct:
		if _, ok := binaryTypes[t.String()]; ok {
			return "the text of a " + t.String()
		}
		return "a JSON object"
	}
	return "JSON"
}
