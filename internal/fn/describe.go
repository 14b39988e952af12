package fn

import "reflect"

// describe makes the signature of f.
func describe(f *Func) *Sig {
	d := describer{left: maxText} // no type has a shorter text than a byte
	s := d.sig(f, 0)
	text := s.appendText(nil)
	if d.left <= 0 || len(text) > maxText {
		s.unknown = true
		return s
	}
	s.text = string(text)
	return s
}

type describer struct {
	stack []reflect.Type // the types that are being described: structs, and others that have a name
	left  int            // how many more may be described
}

func (d *describer) sig(f *Func, depth int) *Sig {
	s := &Sig{Variadic: f.Variadic}
	for i := range f.Args {
		s.Args = append(s.Args, d.slot(&f.Args[i], depth))
	}
	for i := range f.Results {
		s.Results = append(s.Results, d.slot(&f.Results[i], depth))
	}
	return s
}

func (d *describer) slot(s *Slot, depth int) *Type {
	switch s.Kind {
	case Seq, Seq2:
		return &Type{Kind: "stream", Elem: d.typ(s.Elem, depth+1)}
	case Reader, ReadCloser:
		return &Type{Kind: "reader"}
	case Callback:
		if depth < maxDepth/2 {
			return &Type{Kind: "func", Func: d.sig(s.Func, depth+1)}
		}
	}
	return d.typ(s.Type, depth)
}

// typ describes t, which is so deep within other types. What is too deep or too much is any.
func (d *describer) typ(t reflect.Type, depth int) *Type {
	if d.left--; d.left <= 0 || depth >= maxDepth-1 {
		return &Type{Kind: "any"}
	}
	if t == durationType {
		return &Type{Kind: "duration"}
	}
	switch m := marshaler(t); m {
	case "":
	case "time", "bigint":
		return &Type{Kind: m}
	default:
		return &Type{Kind: m, Name: nameOf(t)}
	}
	if never(t) {
		return &Type{Kind: "never"}
	}
	switch t.Kind() {
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return &Type{Kind: "never"}
		}
		return &Type{Kind: "any"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &Type{Kind: "bytes"}
		}
	case reflect.Array, reflect.Map, reflect.Pointer, reflect.Struct:
	default:
		return &Type{Kind: t.Kind().String()}
	}
	if ref := d.enclosing(t); ref != nil {
		return ref
	}
	d.stack = append(d.stack, t)
	defer func() { d.stack = d.stack[:len(d.stack)-1] }()
	depth++
	switch t.Kind() {
	case reflect.Slice:
		return &Type{Kind: "slice", Elem: d.typ(t.Elem(), depth)}
	case reflect.Array:
		return &Type{Kind: "array", Len: t.Len(), Elem: d.typ(t.Elem(), depth)}
	case reflect.Map:
		return &Type{Kind: "map", Key: d.typ(t.Key(), depth), Elem: d.typ(t.Elem(), depth)}
	case reflect.Pointer:
		return &Type{Kind: "pointer", Elem: d.typ(t.Elem(), depth)}
	}
	if asArray(t) {
		return &Type{Kind: "any"}
	}
	s := &Type{Kind: "struct"}
	if t.Name() != "" {
		s.Name = nameOf(t)
	}
	for _, f := range fieldsOf(t) {
		s.Fields = append(s.Fields, Field{f.name, d.typ(f.typ, depth)})
	}
	return s
}

// enclosing returns a reference to the enclosing struct that t is, or nil. A type that contains
// itself through no struct is any.
func (d *describer) enclosing(t reflect.Type) *Type {
	up := 0
	for i := len(d.stack) - 1; i >= 0; i-- {
		if d.stack[i].Kind() == reflect.Struct {
			up++
		}
		if d.stack[i] != t {
			continue
		}
		switch {
		case t.Kind() == reflect.Struct:
			return &Type{Kind: "ref", Up: up}
		case up == 0:
			return &Type{Kind: "any"}
		}
	}
	return nil
}
