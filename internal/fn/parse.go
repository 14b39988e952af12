package fn

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var errSyntax = errors.New("malformed signature")

// Parse parses the text of a signature, as [Sig.String] returns it. The text may come from a peer:
// it is limited to 32 KiB and to types nested 64 deep. The empty text is a signature that is not
// known, a nil *Sig.
func Parse(text string) (*Sig, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxText {
		return nil, fmt.Errorf("signature of %d bytes exceeds the limit of %d", len(text), maxText)
	}
	p := parser{rest: text}
	s, err := p.sig(0)
	if err != nil {
		return nil, fmt.Errorf("%w at byte %d", err, len(text)-len(p.rest))
	}
	if string(s.appendText(nil)) != text { // numbers with zeros in front, names quoted without need
		return nil, fmt.Errorf("%w: not in canonical form", errSyntax)
	}
	s.text = text
	return s, nil
}

type parser struct {
	rest    string
	structs int // how many enclose the type being parsed
}

// take consumes token if it is next. It is not inlined so that programs stay small.
//
//go:noinline
func (p *parser) take(token string) bool {
	rest, ok := strings.CutPrefix(p.rest, token)
	p.rest = rest
	return ok
}

func (p *parser) sig(depth int) (*Sig, error) {
	s := new(Sig)
	if !p.take("(") {
		return nil, errSyntax
	}
	for !p.take(")") {
		if s.Variadic || len(s.Args) > 0 && !p.take(", ") {
			return nil, errSyntax
		}
		s.Variadic = p.take("...")
		t, err := p.slot(depth)
		if err != nil {
			return nil, err
		}
		if s.Variadic {
			switch t.Kind {
			case "stream", "reader", "func":
				return nil, errSyntax
			case "uint8":
				t = &Type{Kind: "bytes"}
			default:
				t = &Type{Kind: "slice", Elem: t}
			}
		}
		s.Args = append(s.Args, t)
	}
	if !p.take(" (") {
		return s, p.end(depth)
	}
	for {
		t, err := p.slot(depth)
		if err != nil {
			return nil, err
		}
		s.Results = append(s.Results, t)
		if p.take(")") {
			return s, p.end(depth)
		}
		if !p.take(", ") {
			return nil, errSyntax
		}
	}
}

// end checks that nothing follows the outermost signature.
func (p *parser) end(depth int) error {
	if depth == 0 && p.rest != "" {
		return errSyntax
	}
	return nil
}

// slot parses an argument or a result.
func (p *parser) slot(depth int) (*Type, error) {
	if strings.HasPrefix(p.rest, "func(") {
		if depth >= maxDepth {
			return nil, errors.New("signature nested too deeply")
		}
		p.take("func")
		f, err := p.sig(depth + 1)
		return &Type{Kind: "func", Func: f}, err
	}
	if p.take("stream ") {
		elem, err := p.typ(depth + 1)
		return &Type{Kind: "stream", Elem: elem}, err
	}
	if n := len("reader"); nameLen(p.rest) == n && !strings.HasPrefix(p.rest[n:], "{") && p.take("reader") {
		return &Type{Kind: "reader"}, nil
	}
	return p.typ(depth)
}

func (p *parser) typ(depth int) (*Type, error) {
	if depth >= maxDepth {
		return nil, errors.New("signature nested too deeply")
	}
	var t Type
	var err error
	switch {
	case p.take("*"):
		t.Kind = "pointer"
		t.Elem, err = p.typ(depth + 1)
		return &t, err
	case p.take("[]"):
		t.Kind = "slice"
		t.Elem, err = p.typ(depth + 1)
		return &t, err
	case p.take("["):
		t.Kind = "array"
		if t.Len, err = p.number(); err != nil || !p.take("]") {
			return nil, errSyntax
		}
		t.Elem, err = p.typ(depth + 1)
		return &t, err
	case p.take("map["):
		t.Kind = "map"
		if t.Key, err = p.typ(depth + 1); err != nil {
			return nil, err
		}
		if !p.take("]") {
			return nil, errSyntax
		}
		t.Elem, err = p.typ(depth + 1)
		return &t, err
	case p.take("^"):
		t.Kind = "ref"
		if t.Up, err = p.number(); err != nil || t.Up < 1 || t.Up > p.structs {
			return nil, errSyntax
		}
		return &t, nil
	case strings.HasPrefix(p.rest, "{"):
		return p.fields(&t, depth)
	}
	quoted := strings.HasPrefix(p.rest, `"`)
	if t.Kind, err = p.name(); err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(p.rest, "{"):
		t.Name = t.Kind
		return p.fields(&t, depth)
	case quoted:
		return nil, errSyntax
	}
	switch t.Kind {
	case "bool", "int", "int8", "int16", "int32", "int64", "uint", "uint8", "uint16", "uint32", "uint64",
		"float32", "float64", "string", "bytes", "time", "duration", "bigint", "any", "never":
		return &t, nil
	case "binary", "text", "json", "cbor":
		if p.take(":") {
			t.Name, err = p.name()
			return &t, err
		}
	}
	return nil, errSyntax
}

// fields parses the rest of a struct, from its brace.
func (p *parser) fields(t *Type, depth int) (*Type, error) {
	t.Kind = "struct"
	p.structs++
	defer func() { p.structs-- }()
	p.take("{")
	for !p.take("}") {
		if len(t.Fields) > 0 && !p.take("; ") {
			return nil, errSyntax
		}
		name, err := p.name()
		if err != nil || !p.take(" ") {
			return nil, errSyntax
		}
		ft, err := p.typ(depth + 1)
		if err != nil {
			return nil, err
		}
		t.Fields = append(t.Fields, Field{name, ft})
	}
	return t, nil
}

func (p *parser) name() (string, error) {
	n := nameLen(p.rest)
	if n > 0 {
		name := p.rest[:n]
		p.rest = p.rest[n:]
		return name, nil
	}
	if !strings.HasPrefix(p.rest, `"`) {
		return "", errSyntax
	}
	quoted, err := strconv.QuotedPrefix(p.rest)
	if err != nil {
		return "", errSyntax
	}
	p.rest = p.rest[len(quoted):]
	return strconv.Unquote(quoted)
}

func (p *parser) number() (int, error) {
	n := 0
	for n < len(p.rest) && '0' <= p.rest[n] && p.rest[n] <= '9' {
		n++
	}
	digits := p.rest[:n]
	p.rest = p.rest[n:]
	return strconv.Atoi(digits)
}
