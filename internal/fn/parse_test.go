package fn

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"int", "(", ")", "(int", "()x", "() ()", "()(int)", "(int,string)", "(int,  string)", "(, int)", "(...int, int)", "() (...int)",
		"(Int)", "(int8 )", "([]int", "([ 1]int)", "([01]int)", "([-1]int)", "([99999999999999999999]int)", "([1int)", "(map[string)", "(map[string]])",
		"(^1)", "({A ^0})", "({A ^2})", "({A ^01})", "({A ^})", "({A int;B int})", "({A int; })", "({A})", "({A int", "({ A int})", `({"A" int})`, `({"A int})`, "({`A` int})",
		`("x y")`, `(""{})`, "(text)", "(text:)", "(text: x)", "(time:x)", "([]stream int)", "(stream)", "(stream stream int)", "(stream reader)", "(*reader)", "(...reader)",
		"(...stream int)", "(...func())", "({F func()})", "(func)", "(func(int)", "(readers)", "(...)", "(\x00)", "({A int; B \xff})",
		"(" + strings.Repeat("[]", maxDepth) + "int)",
		strings.Repeat("(func", maxDepth+1) + "()" + strings.Repeat(")", maxDepth+1),
		"(x" + strings.Repeat("x", maxText) + "{})",
	} {
		if s, err := Parse(text); err == nil {
			t.Errorf("%.40q: parsed as %s", text, s)
		}
	}
}

func TestParseUnknown(t *testing.T) {
	if s, err := Parse(""); s != nil || err != nil || s.String() != "" {
		t.Errorf("got %v, %v", s, err)
	}
}

// A name may be one of a kind.
func TestParseNames(t *testing.T) {
	for _, text := range []string{"(reader{})", "(map{})", "(stream{})", "(func{})", "(int{int int})", "(text{})", "(text:text)", "(reader.X{})", `("x y"{"" int})`, `(text:"a b")`} {
		if s, err := Parse(text); err != nil || s.Go() == "" {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestParseErrorSaysWhere(t *testing.T) {
	_, err := Parse("(int, nit)")
	if want := "malformed signature at byte 9"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// hostile returns signatures as expensive as 32 KiB allow.
func hostile() []string {
	fields := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < maxText-200; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return "({" + strings.TrimSuffix(b.String(), "; ") + "})"
	}
	nested := func(up string) string { // 60 structs in a chain, the last of which refers out
		n := maxDepth - 4
		return "(" + strings.Repeat("{a ", n) + up + strings.Repeat("}", n) + ")"
	}
	var bush func(depth int) string // every leaf refers out to each level
	bush = func(depth int) string {
		var b strings.Builder
		for i := range 3 {
			fmt.Fprintf(&b, "a%d ", i)
			if depth > 0 {
				b.WriteString("{" + bush(depth-1) + "}; ")
			} else {
				fmt.Fprintf(&b, "^%d; ", i+2)
			}
		}
		return b.String() + "r ^1"
	}
	name := strings.Repeat("n", maxText/2)
	return []string{
		fields("f%d int; "), fields("g%d int; "), fields("f%d ^1; "), fields("f%d {a ^1; b ^2}; "), nested("^59"), nested("^60"), nested("^53"), nested("[]int"),
		"({" + bush(6) + "})",
		"(" + name + "{a {" + strings.Repeat("b []^2; ", 1500) + "c int}})",
		"(" + name + "{a {" + strings.Repeat("b []^2; ", 1500) + "c string}})",
		"({" + name + " {" + name[:maxText/4] + " ^2}})",
	}
}

func TestHostile(t *testing.T) {
	var sigs []*Sig
	for _, text := range hostile() {
		start := time.Now()
		s, err := Parse(text)
		if d := time.Since(start); d > time.Second {
			t.Errorf("%.40s: parsed in %v", text, d)
		}
		if err != nil {
			t.Errorf("%.40s: %v", text, err)
			continue
		}
		sigs = append(sigs, s)
	}
	for _, a := range sigs {
		for _, b := range sigs {
			start := time.Now()
			_, err := Compatible(a, b)
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("%.40s and %.40s: compared in %v", a, b, d)
			}
			if err != nil && len(err.Error()) > 4*maxText {
				t.Errorf("%.40s and %.40s: error of %d bytes", a, b, len(err.Error()))
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "()", "(int, ...string) (fn.User{ID int; Name string})", `("fn.Page[fn.User]"{Next *^1; "a b" []{X ^2}})`,
		"(stream time, reader, func(...uint8) (map[text:fn.ID][4]duration)) (any, never, json:json.RawMessage)",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		defer func() {
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("took %v", d)
			}
		}()
		s, err := Parse(text)
		if err != nil || s == nil {
			return
		}
		if got := string(s.appendText(nil)); got != text {
			t.Errorf("printed as %q", got)
		}
		if spread, err := Compatible(s, s); spread || err != nil {
			t.Errorf("does not fit itself: %v, %v", spread, err)
		}
		if s.Go() == "" {
			t.Error("no Go text")
		}
	})
}
