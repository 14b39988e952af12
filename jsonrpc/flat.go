package jsonrpc

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
)

// typeInfo is what is known of a type that values are decoded into.
type typeInfo struct {
	t    reflect.Type
	any  bool        // it may hold a number behind an interface
	flat []flatField // of a struct that decodeFlat knows how to fill; nil: it does not
}

// A flatField is a field of a basic kind.
type flatField struct {
	name  string // as it is written
	index int
}

// infos remembers what infoOf has found, as a cache that is never full: a type has one
// place, which it may lose to another.
var infos [256]atomic.Pointer[typeInfo]

func infoOf(t reflect.Type) *typeInfo {
	place := &infos[reflect.ValueOf(t).Pointer()/64%uintptr(len(infos))]
	info := place.Load()
	if info == nil || info.t != t {
		info = &typeInfo{t: t, any: findAny(t, make(map[reflect.Type]bool)), flat: flatFields(t)}
		place.Store(info)
	}
	return info
}

// maxFlat is how many fields a struct may have for decodeFlat, which looks for them one
// after another.
const maxFlat = 16

// flatFields returns the fields of a struct that encoding/json fills in the plainest
// way, or nil if it is none.
func flatFields(t reflect.Type) []flatField {
	if t.Kind() != reflect.Struct || t.NumField() > maxFlat || decodesItself(t) {
		return nil
	}
	fields := []flatField{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case f.Anonymous || strings.Contains(options, "string"):
			return nil
		case !f.IsExported() || tag == "-":
			continue
		case name == "":
			name = f.Name
		}
		switch k := f.Type.Kind(); {
		case k == reflect.String || k == reflect.Bool || k >= reflect.Int && k <= reflect.Float64 && k != reflect.Uintptr:
		default:
			return nil
		}
		if decodesItself(f.Type) || f.Type == reflect.TypeFor[json.Number]() || !plain(name) {
			return nil
		}
		for _, other := range fields {
			if strings.EqualFold(other.name, name) {
				return nil
			}
		}
		fields = append(fields, flatField{name, i})
	}
	return fields
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(unmarshaler) || p.Implements(textUnmarshaler)
}

// decodeFlat fills a struct from an object, as encoding/json does, which costs several
// times as much. It reports whether it could: if not, for anything out of the ordinary,
// encoding/json has to do it all again.
func decodeFlat(text []byte, v reflect.Value, fields []flatField) bool {
	for name, value := range members(text) {
		name = name[1 : len(name)-1]
		i := 0
		for i < len(fields) && fields[i].name != string(name) {
			i++
		}
		if i == len(fields) || !decodeBasic(value, v.Field(fields[i].index)) {
			return false
		}
	}
	return true
}

func decodeBasic(text []byte, v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		if text[0] != '"' || bytes.IndexByte(text, '\\') >= 0 {
			return false
		}
		v.SetString(string(text[1 : len(text)-1]))
		return true
	case reflect.Bool:
		if text[0] != 't' && text[0] != 'f' {
			return false
		}
		v.SetBool(text[0] == 't')
		return true
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(string(text), v.Type().Bits())
		if err != nil || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
			return false
		}
		v.SetFloat(f)
		return true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil || v.OverflowInt(n) {
			return false
		}
		v.SetInt(n)
		return true
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || v.OverflowUint(n) {
		return false
	}
	v.SetUint(n)
	return true
}
