package fn

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

func mustParse(t *testing.T, text string) *Sig {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

func TestCompatible(t *testing.T) {
	const spread = "spread"
	for _, test := range []struct {
		caller, callee string
		want           string // an error, or spread
	}{
		{"", "(int)", ""},
		{"(int)", "", ""},
		{"()", "()", ""},
		// numbers
		{"(int, uint8, int64)", "(uint8, bigint, duration)", ""},
		{"(int)", "(float32)", ""},
		{"(float64)", "(float32)", ""},
		{"(float64)", "(int)", "argument 1: caller has float64, callee has int"},
		{"() (float64)", "() (int)", ""},
		{"() (int)", "() (float64)", "result 1: caller has int, callee has float64"},
		{"(int, string)", "(int, int)", "argument 2: caller has string, callee has int"},
		{"(bool)", "(int)", "argument 1: caller has bool, callee has int"},
		// text and bytes
		{"(string, text:a.ID, text:a.ID)", "(text:a.ID, string, text:a.ID)", ""},
		{"(text:a.ID)", "(text:a.Name)", "argument 1: caller has a.ID, callee has a.Name"},
		{"(bytes, binary:a.ID)", "(binary:a.ID, bytes)", ""},
		{"(binary:a.ID)", "(binary:b.ID)", "argument 1: caller has a.ID, callee has b.ID"},
		{"(bytes)", "(string)", "argument 1: caller has []byte, callee has string"},
		{"(string)", "(binary:a.ID)", "argument 1: caller has string, callee has a.ID"},
		{"(bytes, [4]uint8, []int8)", "([4]uint8, bytes, bytes)", ""},
		{"([]int, [2]uint8)", "(bytes, [4]uint8)", ""},
		{"([2]uint8)", "([]int)", "argument 1: caller has [2]uint8, callee has []int"},
		{"(bytes)", "([]string)", "argument 1: caller has []byte, callee has []string"},
		{"(json:a.X, cbor:a.Y)", "(int, {A int})", ""},
		{"(json:a.X)", "(json:a.Y)", "argument 1: caller has a.X, callee has a.Y"},
		{"(time)", "(time)", ""},
		{"(time)", "(string)", "argument 1: caller has time.Time, callee has string"},
		{"(string)", "(time)", "argument 1: caller has string, callee has time.Time"},
		{"(time)", "(int)", "argument 1: caller has time.Time, callee has int"},
		// any, never, pointers
		{"(any, int, {A never})", "(int, any, {A never})", ""},
		{"({A int})", "({A never})", "argument 1, field A: caller has int, callee has never"},
		{"(any)", "(reader)", "argument 1: caller has any, callee has io.Reader"},
		{"(func())", "(any)", "argument 1: caller has func() error, callee has any"},
		{"(*int, string, **[]*int)", "(int, **string, []int)", ""},
		{"(*string)", "(*int)", "argument 1: caller has *string, callee has *int"},
		// collections
		{"([]int, [3]int, [2]int)", "([3]int, []float64, [4]int)", ""},
		{"([][]string)", "([][]int)", "argument 1: caller has [][]string, callee has [][]int"},
		{"(map[string]int)", "(map[text:a.ID]float64)", ""},
		{"(map[string]int)", "(map[int]int)", "argument 1: caller has map[string]int, callee has map[int]int"},
		{"(map[string]int)", "(map[string]bool)", "argument 1: caller has map[string]int, callee has map[string]bool"},
		{"([]int)", "(map[string]int)", "argument 1: caller has []int, callee has map[string]int"},
		// structs
		{"(a.User{Name string; Age int})", "(b.Person{age int64; More bool})", ""},
		{"(a.User{Age int; age string})", "(b.User{Age int; age string})", ""},
		{"(a.User{Age int; age string})", "(b.User{age string})", "argument 1, field User.Age: caller has int, callee has string"},
		{"(a.User{})", "(a.User{A int})", ""},
		{"(a.User{A int})", "(b.Order{B int})", "argument 1: caller has a.User, callee has b.Order (no field in common)"},
		{"(a.User{Age int})", "(a.User{Age string})", "argument 1, field User.Age: caller has int, callee has string"},
		{"() (a.User{Age int})", "() (a.User{Age string})", "result 1, field User.Age: caller has int, callee has string"},
		{"([]a.User{Tags []a.Tag{Key int}})", "([]a.User{Tags []a.Tag{Key string}})", "argument 1, field User.Tags[].Key: caller has int, callee has string"},
		{"({In {A []int}})", "({In {A []bool}})", "argument 1, field In.A: caller has []int, callee has []bool"},
		{`("a.Page[a.User]"{Items {A int}})`, `("a.Page[a.User]"{Items {A bool}})`, "argument 1, field Page[a.User].Items.A: caller has int, callee has bool"},
		{"(a.User{A int})", "(int)", "argument 1: caller has a.User, callee has int"},
		{"(a.User{A int; B int8}, map[string]int)", "(map[string]int, a.User{A int; B float32})", ""},
		{"(map[string]int)", "(a.User{A int; B bool})", "argument 1, field User.B: caller has int, callee has bool"},
		{"(a.User{A bool})", "(map[string]int)", "argument 1, field User.A: caller has bool, callee has int"},
		{"(map[int]int)", "(a.User{A int})", "argument 1: caller has map[int]int, callee has a.User"},
		// recursion
		{"(a.N{V int; Next *^1})", "(b.N{V int; Next *b.M{V int; Next *^2}})", ""},
		{"(a.N{V int; Next *^1})", "(b.N{V int; Next *b.M{V bool; Next *^2}})", "argument 1, field N.Next.V: caller has int, callee has bool"},
		{"(a.N{V int; Next *^1})", "(map[string]any)", ""},
		{"(a.N{V int; Next *^1})", "(a.N{V int; Next []*^1})", "argument 1, field N.Next: caller has *a.N, callee has []*a.N"},
		// streams, readers, callbacks
		{"(stream int, reader) (stream float64)", "(stream float64, reader) (stream int)", ""},
		{"(stream float64)", "(stream int)", "argument 1: caller has iter.Seq2[float64, error], callee has iter.Seq2[int, error]"},
		{"() (stream a.U{A int})", "() (stream a.U{A bool})", "result 1, field U.A: caller has int, callee has bool"},
		{"(reader)", "(bytes)", "argument 1: caller has io.Reader, callee has []byte"},
		{"(func(float64) (int))", "(func(int) (float64))", ""},
		{"(func(int))", "(func(float64))", "argument 1, callback argument 1: caller has int, callee has float64"},
		{"(func() (float64))", "(func() (int))", "argument 1, callback result 1: caller has float64, callee has int"},
		{"(func(int, int))", "(func(int))", "argument 1, callback arguments: caller has 2, callee has 1"},
		{"(func(int, *int))", "(func(int))", ""},
		{"(func(...int))", "(func(int, int))", "argument 1, callback arguments: caller has 1, callee has 2"},
		{"(func(func(int)))", "(func(func(string)))", "argument 1, callback argument 1, callback argument 1: caller has int, callee has string"},
		{"(func(a.U{A int}))", "(func(a.U{A string}))", "argument 1, callback argument 1, field U.A: caller has int, callee has string"},
		// counts
		{"(int)", "(int, *string, ...int)", ""},
		{"(int)", "(int, string)", "arguments: caller has 1, callee has 2"},
		{"(int)", "(int, []int)", "arguments: caller has 1, callee has 2"},
		{"(int, int)", "(int)", "arguments: caller has 2, callee has 1"},
		{"() (int)", "()", "results: caller has 1, callee has 0"},
		// variadic
		{"(int, ...int)", "(int, ...int)", ""},
		{"(int, ...int)", "(int, []int)", ""},
		{"(...int)", "(...string)", "argument 1: caller has []int, callee has []string"},
		{"(...int)", "(int)", "argument 1: caller has []int, callee has int"},
		{"(string, []int)", "(string, ...int)", ""},
		{"(string, any)", "(string, ...int)", ""},
		{"(string)", "(string, ...int)", ""},
		{"(string, int)", "(string, ...int)", spread},
		{"(string, int, int8, any)", "(string, ...int)", spread},
		{"(bytes)", "(...uint8)", ""},
		{"(uint8, uint8)", "(...uint8)", spread},
		{"([]int)", "(...[]int)", spread},
		{"(string, int, bool)", "(string, ...int)", "argument 3: caller has bool, callee has int"},
		{"(string, bool)", "(string, ...int)", "argument 2: caller has bool, callee has []int"},
		{"(int, int, ...int)", "(...int)", "arguments: caller has 3, callee has 1"},
	} {
		caller, callee := mustParse(t, test.caller), mustParse(t, test.callee)
		got := ""
		isSpread, err := Compatible(caller, callee)
		if err != nil {
			got = err.Error()
		} else if isSpread {
			got = spread
		}
		if got != test.want {
			t.Errorf("%s -> %s:\n got %s\nwant %s", test.caller, test.callee, got, test.want)
		}
	}
}

// Compatible must not refuse what the codec reads, nor let pass what it never reads. It is stricter
// where the codec would leave a struct as it is, or where only some of a map may fit.
func TestCompatibleAsCodec(t *testing.T) {
	one := 1
	values := []any{
		true, 1, int8(1), uint64(1), 1.5, float32(1.5), "a", []byte("abcd"), [4]byte{1, 2, 3, 4}, time.Duration(1),
		&one, []int{1}, [2]int{1, 2}, []string{"a"}, map[string]int{"Age": 1}, map[int]int{1: 1},
		user{"a", 1}, struct{ Age int }{1}, struct{ Age float64 }{1.5}, struct{ Age string }{"a"}, node{Value: 1, Next: &node{Value: 2}}, []user{{"a", 1}},
	}
	for _, from := range values {
		data, err := cbor.Marshal(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range values {
			into := reflect.New(reflect.TypeOf(to))
			readErr := cbor.Unmarshal(data, into.Interface())
			_, err := Compatible(sigOf(t, from), sigOf(t, to))
			if reflect.TypeOf(from).Kind() == reflect.Map && reflect.TypeOf(to).Kind() == reflect.Struct ||
				err != nil && strings.Contains(err.Error(), "no field in common") {
				continue
			}
			if (err == nil) != (readErr == nil) {
				t.Errorf("%T as %T: codec: %v, Compatible: %v", from, to, readErr, err)
			}
		}
	}
}

func sigOf(t *testing.T, v any) *Sig {
	f, err := Dynamic([]reflect.Type{reflect.TypeOf(v)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f.Signature()
}
