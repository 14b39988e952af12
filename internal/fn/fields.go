package fn

import (
	"cmp"
	"encoding"
	"math/big"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"
)

var (
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
	bigIntType   = reflect.TypeFor[big.Int]()

	// marshalers is in the order in which the CBOR codec looks for them.
	marshalers = []struct {
		kind string
		t    reflect.Type
	}{
		{"cbor", reflect.TypeFor[interface{ MarshalCBOR() ([]byte, error) }]()},
		{"binary", reflect.TypeFor[encoding.BinaryMarshaler]()},
		{"text", reflect.TypeFor[encoding.TextMarshaler]()},
		{"json", reflect.TypeFor[interface{ MarshalJSON() ([]byte, error) }]()},
	}
)

// marshaler returns how a t encodes itself: the [Type.Kind] of that, or "" if it does not. Types
// that the codec knows by name count.
func marshaler(t reflect.Type) string {
	switch {
	case t == timeType:
		return "time"
	case t == bigIntType:
		return "bigint"
	case t.Kind() == reflect.Interface || t.Kind() == reflect.Pointer:
		return "" // what it holds decides
	}
	p := reflect.PointerTo(t)
	for _, m := range marshalers {
		if p.Implements(m.t) {
			return m.kind
		}
	}
	return ""
}

// never reports whether the codec refuses every value of type t.
func never(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.Uintptr, reflect.UnsafePointer:
		return marshaler(t) == ""
	}
	return false
}

// emptiness says why no field of struct type t travels although it has some; "": one does, or it
// has none.
func emptiness(t reflect.Type) string {
	if len(fieldsOf(t)) > 0 {
		return ""
	}
	why := ""
	for i := range t.NumField() {
		f := t.Field(i)
		if f.IsExported() {
			return "none of its fields is encoded: they are not exported, left out by a tag, or share a name"
		}
		if f.Name != "_" {
			why = "none of its fields is exported"
		}
	}
	return why
}

// field is a struct field as the codec sees it.
type field struct {
	name   string // on the wire
	goName string
	typ    reflect.Type
	index  []int // as for reflect.Value.FieldByIndex
	tagged bool
	asInt  bool // the name is an integer key
}

// value returns the field of struct v, or the zero Value if an embedded pointer on the way is nil.
func (f *field) value(v reflect.Value) reflect.Value {
	for i, n := range f.index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return reflect.Value{}
			}
			v = v.Elem()
		}
		v = v.Field(n)
	}
	return v
}

// fieldsOf returns the fields of struct type t that the CBOR codec encodes, in order. The rules are
// those of encoding/json: embedded structs are flattened; of fields with one name the least nested
// wins, then the tagged one; if that leaves several, none is encoded.
func fieldsOf(t reflect.Type) []field {
	type embedded struct {
		t     reflect.Type
		index []int
	}
	var all []field
	seen := map[reflect.Type]bool{}
	for level := []embedded{{t: t}}; len(level) > 0; {
		var next []embedded
		count := map[reflect.Type]int{}
		for _, e := range level {
			count[e.t]++
		}
		for _, e := range level {
			if count[e.t] > 1 || seen[e.t] { // twice on one level hide each other
				continue
			}
			seen[e.t] = true
			for i := range e.t.NumField() {
				sf := e.t.Field(i)
				base := sf.Type
				if base.Kind() == reflect.Pointer {
					base = base.Elem()
				}
				flat := sf.Anonymous && base.Kind() == reflect.Struct
				tag := sf.Tag.Get("cbor")
				if tag == "" {
					tag = sf.Tag.Get("json")
				}
				if !sf.IsExported() && !flat || tag == "-" {
					continue
				}
				index := append(e.index[:len(e.index):len(e.index)], i)
				name, options, _ := strings.Cut(tag, ",")
				if flat && name == "" {
					next = append(next, embedded{base, index})
					continue
				}
				all = append(all, field{
					name: cmp.Or(name, sf.Name), goName: sf.Name, typ: sf.Type, index: index, tagged: tag != "",
					asInt: slices.Contains(strings.Split(options, ","), "keyasint"),
				})
			}
		}
		level = next
	}
	return dominant(all)
}

// dominant returns those of all that are not hidden by another, in the order of their index.
func dominant(all []field) []field {
	type key struct {
		name  string
		asInt bool
	}
	byName := map[key][]field{}
	for _, f := range all {
		k := key{f.name, f.asInt}
		byName[k] = append(byName[k], f)
	}
	wins := func(f, other field) bool {
		if len(f.index) != len(other.index) {
			return len(f.index) < len(other.index)
		}
		return f.tagged && !other.tagged
	}
	visible := all[:0:0]
	for _, f := range all {
		if !slices.ContainsFunc(byName[key{f.name, f.asInt}], func(other field) bool {
			return !slices.Equal(f.index, other.index) && !wins(f, other)
		}) {
			visible = append(visible, f)
		}
	}
	sort.Sort(byIndex(visible)) // not slices.SortFunc: a field is large, and its copy of that adds 40 KB to every program
	return visible
}

// byIndex sorts fields by their index.
type byIndex []field

func (f byIndex) Len() int           { return len(f) }
func (f byIndex) Less(i, j int) bool { return slices.Compare(f[i].index, f[j].index) < 0 }
func (f byIndex) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }

// asArray reports whether struct type t is encoded as an array, by the cbor tag of a blank field.
func asArray(t reflect.Type) bool {
	f, ok := t.FieldByName("_")
	return ok && slices.Contains(strings.Split(f.Tag.Get("cbor"), ",")[1:], "toarray")
}

// marshals reports whether t, or what it points to, encodes itself.
func marshals(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return marshaler(t) != ""
}
