package jsonrpc

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// typeInfo is what is known of a type that values are decoded into.
type typeInfo struct {
	t    reflect.Type
	plan *plan // nil: it is left to encoding/json
}

// infos remembers what infoOf has found, as a cache that is never full: a type has one
// place, which it may lose to another.
var infos [256]atomic.Pointer[typeInfo]

func infoOf(t reflect.Type) *typeInfo {
	place := &infos[reflect.ValueOf(t).Pointer()/64%uintptr(len(infos))]
	info := place.Load()
	if info == nil || info.t != t {
		info = &typeInfo{t: t}
		if plannable(t, make(map[reflect.Type]bool)) {
			info.plan = planOf(t, make(map[reflect.Type]*plan))
			info.plan.writes = writable(t, make(map[reflect.Type]bool))
		}
		place.Store(info)
	}
	return info
}

// A plan is how values of a type are decoded that are made of basic kinds, in one pass over a
// text that is known to be JSON, and how they are written. encoding/json costs several times as
// much.
type plan struct {
	writes bool         // they are written by the plan, too
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

// writable reports whether encoding/json encodes a type, which is plannable, in the plainest
// way.
func writable(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] || t == timeType {
		return true
	}
	seen[t] = true
	if p := reflect.PointerTo(t); p.Implements(marshaler) || p.Implements(textMarshaler) {
		return false
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		return writable(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if name, options := nameOf(f); name != "" && (options != "" || !writable(f.Type, seen)) {
				return false
			}
		}
	}
	return true
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
	kept string // text, of which strings are parts; "": there are none yet
}

// maxKept is how long a text may be that its strings keep alive.
const maxKept = 512

// str returns a string that comes as it is written in text[from:to].
func (d *planDecoder) str(from, to int) string {
	if len(d.text) > maxKept {
		return string(d.text[from:to])
	}
	if d.kept == "" {
		d.kept = string(d.text)
	}
	return d.kept[from:to]
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
	from := d.i
	text := d.token()
	if p.kind == reflect.String && c == '"' && bytes.IndexByte(text, '\\') < 0 {
		v.SetString(d.str(from+1, d.i-1))
		return true
	}
	return decodeBasic(p, text, v)
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
			v.Grow(max(1, minSlice-n))
		}
		v.SetLen(n + 1)
		if !d.value(p.elem, v.Index(n)) {
			return false
		}
		more = d.next()
	}
	return true
}

// minSlice is how many elements a slice has room for at first.
const minSlice = 4

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

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// maxWritten is how deep a plan goes: what is deeper may contain itself.
const maxWritten = 100

// write appends a value, as encoding/json does. It reports whether it could: if not, what it
// has appended is to be dropped.
func (p *plan) write(b *outBuffer, v reflect.Value, depth int) bool {
	switch p.kind {
	case reflect.Invalid:
		text, err := v.Interface().(time.Time).MarshalJSON()
		b.Write(text)
		return err == nil
	case reflect.Pointer:
		if v.IsNil() {
			b.WriteString("null")
			return true
		}
		return depth < maxWritten && p.elem.write(b, v.Elem(), depth+1)
	case reflect.Struct:
		b.WriteByte('{')
		for i := range p.fields {
			f := &p.fields[i]
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteByte('"')
			b.WriteString(f.name)
			b.WriteString(`":`)
			if !f.plan.write(b, v.Field(f.index), depth) {
				return false
			}
		}
		b.WriteByte('}')
		return true
	case reflect.Slice:
		return p.writeSlice(b, v, depth)
	case reflect.String:
		if s := v.String(); plain(s) {
			b.WriteByte('"')
			b.WriteString(s)
			b.WriteByte('"')
			return true
		}
		return b.value(v.String()) == nil
	case reflect.Bool:
		b.Write(strconv.AppendBool(b.AvailableBuffer(), v.Bool()))
		return true
	case reflect.Float32, reflect.Float64:
		f := v.Float()
		if size := math.Abs(f); f != 0 && (size < 1e-6 || size >= 1e21) || f != f {
			return false
		}
		b.Write(strconv.AppendFloat(b.AvailableBuffer(), f, 'f', -1, v.Type().Bits()))
		return true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		b.Write(strconv.AppendInt(b.AvailableBuffer(), v.Int(), 10))
		return true
	}
	b.Write(strconv.AppendUint(b.AvailableBuffer(), v.Uint(), 10))
	return true
}

func (p *plan) writeSlice(b *outBuffer, v reflect.Value, depth int) bool {
	switch {
	case v.IsNil():
		b.WriteString("null")
		return true
	case p.bytes:
		b.WriteByte('"')
		b.Write(base64.StdEncoding.AppendEncode(b.AvailableBuffer(), v.Bytes()))
		b.WriteByte('"')
		return true
	case depth == maxWritten:
		return false
	}
	b.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			b.WriteByte(',')
		}
		if !p.elem.write(b, v.Index(i), depth+1) {
			return false
		}
	}
	b.WriteByte(']')
	return true
}
