package main

import (
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/internal/fn"
)

// A signature comes from a server, which may be anybody's: what cannot be called is an
// error, and costs little memory.
func TestForeignSignatures(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	client := yonder.NewClient(near)
	defer client.Close()
	many := strings.Repeat("int, ", 200) + "int"
	for _, test := range []struct {
		signature string
		callable  bool
	}{
		{"()", true},
		{"([1000000000]int, [1000][1000][1000]uint8)", true},
		{"(map[[]int]string, map[binary:a.Key]int, map[{A any}]int)", true},
		{"({A {B {C ^3}}; D never})", true},
		{`({"" int}, {"a\"b" int}, {"1" int; a int; A int; a int})`, true},
		{"(***any, *reader{}, {})", true},
		{"(stream stream{})", true},
		{"(func(func(func(int) (string))), ...uint8) (reader, stream any, cbor:a.X)", true},
		{"() (func())", false},
		{"(" + many + ")", false},
	} {
		sig, err := fn.Parse(test.signature)
		if err != nil {
			t.Fatalf("%s: %v", test.signature, err)
		}
		definitions(nil, sig)
		p := &procedure{ProcedureInfo: yonder.ProcedureInfo{Name: "f"}, sig: sig}
		f, err := bind(client, p)
		if (err == nil) != test.callable {
			t.Errorf("%.60s: callable: want %v; have error %v", test.signature, test.callable, err)
		}
		if err != nil {
			continue
		}
		for in := range f.Type().Ins() {
			if in.Size() > maxArray {
				t.Errorf("%.60s: %d bytes for one argument", test.signature, in.Size())
			}
			jsonText(reflect.Zero(in).Interface())
		}
	}
}

// Structs that contain themselves are named where they do.
func TestDefinitions(t *testing.T) {
	sig, err := fn.Parse("(a.Tree{Value int; Kids []^1; Root {Up ^2}}, stream b.Page{Of c.Item{N int}}) (a.Tree{Value int; Kids []^1; Root {Up ^2}})")
	if err != nil {
		t.Fatal(err)
	}
	want := "type a.Tree struct{Value int; Kids []a.Tree; Root struct{Up a.Tree}}\n" +
		"type b.Page struct{Of c.Item}\n" +
		"type c.Item struct{N int}"
	if have := strings.Join(definitions(nil, sig), "\n"); have != want {
		t.Errorf("have\n%s\nwant\n%s", have, want)
	}
}
