package fn

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

type (
	node struct {
		Value int
		Next  *node
	}
	tree struct {
		Left, Right *tree
		Up          []struct{ To map[string]*tree }
	}
	list   []list
	dict   map[string]dict
	forest []grove
	grove  struct{ Of forest }
	kind   uint8
	digest [4]byte
	blob   []byte
	asList struct {
		_    struct{} `cbor:",toarray"`
		A, B int
	}
	intKeys struct {
		A int `cbor:"1,keyasint"`
		B int `cbor:"two words"`
	}
)

// signature returns the signature of func(T).
func signature[T any]() *Sig {
	f, err := Callee(reflect.TypeFor[func(T)]())
	if err != nil {
		panic(err)
	}
	return f.Signature()
}

func TestSignature(t *testing.T) {
	for _, test := range []struct {
		sig          *Sig
		text, goText string
	}{
		{signature[bool](), "(bool)", "func(bool) error"},
		{signature[kind](), "(uint8)", "func(uint8) error"},
		{signature[[]byte](), "(bytes)", "func([]byte) error"},
		{signature[blob](), "(bytes)", "func([]byte) error"},
		{signature[digest](), "([4]uint8)", "func([4]uint8) error"},
		{signature[time.Time](), "(time)", "func(time.Time) error"},
		{signature[[]time.Duration](), "([]duration)", "func([]time.Duration) error"},
		{signature[*big.Int](), "(*bigint)", "func(*big.Int) error"},
		{signature[any](), "(any)", "func(any) error"},
		{signature[map[string][]*float32](), "(map[string][]*float32)", "func(map[string][]*float32) error"},
		{signature[*url.URL](), "(*binary:url.URL)", "func(*url.URL) error"},
		{signature[[]netip.Addr](), "([]binary:netip.Addr)", "func([]netip.Addr) error"},
		{signature[map[text]int](), "(map[text:fn.text]int)", "func(map[fn.text]int) error"},
		{signature[json.RawMessage](), "(json:json.RawMessage)", "func(json.RawMessage) error"},
		{signature[cbor.RawMessage](), "(cbor:cbor.RawMessage)", "func(cbor.RawMessage) error"},
		{signature[user](), "(fn.user{Name string; Age int})", "func(fn.user) error"},
		{signature[page[user]](), `("fn.page[fn.user]"{Items []fn.user{Name string; Age int}; Next string})`, "func(fn.page[fn.user]) error"},
		{signature[struct {
			A int `json:"a b"`
			B []string
		}](), `({"a b" int; B []string})`, "func(struct{a b int; B []string}) error"},
		{signature[struct {
			base
			E io.Reader
			F error
		}](), "({ID int; Shared int; E never; F never})", "func(struct{ID int; Shared int; E never; F never}) error"},
		{signature[intKeys](), `(fn.intKeys{"1" int; "two words" int})`, "func(fn.intKeys) error"},
		{signature[[]asList](), "([]any)", "func([]any) error"},
		{signature[node](), "(fn.node{Value int; Next *^1})", "func(fn.node) error"},
		{signature[tree](), "(fn.tree{Left *^1; Right *^1; Up []{To map[string]*^2}})", "func(fn.tree) error"},
		{signature[list](), "([]any)", "func([]any) error"},
		{signature[dict](), "(map[string]any)", "func(map[string]any) error"},
		{signature[forest](), "([]fn.grove{Of []^1})", "func([]fn.grove) error"},
		{signature[struct{ N struct{ M *node } }](), "({N {M *fn.node{Value int; Next *^1}}})", "func(struct{N struct{M *fn.node}}) error"},
		{signature[iter.Seq[node]](), "(stream fn.node{Value int; Next *^1})", "func(iter.Seq2[fn.node, error]) error"},
		{signature[io.Reader](), "(reader)", "func(io.Reader) error"},
		{signature[func(context.Context, int, ...string) (user, error)](), "(func(int, ...string) (fn.user{Name string; Age int}))",
			"func(func(int, ...string) (fn.user, error)) error"},
	} {
		if got := test.sig.String(); got != test.text {
			t.Errorf("text %s\nwant %s", got, test.text)
		}
		if got := test.sig.Go(); got != test.goText {
			t.Errorf("Go   %s\nwant %s", got, test.goText)
		}
		parsed, err := Parse(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		if got := parsed.Go(); got != test.goText {
			t.Errorf("Go   %s\nwant %s (parsed)", got, test.goText)
		}
		parsed.text = "" // print the tree, not what was parsed
		if got := parsed.String(); got != test.text {
			t.Errorf("text %s\nwant %s (parsed)", got, test.text)
		}
		if spread, err := Compatible(test.sig, parsed); spread || err != nil {
			t.Errorf("%s does not fit itself: %v", test.text, err)
		}
	}
}

func TestSignatureGoNamed(t *testing.T) {
	f, err := Callee(reflect.TypeFor[func(ctx context.Context, id int, tags ...string) (user, error)]())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		params []string
		want   string
	}{
		{[]string{"id", "tags"}, "func(id int, tags ...string) (fn.user, error)"},
		{[]string{"id"}, "func(id int, ...string) (fn.user, error)"},
		{[]string{"", "tags", "more"}, "func(int, tags ...string) (fn.user, error)"},
		{nil, "func(int, ...string) (fn.user, error)"},
	} {
		if got := f.Signature().GoNamed(test.params); got != test.want {
			t.Errorf("%q: %s, want %s", test.params, got, test.want)
		}
	}
	if first := f.Signature(); f.Signature() != first {
		t.Error("the signature is not cached")
	}
	if got := (*Sig)(nil).Go(); got != "func(?)" {
		t.Errorf("unknown: %s", got)
	}
}

// The text of w16 would have 4^16 parts.
type (
	w0  struct{ A int }
	w1  struct{ A, B, C, D *w0 }
	w2  struct{ A, B, C, D *w1 }
	w3  struct{ A, B, C, D *w2 }
	w4  struct{ A, B, C, D *w3 }
	w5  struct{ A, B, C, D *w4 }
	w6  struct{ A, B, C, D *w5 }
	w7  struct{ A, B, C, D *w6 }
	w8  struct{ A, B, C, D *w7 }
	w9  struct{ A, B, C, D *w8 }
	w10 struct{ A, B, C, D *w9 }
	w11 struct{ A, B, C, D *w10 }
	w12 struct{ A, B, C, D *w11 }
	w13 struct{ A, B, C, D *w12 }
	w14 struct{ A, B, C, D *w13 }
	w15 struct{ A, B, C, D *w14 }
	w16 struct{ A, B, C, D *w15 }
)

// A signature too large to send is unknown, is found out without building it, and fits all.
func TestSignatureTooLarge(t *testing.T) {
	long := strings.Repeat("x", maxText)
	for _, typ := range []reflect.Type{
		reflect.TypeFor[w16](),
		reflect.StructOf([]reflect.StructField{{Name: "A", Type: reflect.TypeFor[int](), Tag: reflect.StructTag(`json:"` + long + `"`)}}),
	} {
		f, err := Callee(reflect.FuncOf([]reflect.Type{typ}, nil, false))
		if err != nil {
			t.Fatal(err)
		}
		sig := f.Signature()
		if got := sig.String(); got != "" {
			t.Errorf("%d bytes of text", len(got))
		}
		if n := len(sig.Go()); n > 2*maxText {
			t.Errorf("%d bytes of Go", n)
		}
		for _, pair := range [][2]*Sig{{sig, signature[int]()}, {signature[int](), sig}, {nil, sig}, {sig, nil}} {
			if _, err := Compatible(pair[0], pair[1]); err != nil {
				t.Error(err)
			}
		}
	}
}

// What describe makes is never too deep for Parse.
func TestSignatureDeep(t *testing.T) {
	for n := maxDepth - 4; n < maxDepth+4; n++ {
		typ := reflect.TypeFor[int]()
		for range n {
			typ = reflect.SliceOf(typ)
		}
		stream := reflect.FuncOf([]reflect.Type{reflect.FuncOf([]reflect.Type{typ}, []reflect.Type{boolType}, false)}, nil, false)
		callback := reflect.FuncOf([]reflect.Type{typ, stream}, []reflect.Type{errorType}, false)
		f, err := Callee(reflect.FuncOf([]reflect.Type{typ, stream, callback, reflect.SliceOf(typ)}, nil, true))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(f.Signature().String()); err != nil {
			t.Errorf("%d deep: %v", n, err)
		}
	}
	for n := range 2 * maxDepth {
		callback := reflect.TypeFor[func(user) error]()
		for range n {
			callback = reflect.FuncOf([]reflect.Type{callback}, []reflect.Type{errorType}, false)
		}
		f, err := Callee(callback)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(f.Signature().String()); err != nil {
			t.Errorf("%d callbacks deep: %v", n, err)
		}
	}
}

// An argument list cut short by the limit still prints.
func TestSignatureTooLargeVariadic(t *testing.T) {
	f, err := Callee(reflect.TypeFor[func(w16, ...w16)]())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.Signature().Go(), "func(fn.w16, ...any) error"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func ExampleSig() {
	f, _ := Callee(reflect.TypeFor[func(ctx context.Context, id int, tags ...string) (user, error)]())
	fmt.Println(f.Signature())
	fmt.Println(f.Signature().GoNamed([]string{"id", "tags"}))
	// Output:
	// (int, ...string) (fn.user{Name string; Age int})
	// func(id int, tags ...string) (fn.user, error)
}
