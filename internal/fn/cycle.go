package fn

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"unsafe"
)

const (
	maxLevels  = 10000 // structs, slices, maps and interfaces within one value
	maxUnnoted = 1000  // pointers followed before they are recorded
)

// plan is what [Acyclic] visits of a type.
type plan struct {
	t        reflect.Type
	key      *plan // of a map
	elem     *plan // of a map, slice, array or pointer
	fields   []planField
	open     bool // being planned
	dynamic  bool // recursive, or reaches an interface
	children []*plan
}

type planField struct {
	field
	plan *plan
}

// plans caches *plan by reflect.Type, as encoding/json does: what an interface holds is only
// known in the call.
var plans sync.Map

// planOf returns the plan of t, or nil if no value of t can contain itself.
func planOf(t reflect.Type) *plan {
	if isScalar(t.Kind()) {
		return nil
	}
	p, ok := plans.Load(t)
	if !ok {
		var b planner
		b.plan(t)
		b.finish()
		p, _ = plans.Load(t)
	}
	if p := p.(*plan); p.dynamic {
		return p
	}
	return nil
}

func mayCycle(t reflect.Type) bool { return planOf(t) != nil }

func isScalar(k reflect.Kind) bool { return k <= reflect.Complex128 || k == reflect.String }

type planner struct{ made []*plan }

// plan returns the plan of t, which may be unfinished, or nil for a type that holds nothing.
func (b *planner) plan(t reflect.Type) *plan {
	if isScalar(t.Kind()) {
		return nil
	}
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	if i := slices.IndexFunc(b.made, func(p *plan) bool { return p.t == t }); i >= 0 {
		p := b.made[i]
		p.dynamic = p.dynamic || p.open // it contains itself
		return p
	}
	p := &plan{t: t, open: true}
	b.made = append(b.made, p)
	if marshaler(t) == "" {
		switch t.Kind() {
		case reflect.Interface:
			p.dynamic = true
		case reflect.Pointer, reflect.Slice, reflect.Array:
			p.elem = b.plan(t.Elem())
		case reflect.Map:
			p.key, p.elem = b.plan(t.Key()), b.plan(t.Elem())
		case reflect.Struct:
			for _, f := range fieldsOf(t) {
				if fp := b.plan(f.typ); fp != nil {
					p.fields = append(p.fields, planField{f, fp})
					p.children = append(p.children, fp)
				}
			}
		}
	}
	p.children = append(p.children, p.key, p.elem)
	p.open = false
	return p
}

// finish spreads dynamic to what contains a dynamic type, drops the rest, and publishes the plans.
func (b *planner) finish() {
	isDynamic := func(p *plan) bool { return p != nil && p.dynamic }
	for changed := true; changed; {
		changed = false
		for _, p := range b.made {
			if !p.dynamic && slices.ContainsFunc(p.children, isDynamic) {
				p.dynamic, changed = true, true
			}
		}
	}
	for _, p := range b.made {
		fields := p.fields
		p.fields = nil
		for i := range fields { // not slices.DeleteFunc, which for a struct this large adds 2 KB to every program
			if fields[i].plan.dynamic {
				p.fields = append(p.fields, fields[i])
			}
		}
		if !isDynamic(p.key) {
			p.key = nil
		}
		if !isDynamic(p.elem) {
			p.elem = nil
		}
		p.children = nil
	}
	for _, p := range b.made {
		plans.LoadOrStore(p.t, p)
	}
}

// Acyclic checks that v does not contain itself, which would keep a codec busy until the stack
// or the memory ends. The error names the field: field Node.Next: cyclic pointer. Values nested
// deeper than 10000 levels are refused too, and those behind an interface with methods, which a
// codec would write but nothing could read. It is needed for values of a [Slot] with Walk set.
func Acyclic(v reflect.Value) error {
	if !v.IsValid() {
		return nil
	}
	p := planOf(v.Type())
	if p == nil {
		return nil
	}
	// Most values are small trees: only those that are not pay for recording what was visited.
	w := walker{left: maxUnnoted}
	_, err := w.walk(v, p, 0)
	if err == errUnnoted {
		w.seen = map[visit]int{}
		_, err = w.walk(v, p, 0)
	}
	if err != nil {
		return w.error(v.Type(), err)
	}
	return nil
}

func cyclic(k reflect.Kind) error {
	if k == reflect.Pointer {
		return errors.New("cyclic pointer") // not ptr
	}
	return fmt.Errorf("cyclic %s", k)
}

var errUnnoted = errors.New("too many pointers to go without recording them")

// visit is a pointer, slice or map that was followed.
type visit struct {
	p   unsafe.Pointer
	len int
	t   reflect.Type
}

const inside = -1 // the height of what is being walked

type walker struct {
	path
	left int
	seen map[visit]int // height, so that what is shared is walked once
}

// walk returns how many levels are within v, which is so deep within others.
func (w *walker) walk(v reflect.Value, p *plan, depth int) (height int, err error) {
	if depth > maxLevels {
		return 0, fmt.Errorf("nested deeper than %d levels", maxLevels)
	}
	var key visit
	switch kind := v.Kind(); kind {
	case reflect.Interface:
		if v = v.Elem(); !v.IsValid() {
			return 0, nil
		}
		if p.t.NumMethod() > 0 {
			return 0, unsuitable(p.t)
		}
		if p = planOf(v.Type()); p == nil {
			return 0, nil
		}
		height, err = w.walk(v, p, depth+1)
		return height + 1, err
	case reflect.Pointer, reflect.Map, reflect.Slice:
		if v.IsNil() {
			return 0, nil
		}
		key = visit{p: v.UnsafePointer(), t: p.t}
		if kind == reflect.Slice {
			if key.len = v.Len(); key.len == 0 {
				return 0, nil
			}
		}
		if w.seen == nil {
			if w.left--; w.left < 0 {
				return 0, errUnnoted
			}
			break
		}
		if h, ok := w.seen[key]; ok {
			switch {
			case h == inside:
				return 0, cyclic(kind)
			case depth+h > maxLevels:
				return 0, fmt.Errorf("nested deeper than %d levels", maxLevels)
			}
			return h, nil
		}
		w.seen[key] = inside
	}
	height, err = w.parts(v, p, depth)
	if w.seen != nil && key.t != nil {
		w.seen[key] = height
	}
	return height, err
}

// parts walks what v consists of.
func (w *walker) parts(v reflect.Value, p *plan, depth int) (height int, err error) {
	part := func(v reflect.Value, p *plan) bool {
		var h int
		h, err = w.walk(v, p, depth+1)
		height = max(height, h+1)
		return err == nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		return w.walk(v.Elem(), p.elem, depth) // no level: a codec does not recurse for it
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if !part(v.Index(i), p.elem) {
				return 0, w.at(err, indexOf(i))
			}
		}
	case reflect.Map:
		var elem reflect.Value // one for all
		if p.elem != nil {
			elem = reflect.New(p.t.Elem()).Elem()
		}
		for entries := v.MapRange(); entries.Next(); {
			if p.elem != nil {
				elem.SetIterValue(entries)
			}
			if p.key != nil && !part(entries.Key(), p.key) || p.elem != nil && !part(elem, p.elem) {
				return 0, w.at(err, keyOf(entries.Key()))
			}
		}
	case reflect.Struct:
		for i := range p.fields {
			f := &p.fields[i]
			if fv := f.value(v); fv.IsValid() && !part(fv, f.plan) {
				return 0, w.at(err, fieldOf(f.goName))
			}
		}
	}
	return height, nil
}
