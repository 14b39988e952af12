package jsonrpc

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// typeInfo is what is known of a type that values are decoded into.
type typeInfo struct {
	t    reflect.Type
	any  bool  // it may hold a number behind an interface
	plan *plan // nil: it is left to encoding/json
}

// infos remembers what infoOf has found, as a cache that is never full: a type has one
// place, which it may lose to another.
var infos [256]atomic.Pointer[typeInfo]

func infoOf(t reflect.Type) *typeInfo {
	place := &infos[reflect.ValueOf(t).Pointer()/64%uintptr(len(infos))]
	info := place.Load()
	if info == nil || info.t != t {
		info = &typeInfo{t: t, any: findAny(t, make(map[reflect.Type]bool))}
		if plannable(t, make(map[reflect.Type]bool)) {
			info.plan = planOf(t, make(map[reflect.Type]*plan))
		}
		place.Store(info)
	}
	return info
}

// A plan is how values of a type are decoded that are made of basic kinds, in one pass over a
// text that is known to be JSON. encoding/json costs several times as much.
type plan struct {
	kind   reflect.Kind // Invalid: a time.Time
	bytes  bool         // a slice of bytes
	elem   *plan        // of a slice or a pointer
	fields []planField  // of a struct
}

type planField struct {
	name  string // as it is written
	index int
	plan  *plan
}

// maxFields is how many fields a struct may have that a plan looks for one after another.
const maxFields = 16

var timeType = reflect.TypeFor[time.Time]()

// plannable reports whether encoding/json decodes a type in the plainest way. seen has those
// that are being looked at.
func plannable(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] || t == timeType {
		return true
	}
	seen[t] = true
	if decodesItself(t) || t == reflect.TypeFor[json.Number]() {
		return false
	}
	switch k := t.Kind(); k {
	case reflect.Slice:
		return t.Elem().Kind() != reflect.Uint8 && plannable(t.Elem(), seen) || t == reflect.TypeFor[[]byte]()
	case reflect.Pointer:
		return plannable(t.Elem(), seen)
	case reflect.Struct:
	default:
		return k == reflect.String || k == reflect.Bool || k >= reflect.Int && k <= reflect.Float64 && k != reflect.Uintptr
	}
	if t.NumField() > maxFields {
		return false
	}
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, options := nameOf(f)
		switch {
		case f.Anonymous || strings.Contains(options, "string"):
			return false
		case name == "":
			continue
		case !plain(name) || !plannable(f.Type, seen):
			return false
		}
		for _, other := range names {
			if strings.EqualFold(other, name) {
				return false
			}
		}
		names = append(names, name)
	}
	return true
}

// nameOf returns the name of a field as it is written, and the options beside it; "": it is not.
func nameOf(f reflect.StructField) (name, options string) {
	tag := f.Tag.Get("json")
	if !f.IsExported() || tag == "-" {
		return "", ""
	}
	if name, options, _ = strings.Cut(tag, ","); name == "" {
		name = f.Name
	}
	return name, options
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(unmarshaler) || p.Implements(textUnmarshaler)
}

// planOf returns the plan of a type that is plannable. made has those that there are.
func planOf(t reflect.Type, made map[reflect.Type]*plan) *plan {
	if p := made[t]; p != nil {
		return p
	}
	p := &plan{kind: t.Kind()}
	made[t] = p
	switch {
	case t == timeType:
		p.kind = reflect.Invalid
	case t == reflect.TypeFor[[]byte]():
		p.bytes = true
	case p.kind == reflect.Slice || p.kind == reflect.Pointer:
		p.elem = planOf(t.Elem(), made)
	case p.kind == reflect.Struct:
		for i := range t.NumField() {
			if name, _ := nameOf(t.Field(i)); name != "" {
				p.fields = append(p.fields, planField{name, i, planOf(t.Field(i).Type, made)})
			}
		}
	}
	return p
}

// decode reads a text into a zero value. It reports whether it could: if not, for anything out
// of the ordinary, the value is zero again, and encoding/json has to do it.
func (p *plan) decode(text []byte, v reflect.Value) bool {
	d := planDecoder{text: text}
	if d.value(p, v) {
		return true
	}
	v.SetZero()
	return false
}

// A planDecoder reads a text from text[i:] on.
type planDecoder struct {
	text []byte
	i    int
}

// token returns the string, number or word that comes.
func (d *planDecoder) token() []byte {
	from := d.i
	d.i = skip(d.text, from)
	return d.text[from:d.i]
}

// space skips white space.
func (d *planDecoder) space() { d.i = space(d.text, d.i) }

// enter goes into the array or the object that comes, and reports whether it has something.
func (d *planDecoder) enter() (more bool) {
	d.i++
	d.space()
	if c := d.text[d.i]; c == ']' || c == '}' {
		d.i++
		return false
	}
	return true
}

// next goes behind an element or a member, and reports whether there is another.
func (d *planDecoder) next() (more bool) {
	d.space()
	more = d.text[d.i] == ','
	if d.i++; more {
		d.space()
	}
	return more
}

func (d *planDecoder) value(p *plan, v reflect.Value) bool {
	c := d.text[d.i]
	if c == 'n' { // null changes nothing, and what a pointer or a slice may be is nil already
		d.i += len("null")
		return true
	}
	switch p.kind {
	case reflect.Pointer:
		to := reflect.New(v.Type().Elem())
		if !d.value(p.elem, to.Elem()) {
			return false
		}
		v.Set(to)
		return true
	case reflect.Struct:
		return c == '{' && d.object(p, v)
	case reflect.Slice:
		if !p.bytes {
			return c == '[' && d.array(p, v)
		}
	}
	if c == '{' || c == '[' {
		return false
	}
	return decodeBasic(p, d.token(), v)
}

func (d *planDecoder) object(p *plan, v reflect.Value) bool {
	var seen uint32 // a bit for each field: what is there twice is merged
	for more := d.enter(); more; more = d.next() {
		name := d.token()
		name = name[1 : len(name)-1]
		i := 0
		for i < len(p.fields) && p.fields[i].name != string(name) {
			i++
		}
		if i == len(p.fields) || seen&(1<<i) != 0 {
			return false
		}
		seen |= 1 << i
		d.space()
		d.i++ // the colon
		d.space()
		if f := &p.fields[i]; !d.value(f.plan, v.Field(f.index)) {
			return false
		}
	}
	return true
}

func (d *planDecoder) array(p *plan, v reflect.Value) bool {
	more := d.enter()
	if !more {
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		return true
	}
	for n := 0; more; n++ {
		if n == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(n + 1)
		if !d.value(p.elem, v.Index(n)) {
			return false
		}
		more = d.next()
	}
	return true
}

// decodeBasic reads a string, a number or a word but null.
func decodeBasic(p *plan, text []byte, v reflect.Value) bool {
	quoted := text[0] == '"'
	switch p.kind {
	case reflect.Invalid:
		return v.Addr().Interface().(*time.Time).UnmarshalJSON(text) == nil
	case reflect.Slice:
		if !quoted {
			return false
		}
		s := unquote(text[1 : len(text)-1])
		b, err := base64.StdEncoding.DecodeString(s)
		if err == nil {
			v.SetBytes(b)
		}
		return err == nil
	case reflect.String:
		if quoted {
			v.SetString(unquote(text[1 : len(text)-1]))
		}
		return quoted
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
