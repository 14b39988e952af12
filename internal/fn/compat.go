package fn

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds on the work of [Compatible], for signatures made to be expensive: two that refer to
// themselves have as many pairs of structs as the product of their sizes. What is not compared
// by then is taken to fit.
const (
	maxSteps = 1 << 16
	maxPath  = 1000 // structs within structs
)

// Compatible reports whether a call can be made: whether the callee can read the arguments that
// the caller writes, and the caller the results. A nil signature, or one that was too large to
// send, fits every other. The error says where they differ first, in a line.
//
// If spread is set, the caller passes one by one what the variadic callee takes as a slice.
//
// A type fits another if a value of the one can be decoded as the other: any integer as an
// integer, a duration, a bigint or a float (what overflows is found when it is decoded), a float
// as a float, text as string and back, a struct as a struct that shares a field or as a map.
// Fields that only one side has are ignored, and pointers are transparent. A callee may
// have further arguments behind those of the caller if they are pointers or variadic.
func Compatible(caller, callee *Sig) (spread bool, err error) {
	if caller == nil || caller.unknown || callee == nil || callee.unknown {
		return false, nil
	}
	c := comparer{left: maxSteps, seen: map[[2]*Type]bool{}}
	spread, text := c.sigs(caller, callee, false)
	if text != "" {
		return false, errors.New(text)
	}
	return spread, nil
}

type comparer struct {
	left int               // steps
	seen map[[2]*Type]bool // pairs of structs that fit, or are being compared
	deep int               // structs within structs
	outs bool              // the caller of the signatures being compared is the callee of the call
}

// sigs compares the signatures of who calls and of who is called, and returns what differs.
func (c *comparer) sigs(caller, callee *Sig, callback bool) (spread bool, text string) {
	n := len(callee.Args)
	if callee.Variadic {
		n--
	}
	for i, a := range caller.Args {
		var m *mismatch
		switch {
		case callee.Variadic && i == n && len(caller.Args) == n+1 || i < n: // packed, or not variadic
			if m = c.slot(a, callee.Args[i]); m != nil && i == n && !caller.Variadic && !callback &&
				c.slot(a, callee.Args[n].variadicElem()) == nil {
				m, spread = nil, true
			}
		case callee.Variadic && !caller.Variadic && !callback:
			spread = true
			m = c.slot(a, callee.Args[n].variadicElem())
		default:
			return false, c.counts("arguments", len(caller.Args), len(callee.Args))
		}
		if m != nil {
			return false, fmt.Sprintf("argument %d%s", i+1, c.text(m, false))
		}
	}
	for _, t := range callee.Args[min(len(caller.Args), n):n] {
		if t.Kind != "pointer" {
			return false, c.counts("arguments", len(caller.Args), len(callee.Args))
		}
	}
	if len(caller.Results) != len(callee.Results) {
		return false, c.counts("results", len(caller.Results), len(callee.Results))
	}
	for i, t := range callee.Results {
		if m := c.slot(t, caller.Results[i]); m != nil {
			return false, fmt.Sprintf("result %d%s", i+1, c.text(m, true))
		}
	}
	return spread, ""
}

// counts says that two signatures have different numbers of what.
func (c *comparer) counts(what string, caller, callee int) string {
	if c.outs {
		caller, callee = callee, caller
	}
	return fmt.Sprintf("%s: caller has %d, callee has %d", what, caller, callee)
}

// mismatch is where a type that is written does not fit the one it is read as.
type mismatch struct {
	from, to scoped
	path     []string // the fields that lead there, innermost first
	root     string   // the struct that path begins in
	why      string
	callback string // what differs between two functions, instead
}

// text returns m to follow the argument or result it was found in. result says that what is
// written is the callee's.
func (c *comparer) text(m *mismatch, result bool) string {
	if m.callback != "" {
		return ", callback " + m.callback
	}
	caller, callee := m.from, m.to
	if result != c.outs {
		caller, callee = callee, caller
	}
	text := fmt.Sprintf(": caller has %s, callee has %s", caller.Go(), callee.Go())
	if m.why != "" {
		text += " (" + m.why + ")"
	}
	if len(m.path) == 0 {
		return text
	}
	for len(m.path) > 0 && m.path[len(m.path)-1] == "[]" { // the path begins in a struct
		m.path = m.path[:len(m.path)-1]
	}
	return ", field " + joinPath(m.root, m.path) + text
}

// slot compares an argument or a result.
func (c *comparer) slot(from, to *Type) *mismatch {
	a, b := scoped{Type: from}, scoped{Type: to}
	switch {
	case from.Kind == "stream" && to.Kind == "stream":
		if m := c.value(scoped{Type: from.Elem}, scoped{Type: to.Elem}); m != nil {
			return m.within(a, b)
		}
		return nil
	case from.Kind == "func" && to.Kind == "func":
		c.outs = !c.outs // who takes the function calls it
		_, text := c.sigs(to.Func, from.Func, true)
		c.outs = !c.outs
		if text != "" {
			return &mismatch{callback: text}
		}
		return nil
	case from.Kind == "reader" && to.Kind == "reader":
		return nil
	case !from.isValue() || !to.isValue():
		return &mismatch{from: a, to: b}
	}
	return c.value(a, b)
}

func (t *Type) isValue() bool { return t.Kind != "stream" && t.Kind != "reader" && t.Kind != "func" }

// scoped is a type and the structs around it, which its references mean.
type scoped struct {
	*Type
	outer []*Type
}

func (s scoped) elem() scoped { return scoped{s.Elem, s.outer} }

// inside returns t, the type of a field of struct s.
func (s scoped) inside(t *Type) scoped {
	return scoped{t, append(s.outer[:len(s.outer):len(s.outer)], s.Type)}
}

// resolve returns t, within the structs outer, or the struct that it refers to.
func resolve(t *Type, outer []*Type) scoped {
	if t.Kind == "ref" {
		n := len(outer) - t.Up
		return scoped{outer[n], outer[:n]}
	}
	return scoped{t, outer}
}

// base resolves s and what it points to.
func (s scoped) base() scoped {
	for s.Kind == "pointer" || s.Kind == "ref" {
		if s.Kind == "pointer" {
			s = s.elem()
		}
		s = resolve(s.Type, s.outer)
	}
	return s
}

// Go returns s as Go code.
func (s scoped) Go() string {
	return string(s.appendGo(nil, s.outer))
}

// within reports m, found in an element of from and to, as theirs.
func (m *mismatch) within(from, to scoped) *mismatch {
	if len(m.path) == 0 {
		m.from, m.to = from, to
	} else {
		m.path = append(m.path, "[]")
	}
	return m
}

// value compares types that a codec writes and reads.
func (c *comparer) value(from, to scoped) *mismatch {
	if c.left--; c.left < 0 {
		return nil
	}
	a, b := from.base(), to.base()
	if fits(a.Type, b.Type) {
		return nil
	}
	var m *mismatch
	switch pair := [2]string{a.class(), b.class()}; pair {
	case [2]string{"list", "list"}:
		m = c.value(a.elem(), b.elem())
	case [2]string{"map", "map"}:
		if m = c.value(scoped{a.Key, a.outer}, scoped{b.Key, b.outer}); m == nil {
			m = c.value(a.elem(), b.elem())
		}
	case [2]string{"struct", "struct"}, [2]string{"struct", "map"}, [2]string{"map", "struct"}:
		return c.fields(a, b, from, to)
	default:
		return &mismatch{from: from, to: to}
	}
	if m != nil {
		return m.within(from, to)
	}
	return nil
}

// fits reports whether from can be read as to, by what these types are without their parts.
func fits(from, to *Type) bool {
	f, t := from.class(), to.class()
	switch {
	case f == "any" || t == "any" || f == "never": // a field that cannot be encoded fails by itself
		return true
	case f == "text" && t == "text", f == "binary" && t == "binary", f == "json" && t == "json", f == "cbor" && t == "cbor":
		return from.Name == to.Name
	case f == "json" || f == "cbor" || t == "json" || t == "cbor": // may be written as anything
		return true
	case f == t:
		return f == "integer" || f == "float" || f == "string" || f == "bytes" || f == "bool" || f == "time" || f == "never"
	case t == "bytes" && f == "list":
		return from.Elem.class() == "integer"
	}
	switch f + " " + t {
	case "integer float", "string text", "text string", "bytes binary", "binary bytes":
		return true
	}
	return false
}

// class is the kind of a type, the same for those that are written alike.
func (t *Type) class() string {
	switch t.Kind {
	case "int", "int8", "int16", "int32", "int64", "uint", "uint8", "uint16", "uint32", "uint64", "duration", "bigint":
		return "integer"
	case "float32", "float64":
		return "float"
	case "slice", "array":
		if t.Elem.Kind == "uint8" {
			return "bytes"
		}
		return "list"
	}
	return t.Kind
}

// names reports whether the keys of a map may be the names of fields.
func (t *Type) names() bool {
	switch t.class() {
	case "string", "text", "any":
		return true
	}
	return false
}

// fields compares the structs or maps a and b, which from and to point to.
func (c *comparer) fields(a, b, from, to scoped) *mismatch {
	pair := [2]*Type{a.Type, b.Type}
	if c.seen[pair] || c.deep > maxPath {
		return nil
	}
	c.seen[pair] = true
	c.deep++
	defer func() { c.deep-- }()
	one, other := a, b // one is a struct
	if a.Kind == "map" {
		one, other = b, a
	}
	if other.Kind == "map" && !other.Key.names() {
		return &mismatch{from: from, to: to}
	}
	common := false
	for i, f := range one.Fields {
		ft := one.inside(f.Type)
		var ot scoped
		if other.Kind == "map" {
			ot = other.elem()
		} else if o := c.field(other.Fields, i, f.Name); o != nil {
			ot = other.inside(o.Type)
		} else {
			continue
		}
		common = true
		if a.Kind == "map" {
			ft, ot = ot, ft
		}
		if m := c.value(ft, ot); m != nil {
			m.path = append(m.path, "."+f.Name)
			delete(c.seen, pair)
			m.root = shortName(one.Name)
			return m
		}
	}
	if other.Kind == "struct" && len(one.Fields) > 0 && len(other.Fields) > 0 && !common {
		return &mismatch{from: from, to: to, why: "no field in common"}
	}
	return nil
}

// field returns the one of fields that is called name, or else is but for case. It is likely at i.
func (c *comparer) field(fields []Field, i int, name string) *Field {
	if i < len(fields) && fields[i].Name == name {
		return &fields[i]
	}
	var folded *Field
	for i := range fields {
		if c.left--; c.left < 0 {
			break
		}
		if fields[i].Name == name {
			return &fields[i]
		}
		if folded == nil && strings.EqualFold(fields[i].Name, name) {
			folded = &fields[i]
		}
	}
	return folded
}
