package fn

import "strconv"

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
	return string(s.appendGo(nil, params))
}

func (s *Sig) appendGo(b []byte, params []string) []byte {
	b = append(b, "func("...)
	for i, t := range s.Args {
		if i > 0 {
			b = append(b, ", "...)
		}
		if i < len(params) && params[i] != "" {
			b = append(append(b, params[i]...), ' ')
		}
		if s.Variadic && i == len(s.Args)-1 {
			b = append(b, "..."...)
			t = t.variadicElem()
		}
		b = t.appendGo(b, nil)
	}
	if len(s.Results) == 0 {
		return append(b, ") error"...)
	}
	b = append(b, ") ("...)
	for _, t := range s.Results {
		b = append(t.appendGo(b, nil), ", "...)
	}
	return append(b, "error)"...)
}

// goName is what Go calls a kind that has another name in signatures, and otherwise "".
func goName(kind string) string {
	switch kind {
	case "bytes":
		return "[]byte"
	case "time":
		return "time.Time"
	case "duration":
		return "time.Duration"
	case "bigint":
		return "big.Int"
	case "reader":
		return "io.Reader"
	}
	return ""
}

// appendGo appends t, within the structs outer. A struct with a name is only that.
func (t *Type) appendGo(b []byte, outer []*Type) []byte {
	switch t.Kind {
	case "binary", "text", "json", "cbor":
		return append(b, t.Name...)
	case "slice":
		return t.Elem.appendGo(append(b, "[]"...), outer)
	case "array":
		b = strconv.AppendInt(append(b, '['), int64(t.Len), 10)
		return t.Elem.appendGo(append(b, ']'), outer)
	case "map":
		b = t.Key.appendGo(append(b, "map["...), outer)
		return t.Elem.appendGo(append(b, ']'), outer)
	case "pointer":
		return t.Elem.appendGo(append(b, '*'), outer)
	case "stream":
		return append(t.Elem.appendGo(append(b, "iter.Seq2["...), outer), ", error]"...)
	case "func":
		return t.Func.appendGo(b, nil)
	case "ref":
		if s := resolve(t, outer).Type; s.Name != "" {
			return append(b, s.Name...)
		}
		return append(b, "struct{...}"...)
	case "struct":
		if t.Name != "" {
			return append(b, t.Name...)
		}
		outer = append(outer[:len(outer):len(outer)], t)
		b = append(b, "struct{"...)
		for i, f := range t.Fields {
			if i > 0 {
				b = append(b, "; "...)
			}
			if len(b) > maxGo { // references may stand for long names
				b = append(b, "..."...)
				break
			}
			b = f.Type.appendGo(append(append(b, f.Name...), ' '), outer)
		}
		return append(b, '}')
	}
	if name := goName(t.Kind); name != "" {
		return append(b, name...)
	}
	return append(b, t.Kind...)
}
