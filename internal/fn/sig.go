package fn

import (
	"strconv"
	"strings"
)

// Limits of the text of a signature.
const (
	maxText  = 32 << 10 // bytes
	maxDepth = 64       // types within types
	maxGo    = 4 << 10  // bytes for people, after which a struct is cut short
)

// Sig is the structural description of a function: what its arguments and results look like on
// the wire, without the context and the error. Its text is what a caller sends to a callee:
//
//	signature = "(" [ args ] ")" [ " (" types ")" ]
//	args      = types, where the last type may be preceded by "..." if the function is variadic
//	types     = type { ", " type }
//	type      = "bool" | "int" | "int8" | "int16" | "int32" | "int64"
//	          | "uint" | "uint8" | "uint16" | "uint32" | "uint64" | "float32" | "float64"
//	          | "string" | "bytes" | "time" | "duration" | "bigint"
//	          | "any"                         any value
//	          | "never"                       a field that nothing can encode
//	          | "binary:" name                a type that encodes itself, as binary,
//	          | "text:" name                  as text,
//	          | "json:" name                  as JSON,
//	          | "cbor:" name                  or as CBOR
//	          | "[]" type | "[" number "]" type | "map[" type "]" type
//	          | "*" type                      may be null
//	          | [ name ] "{" [ field { "; " field } ] "}"
//	          | "^" number                    the struct so many levels out, 1 is the innermost
//	          | "stream " type | "reader" | "func" signature
//	field     = name " " type
//	name      = a letter or "_", then letters, digits, "_" and "."; any other name is
//	            quoted as a Go string
//
// Streams, readers and functions are only arguments or results of their own, never parts of
// another type. Integers in memory have no size on the wire: a value that does not fit
// is found when it is decoded.
//
// A nil *Sig is one that is not known; it fits every other.
type Sig struct {
	Args     []*Type
	Results  []*Type
	Variadic bool // the last of Args is a slice, or bytes, that gathers the remaining arguments

	text    string // if it was parsed or described
	unknown bool   // too large to be sent
}

// Type is one type of a [Sig]. It is a tree: recursion is a node of kind "ref".
type Type struct {
	// Kind is the name of a basic type in the grammar of [Sig] ("int", "string", "bytes", "time",
	// "any", "never", "reader"), or one of "binary", "text", "json", "cbor" (with Name), "slice",
	// "array" (Elem, Len), "map" (Key, Elem), "pointer" (Elem), "struct" (Name, Fields),
	// "ref" (Up), "stream" (Elem), "func" (Func).
	Kind   string
	Name   string // pkg.Name; empty for a struct without a name
	Elem   *Type
	Key    *Type
	Len    int
	Fields []Field
	Up     int // how many structs out, 1 is the innermost
	Func   *Sig
}

// Field is a field of a struct, by its name on the wire.
type Field struct {
	Name string
	Type *Type
}

// String returns the text of s, or "" if s is nil or its text would exceed 32 KiB.
func (s *Sig) String() string {
	if s == nil || s.unknown {
		return ""
	}
	if s.text != "" {
		return s.text
	}
	return string(s.appendText(nil))
}

func (s *Sig) appendText(b []byte) []byte {
	b = append(b, '(')
	for i, t := range s.Args {
		if i > 0 {
			b = append(b, ", "...)
		}
		if s.Variadic && i == len(s.Args)-1 {
			b, t = append(b, "..."...), t.variadicElem()
		}
		b = t.appendText(b)
	}
	b = append(b, ')')
	for i, t := range s.Results {
		if i == 0 {
			b = append(b, " ("...)
		} else {
			b = append(b, ", "...)
		}
		b = t.appendText(b)
	}
	if len(s.Results) > 0 {
		b = append(b, ')')
	}
	return b
}

// variadicElem returns what the slice t, the last argument of a variadic function, holds.
func (t *Type) variadicElem() *Type {
	switch t.Kind {
	case "bytes":
		return &Type{Kind: "uint8"}
	case "slice":
		return t.Elem
	}
	return t // any, in a signature that is too large
}

func (t *Type) appendText(b []byte) []byte {
	switch t.Kind {
	case "binary", "text", "json", "cbor":
		return appendName(append(append(b, t.Kind...), ':'), t.Name)
	case "slice":
		return t.Elem.appendText(append(b, "[]"...))
	case "array":
		b = strconv.AppendInt(append(b, '['), int64(t.Len), 10)
		return t.Elem.appendText(append(b, ']'))
	case "map":
		b = t.Key.appendText(append(b, "map["...))
		return t.Elem.appendText(append(b, ']'))
	case "pointer":
		return t.Elem.appendText(append(b, '*'))
	case "struct":
		if t.Name != "" {
			b = appendName(b, t.Name)
		}
		b = append(b, '{')
		for i, f := range t.Fields {
			if i > 0 {
				b = append(b, "; "...)
			}
			b = f.Type.appendText(append(appendName(b, f.Name), ' '))
		}
		return append(b, '}')
	case "ref":
		return strconv.AppendInt(append(b, '^'), int64(t.Up), 10)
	case "stream":
		return t.Elem.appendText(append(b, "stream "...))
	case "func":
		return t.Func.appendText(append(b, "func"...))
	}
	return append(b, t.Kind...)
}

func appendName(b []byte, name string) []byte {
	if name != "" && nameLen(name) == len(name) {
		return append(b, name...)
	}
	return strconv.AppendQuote(b, name)
}

// nameLen returns the length of the name that s begins with, if any, that needs no quotes.
func nameLen(s string) int {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || c != '.' && (c < '0' || c > '9')) {
			return i
		}
	}
	return len(s)
}

// Go returns s for people to read, as a Go function type: func(int, ...string) (main.User, error).
func (s *Sig) Go() string { return s.GoNamed(nil) }

// GoNamed is [Sig.Go] with the names of the parameters, as far as params has them.
func (s *Sig) GoNamed(params []string) string {
	if s == nil {
		return "func(?)"
	}
	var b strings.Builder
	s.writeGo(&b, params)
	return b.String()
}

func (s *Sig) writeGo(b *strings.Builder, params []string) {
	b.WriteString("func(")
	for i, t := range s.Args {
		if i > 0 {
			b.WriteString(", ")
		}
		if i < len(params) && params[i] != "" {
			b.WriteString(params[i] + " ")
		}
		if s.Variadic && i == len(s.Args)-1 {
			b.WriteString("...")
			t = t.variadicElem()
		}
		t.writeGo(b, nil)
	}
	if len(s.Results) == 0 {
		b.WriteString(") error")
		return
	}
	b.WriteString(") (")
	for _, t := range s.Results {
		t.writeGo(b, nil)
		b.WriteString(", ")
	}
	b.WriteString("error)")
}

// writeGo writes t, within the structs outer. A struct with a name is only that.
func (t *Type) writeGo(b *strings.Builder, outer []*Type) {
	switch t.Kind {
	case "bytes":
		b.WriteString("[]byte")
	case "time":
		b.WriteString("time.Time")
	case "duration":
		b.WriteString("time.Duration")
	case "bigint":
		b.WriteString("big.Int")
	case "reader":
		b.WriteString("io.Reader")
	case "binary", "text", "json", "cbor":
		b.WriteString(t.Name)
	case "slice":
		b.WriteString("[]")
		t.Elem.writeGo(b, outer)
	case "array":
		b.WriteString("[" + strconv.Itoa(t.Len) + "]")
		t.Elem.writeGo(b, outer)
	case "map":
		b.WriteString("map[")
		t.Key.writeGo(b, outer)
		b.WriteString("]")
		t.Elem.writeGo(b, outer)
	case "pointer":
		b.WriteString("*")
		t.Elem.writeGo(b, outer)
	case "stream":
		b.WriteString("iter.Seq2[")
		t.Elem.writeGo(b, outer)
		b.WriteString(", error]")
	case "func":
		t.Func.writeGo(b, nil)
	case "ref":
		if s := resolve(t, outer).Type; s.Name != "" {
			b.WriteString(s.Name)
		} else {
			b.WriteString("struct{...}")
		}
	case "struct":
		if t.Name != "" {
			b.WriteString(t.Name)
			return
		}
		outer = append(outer[:len(outer):len(outer)], t)
		b.WriteString("struct{")
		for i, f := range t.Fields {
			if i > 0 {
				b.WriteString("; ")
			}
			if b.Len() > maxGo { // references may stand for long names
				b.WriteString("...")
				break
			}
			b.WriteString(f.Name + " ")
			f.Type.writeGo(b, outer)
		}
		b.WriteString("}")
	default:
		b.WriteString(t.Kind)
	}
}
