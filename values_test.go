package yonder_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
)

type (
	Base struct {
		ID      int
		Comment string `json:"comment,omitempty"`
	}
	Item struct {
		Base  // embedded
		Price float64
		Next  *Item
		inner int // stays at home
	}
	Order struct {
		*Base
		Items  []Item
		ByName map[string]*Item
		Grid   [2][3]int8
		Raw    []byte
		When   time.Time
		Took   time.Duration
		Extra  any
		Skip   string `json:"-"`
	}
	Tree struct {
		Value    int
		Children []*Tree
		Named    map[string]Tree
	}
	List struct {
		Value int
		Next  *List
	}

	level  int    // encodes itself as text, by a method of the pointer alone
	packed [2]int // as binary
	point  struct {
		x, y int // as JSON only
	}
	Bytes  []byte
	Digest [4]byte
	Key    struct{ A, B int }
)

func (l *level) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "L%d", int(*l)), nil }
func (l *level) UnmarshalText(text []byte) error {
	_, err := fmt.Sscanf(string(text), "L%d", (*int)(l))
	return err
}
func (p packed) MarshalBinary() ([]byte, error) { return []byte{byte(p[0]), byte(p[1])}, nil }
func (p *packed) UnmarshalBinary(b []byte) error {
	if len(b) != 2 {
		return errors.New("not two bytes")
	}
	p[0], p[1] = int(b[0]), int(b[1])
	return nil
}
func (p point) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `{"at": [%d, %d]}`, p.x, p.y), nil
}
func (p *point) UnmarshalJSON(b []byte) error {
	var v struct{ At [2]int }
	err := json.Unmarshal(b, &v)
	p.x, p.y = v.At[0], v.At[1]
	return err
}

// A row is a value that goes there and back.
type row struct {
	name     string
	register func(srv *yonder.Server)
	check    func(t *testing.T, c *yonder.Client, m mode)
	notJSON  string // why it cannot cross in JSON
}

// same is a row of a value that comes back as it went.
func same[T any](name string, v T) row { return becomes(name, v, v) }

// becomes is a row of a value that comes back as another over a connection.
func becomes[T any](name string, v, want T) row {
	return row{
		name:     name,
		register: func(srv *yonder.Server) { srv.Register(name, func(v T) T { return v }) },
		check: func(t *testing.T, c *yonder.Client, m mode) {
			var echo func(T) (T, error)
			c.Bind(name, &echo)
			got, err := echo(v)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			want := want
			if m == inProcess {
				want = v // nothing is encoded
			}
			if diff := cmp.Diff(want, got, exact); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		},
	}
}

func (r row) butNotJSON(reason string) row {
	r.notJSON = reason
	return r
}

// What gob cannot, alone and, with netRPC, in the one argument that is not behind an interface.
const (
	gobNil   = "gob has no nil within a slice, a map or an array"
	gobEmpty = "gob does not tell what is empty from nil"
	gobNone  = "gob has neither exported fields nor methods to encode it by"
	gobAny   = "a value behind an interface arrives as its own type"
	gobNames = "gob wants the types behind interfaces registered"
)

// notGob has why rows cannot cross in gob, notNetRPC why others cannot as net/rpc's argument.
var (
	notGob = map[string]string{
		"everything in a struct": gobNil, "pointers in a slice": gobNil, "tree": gobNil, "JSON only, in a map": gobNone,
		"no bytes": gobEmpty, "slices of bytes": gobEmpty, "empty slice": gobEmpty, "slices in slices": gobEmpty,
		"nil map": gobEmpty, "maps in maps": gobEmpty, "any: big": gobAny,
		"JSON only": gobNone, "any: int": gobAny, "any: uint": gobAny, "any: slice": gobAny,
		"any: map with int keys": gobAny, "any: map with int keys, inside": gobAny, "any: struct": gobAny, "any: pointer": gobAny,
		"anys in a struct": gobNames,
	}
	notNetRPC = map[string]string{
		"nil pointer": "gob has no nil", "nil big.Int": "gob has no nil", "any: nil": "gob has no nil",
		"any: time": gobNames, "any: list": gobNames, "any: map": gobNames,
	}
)

// cannot returns why a row cannot cross in a mode; "": it can.
func (r row) cannot(m mode) string {
	switch m {
	case inJSON, jsonRPC:
		return r.notJSON
	case netRPC:
		return notGob[r.name] + notNetRPC[r.name]
	case overFrames:
		return notGob[r.name]
	}
	return ""
}

// exact compares what cmp cannot, and what it takes for equal although it is not.
var exact = cmp.Options{
	cmp.AllowUnexported(point{}, Item{}, url.Userinfo{}),
	cmp.Comparer(func(a, b *big.Int) bool { return a == b || a != nil && b != nil && a.Cmp(b) == 0 }),
	cmp.Comparer(func(a, b big.Int) bool { return a.Cmp(&b) == 0 }),
	cmp.Comparer(func(a, b *big.Rat) bool { return a.Cmp(b) == 0 }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b float64) bool {
		return math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b)
	}),
	cmp.Comparer(func(a, b float32) bool {
		return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
	}),
	cmp.Comparer(func(a, b time.Time) bool {
		return a.Equal(b) && a.Format(time.RFC3339Nano) == b.Format(time.RFC3339Nano)
	}),
}

func TestValues(t *testing.T) {
	oslo := time.FixedZone("", 2*60*60)
	when := time.Date(2026, 2, 3, 4, 5, 6, 789012345, oslo)
	huge, _ := new(big.Int).SetString("-123456789012345678901234567890123456789012345678901234567890", 10)
	link, err := url.Parse("https://me:pw@example.com:8080/a%2Fb?q=1&q=2#frag")
	if err != nil {
		t.Fatal(err)
	}
	item := Item{Base: Base{1, "first"}, Price: 9.99, Next: &Item{Base: Base{ID: 2}}}
	const (
		noNumber = "JSON has no such number"
		noKey    = "JSON's keys are strings"
		floats   = "a number behind an interface is a float64, as encoding/json has it"
		noBytes  = "bytes behind an interface are a string, as encoding/json has it"
	)
	rows := []row{
		same("nested structs", item),
		same("everything in a struct", Order{
			Base: &Base{ID: 7}, Items: []Item{item, {}}, ByName: map[string]*Item{"a": &item, "none": nil},
			Grid: [2][3]int8{{1, -2, 3}, {4}}, Raw: []byte{0, 255}, When: when, Took: time.Minute, Extra: "any",
		}),
		same("the zero struct", Order{Base: &Base{}}),
		same("an embedded nil pointer", Order{}),
		same("a struct without a name", struct {
			A int
			B struct{ C []string }
		}{1, struct{ C []string }{[]string{"x"}}}),
		same("an empty struct", struct{}{}),

		same("nil pointer", (*User)(nil)),
		same("pointer", &User{"Foo", 12}),
		same("pointer to zero", new(0)),
		same("pointers in a slice", []*int{new(1), nil, new(3)}),

		same("min int", math.MinInt), same("max int", math.MaxInt),
		same("min int64", int64(math.MinInt64)), same("max int64", int64(math.MaxInt64)),
		same("int8", int8(math.MinInt8)), same("int16", int16(math.MinInt16)), same("int32", int32(math.MinInt32)),
		same("uint8", uint8(255)), same("uint16", uint16(65535)), same("uint32", uint32(math.MaxUint32)),
		same("uint64", uint64(math.MaxUint64)), same("uint", uint(math.MaxUint)),
		same("bool", true), same("rune", '世'),
		same("float32", float32(math.Pi)), same("float64", math.Pi), same("-0", math.Copysign(0, -1)),
		same("the least float", math.SmallestNonzeroFloat64), same("the largest float", math.MaxFloat64),
		same("NaN", math.NaN()).butNotJSON(noNumber),
		same("+Inf", math.Inf(1)).butNotJSON(noNumber),
		same("-Inf", []float32{float32(math.Inf(-1)), float32(math.NaN())}).butNotJSON(noNumber),

		same("string", "héllo, 世界 \x00 \u2028 <&>"), same("empty string", ""),
		same("not UTF-8", "a\xff\xfeb").butNotJSON("strings are UTF-8"),
		same("not UTF-8, as a key", map[string]int{"\xff": 1}).butNotJSON("strings are UTF-8"),
		same("not UTF-8, in any", any("a\xff")).butNotJSON("strings are UTF-8"),

		same("bytes", []byte{0, 1, 255}), same("no bytes", []byte{}), same("nil bytes", []byte(nil)),
		same("named bytes", Bytes("ab")), same("array of bytes", Digest{1, 2, 3, 4}), same("slices of bytes", [][]byte{{1}, nil, {}}),

		same("slice", []string{"a", ""}), same("empty slice", []string{}), same("nil slice", []string(nil)),
		same("slices in slices", [][]int{{1, 2}, nil, {}}), same("array", [3]string{"a", "", "c"}), same("empty array", [0]int{}),

		same("map", map[string]int{"a": 1, "": 2}), same("empty map", map[string]int{}), same("nil map", map[string]int(nil)),
		same("int keys", map[int64]string{-1: "a", 1 << 40: "b"}), same("uint8 keys", map[uint8][]string{255: {"x"}}),
		same("text keys", map[celsius]int{20.5: 1}), same("address keys", map[netip.Addr]bool{netip.MustParseAddr("::1"): true}),
		same("bool keys", map[bool]int{true: 1, false: 2}).butNotJSON(noKey),
		same("float keys", map[float64]int{0.5: 1}).butNotJSON(noKey),
		same("array keys", map[[2]int]string{{1, 2}: "a"}).butNotJSON(noKey),
		same("struct keys", map[Key]string{{1, 2}: "a"}).butNotJSON(noKey),
		same("maps in maps", map[string]map[int][]User{"a": {1: {{"Foo", 12}}}, "b": nil}),

		same("time", when), same("time in UTC", when.UTC()), same("zero time", time.Time{}),
		same("a time long ago", time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)), same("pointer to a time", &when),
		same("duration", -3*time.Hour+time.Nanosecond),
		same("big.Int", *huge), same("pointer to a big.Int", huge), same("small big.Int", big.NewInt(-1)), same("nil big.Int", (*big.Int)(nil)),
		same("big.Rat", big.NewRat(1, 3)),
		same("netip.Addr", netip.MustParseAddr("fe80::1%eth0")), same("no netip.Addr", netip.Addr{}),
		same("netip.AddrPort", netip.MustParseAddrPort("1.2.3.4:80")), same("netip.Prefix", netip.MustParsePrefix("10.0.0.0/8")),
		same("net.IP", net.ParseIP("1.2.3.4")), same("net.HardwareAddr", net.HardwareAddr{1, 2, 3, 4, 5, 6}),
		same("net.IPNet", net.IPNet{IP: net.IP{10, 0, 0, 0}.To16(), Mask: net.CIDRMask(8, 32)}),
		same("url.URL", *link).butNotJSON("encoding/json does not use MarshalBinary"),
		same("pointer to a url.URL", link).butNotJSON("encoding/json does not use MarshalBinary"),

		same("text", []celsius{20.5}), same("text by a pointer's method", []level{1, 2}), same("pointer to text", new(level(3))),
		same("text in an array", struct{ L level }{4}),
		same("binary", packed{3, 4}), same("JSON only", point{3, 4}), same("JSON only, in a map", map[string]*point{"a": {-1, 5}, "b": nil}),
		same("raw JSON", json.RawMessage(`{"b":[1,null,"x\\n"],"a":{}}`)),
		same("raw numbers", json.RawMessage(`[18446744073709551615,-123456789012345678901234567890,0.5,1e+300,-0]`)), same("codes", yonder.NotFound),

		same("any: nil", any(nil)), same("any: bool", any(true)), same("any: string", any("a")), same("any: float", any(1.5)),
		becomes("any: int", any(-3), any(int64(-3))).butNotJSON(floats),
		becomes("any: uint", any(uint64(math.MaxUint64)), any(*new(big.Int).SetUint64(math.MaxUint64))).butNotJSON(floats),
		becomes("any: big", any(huge), any(*huge)).butNotJSON(floats),
		same("any: NaN", any(math.NaN())).butNotJSON(noNumber),
		same("any: bytes", any([]byte{1, 2})).butNotJSON(noBytes),
		same("any: time", any(when)).butNotJSON("a time behind an interface is a string, as encoding/json has it"),
		same("any: list", any([]any{"a", nil, true, []any{1.5}})),
		becomes("any: slice", any([]string{"a"}), any([]any{"a"})),
		same("any: map", any(map[string]any{"a": []any{"b"}, "c": map[string]any{}})),
		becomes("any: map with int keys", any(map[int]string{1: "a"}), any(map[any]any{int64(1): "a"})).butNotJSON(noKey),
		becomes("any: map with int keys, inside", any(map[string]any{"m": map[int]string{1: "a"}, "n": map[string]int{"b": 2}}),
			any(map[any]any{"m": map[any]any{int64(1): "a"}, "n": map[any]any{"b": int64(2)}})).butNotJSON(noKey),
		becomes("any: struct", any(User{"Foo", 12}), any(map[string]any{"Name": "Foo", "Age": int64(12)})).butNotJSON(floats),
		becomes("any: pointer", any(&Base{Comment: "c"}), any(map[string]any{"ID": int64(0), "comment": "c"})).butNotJSON(floats),
		becomes("anys in a struct", Order{Base: &Base{}, Extra: []User{{"Foo", 1}}},
			Order{Base: &Base{}, Extra: []any{map[string]any{"Name": "Foo", "Age": int64(1)}}}).butNotJSON(floats),
		same("maps of any", map[string]any{"a": nil, "b": "c"}),

		same("tree", Tree{1, []*Tree{{Value: 2}, nil, {3, []*Tree{{Value: 4}}, nil}}, map[string]Tree{"x": {Value: 5}}}),
		same("shared pointers", func() []*Item { i := &item; return []*Item{i, i} }()),
	}
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		for _, r := range rows {
			r.register(&srv)
		}
		c := m.client(t, &srv)
		for _, r := range rows {
			if reason := r.cannot(m); reason != "" {
				t.Logf("%s: left out: %s: %s", m.name, r.name, reason)
				continue
			}
			r.check(t, c, m)
		}
	})
}

// What travels beside others arrives where it belongs.
func TestFieldsThatStayAtHome(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "nothing is encoded: what a pointer or a struct holds is shared")
		var srv yonder.Server
		srv.Register("echo", func(o Order) Order { return o })
		c := m.client(t, &srv)
		got, err := yonder.Invoke[Order](t.Context(), c, "echo", Order{Base: &Base{}, Skip: "s", Items: []Item{{inner: 3}}})
		want := Order{Base: &Base{}, Items: []Item{{}}}
		if !m.can(t, tags) {
			want.Skip = "s"
		}
		if diff := cmp.Diff(want, got, exact); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}

func TestDeepValues(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("length", func(l *List) (n int) {
			for ; l != nil; l = l.Next {
				n++
			}
			return n
		})
		srv.Register("make", func(n int) (l *List) {
			for i := range n {
				l = &List{i, l}
			}
			return l
		})
		c := m.client(t, &srv)
		const deep = 5000
		list, err := yonder.Invoke[*List](t.Context(), c, "make", deep)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := yonder.Invoke[int](t.Context(), c, "length", list); n != deep || err != nil {
			t.Errorf("length %d, %v; want %d", n, err, deep)
		}

		m.cannot(t, inProcess, "nothing is encoded")
		for range 6000 {
			list = &List{0, list}
		}
		_, err = yonder.Invoke[int](t.Context(), c, "length", list)
		if !strings.Contains(textOf(err), "nested deeper than 10000 levels") || yonder.CodeOf(err) != yonder.InvalidArgument {
			t.Errorf("got %v", err)
		}
		_, err = yonder.Invoke[*List](t.Context(), c, "make", 11000)
		if !strings.Contains(textOf(err), "nested deeper than 10000 levels") || yonder.CodeOf(err) != yonder.Internal {
			t.Errorf("got %v", err)
		}
	})
}

func TestLargeValues(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("bytes", func(b []byte) []byte { return b })
		srv.Register("text", func(s string) string { return s })
		srv.Register("numbers", func(xs []int) []int { return xs })
		c := m.client(t, &srv)
		for _, size := range []int{64<<10 - 30, 64 << 10, 64<<10 + 1, 3 << 20} {
			b := make([]byte, size)
			for i := range b {
				b[i] = byte(i * 7)
			}
			if got, err := yonder.Invoke[[]byte](t.Context(), c, "bytes", b); string(got) != string(b) || err != nil {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
			s := strings.Repeat("x", size)
			if got, err := yonder.Invoke[string](t.Context(), c, "text", s); got != s || err != nil {
				t.Errorf("a string of %d bytes: got %d, %v", size, len(got), err)
			}
		}
		xs := make([]int, 200_000)
		for i := range xs {
			xs[i] = i
		}
		got, err := yonder.Invoke[[]int](t.Context(), c, "numbers", xs)
		if diff := cmp.Diff(xs, got); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}

// TestKeptLargeValues is TestKeptValues for messages in parts, whose memory the value keeps where bytes
// or a string in it are most of them, and another message has otherwise.
func TestKeptLargeValues(t *testing.T) {
	type large struct {
		N    int
		Data []byte
		Text string
		More []string
	}
	const size = 100 << 10
	of := func(n int) (v large) {
		v.N = n
		fill := func(size int) []byte { return bytes.Repeat([]byte{'a' + byte(n%26)}, size+n) }
		switch n % 4 {
		case 0:
			v.Data, v.Text = fill(size), string(fill(10))
		case 1:
			v.Data, v.Text = fill(10), string(fill(size))
		case 2:
			v.Data, v.Text = fill(size/2), string(fill(size/2-10))
		default:
			for range size / 100 {
				v.More = append(v.More, string(fill(100)))
			}
		}
		return v
	}
	check := func(t *testing.T, where string, v large) {
		t.Helper()
		want := of(v.N)
		if v.Text != want.Text || string(v.Data) != string(want.Data) || !slices.Equal(v.More, want.More) {
			t.Errorf("%s: value %d has changed", where, v.N)
		}
	}
	runAll(t, func(t *testing.T, m mode) {
		results, arguments := keepAll(t, m, 32, of)
		for _, v := range results {
			check(t, "a result", v)
		}
		for _, v := range arguments {
			check(t, "an argument", v)
		}
	})
}

// keepAll makes calls with the values of numbers, of a function bound and not, some at a time, and
// returns what has come back, in order, and what the handlers were given.
func keepAll[T any](t *testing.T, m mode, calls int, of func(n int) T) (results, arguments []T) {
	var srv yonder.Server
	var mu sync.Mutex
	keep := func(_ context.Context, v T) (T, error) {
		mu.Lock()
		defer mu.Unlock()
		arguments = append(arguments, v)
		return v, nil
	}
	srv.Register("bound", keep)
	yonder.Handle(&srv, "generic", keep)
	c := m.client(t, &srv)
	var bound func(context.Context, T) (T, error)
	c.Bind("bound", &bound)
	kinds := []func(context.Context, T) (T, error){bound, yonder.Remote[T, T](c, "generic")}
	results = make([]T, calls)
	const callers = 4
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := i; n < calls; n += callers {
				var err error
				if results[n], err = kinds[n/callers%len(kinds)](t.Context(), of(n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(arguments) != calls {
		t.Errorf("%d calls, want %d", len(arguments), calls)
	}
	return results, arguments
}

// What handlers and callers keep of a call is not another call's, although much of what a call needs
// is used again.
func TestKeptValues(t *testing.T) {
	type value struct {
		Name string
		Tags []string
		Next *string
	}
	of := func(n int) value {
		name := fmt.Sprint("value ", n)
		return value{name, []string{name, "tag"}, &name}
	}
	runAll(t, func(t *testing.T, m mode) {
		results, kept := keepAll(t, m, 600, of)
		for n, v := range results {
			if diff := cmp.Diff(of(n), v); diff != "" {
				t.Error(diff)
			}
		}
		slices.SortFunc(kept, func(a, b value) int { return strings.Compare(a.Name, b.Name) })
		for i, v := range kept {
			if v.Name != *v.Next || v.Name != v.Tags[0] || v.Tags[1] != "tag" || i > 0 && v.Name == kept[i-1].Name {
				t.Errorf("the handler has kept %+v", v)
			}
		}
	})
}

// What a peer gets of a large value is its own: it may change it.
func TestLargeBytesAreOwned(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "nothing is encoded: the slice is shared")
		var srv yonder.Server
		kept := make(chan []byte, 2)
		srv.Register("keep", func(b []byte) []byte { kept <- b; return b })
		c := m.client(t, &srv)
		sent := make([]byte, 100<<10)
		got, err := yonder.Invoke[[]byte](t.Context(), c, "keep", sent)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i] = 1
		}
		if _, err := yonder.Invoke[[]byte](t.Context(), c, "keep", sent); err != nil {
			t.Fatal(err)
		}
		if string(<-kept) != string(sent) {
			t.Error("what the handler kept has changed")
		}
		if len(got) != 100<<10 || got[0] != 1 || got[len(got)-1] != 1 {
			t.Error("what the caller changed has changed again")
		}
	})
}

func TestOverflow(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		var srv yonder.Server
		srv.Register("small", func(int8) {})
		srv.Register("large", func() (string, int64) { return "a", 300 })
		srv.Register("unsigned", func(uint) {})
		c := m.client(t, &srv)
		var small func(int64) error
		c.Bind("small", &small)
		if err := small(127); err != nil {
			t.Error(err)
		}
		for _, n := range []int64{128, -129, math.MaxInt64} {
			err := small(n)
			if yonder.CodeOf(err) != yonder.InvalidArgument || m.can(t, signatures) && !strings.HasPrefix(textOf(err), `yonder: call "small": argument 1: `) || !strings.Contains(textOf(err), "int8") {
				t.Errorf("small(%d): %v (%v)", n, err, yonder.CodeOf(err))
			}
		}
		var unsigned func(int) error
		c.Bind("unsigned", &unsigned)
		if err := unsigned(-1); yonder.CodeOf(err) != yonder.InvalidArgument || !strings.Contains(textOf(err), "uint") {
			t.Errorf("unsigned(-1): %v", err)
		}
		var large func() (string, int8, error)
		c.Bind("large", &large)
		s, n, err := large()
		if s != "" || n != 0 || err == nil || m.can(t, signatures) && (!strings.HasPrefix(textOf(err), `yonder: call "large": result 2: `) || !strings.Contains(textOf(err), "int8")) || yonder.IsRemote(err) {
			t.Errorf("large: %q, %d, %v", s, n, err)
		}
	})
}

type (
	Job struct {
		Name  string
		Tasks []Task
	}
	Task struct {
		Extra any
	}
	Watched struct {
		Done chan int
	}
)

// A value that cannot be encoded is an error of its own call, which names the field.
func TestUnencodable(t *testing.T) {
	loop := &List{Value: 1}
	loop.Next = &List{Value: 2, Next: loop}
	self := map[string]any{}
	self["me"] = []any{self}
	tests := []struct {
		name string
		v    any
		want string
	}{
		{"channel", Job{Tasks: []Task{{1}, {make(chan int)}}}, "field Job.Tasks[1].Extra: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{"channel in a field", Watched{}, "field Watched.Done: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{"pointer", &Job{Tasks: []Task{{&Watched{}}}}, "field Job.Tasks[0].Extra.Done: chan int cannot cross a connection; use iter.Seq2[int, error]"},
		{"map", map[string]any{"k": 1i}, `element ["k"]: complex128 cannot cross a connection; use a struct or [2]float64`},
		{"reader", Task{struct{ R io.Reader }{strings.NewReader("")}}, "field Task.Extra.R: io.Reader cannot cross a connection; use io.Reader as an argument or result of its own"},
		{"iterator", Task{struct{ S iter.Seq[int] }{}}, "field Task.Extra.S: iter.Seq[int] cannot cross a connection; a function or an iterator travels as an argument of its own, not within another type"},
		{"function", Task{func() error { return nil }}, "field Task.Extra: func() error cannot cross a connection; a function or an iterator travels as an argument of its own, not within another type"},
		{"cyclic pointer", loop, "field List.Next.Next: cyclic pointer"},
		{"cyclic map", self, `element ["me"][0]: cyclic map`},
		{"failing method", Task{celsiusThatFails(1)}, "too cold"},
	}
	run(t, func(t *testing.T, m mode) {
		m.cannot(t, inProcess, "nothing is encoded")
		var srv yonder.Server
		result := make(chan any, 1)
		srv.Register("take", func(any) { t.Error("take was called") })
		srv.Register("give", func() any { return <-result })
		release, waiting := make(chan bool), make(chan bool)
		srv.Register("wait", func(xs iter.Seq[int]) (n int) {
			for x := range xs {
				n += x
			}
			return n
		})
		c := m.client(t, &srv)

		// A call, with a stream, is in flight all the while.
		var wait func(iter.Seq[int]) (int, error)
		c.Bind("wait", &wait)
		sum := make(chan error, 1)
		go func() { // ends with release
			n, err := wait(func(yield func(int) bool) {
				yield(1)
				close(waiting)
				<-release
				yield(2)
			})
			if n != 3 && err == nil {
				err = fmt.Errorf("the sum is %d", n)
			}
			sum <- err
		}()
		<-waiting
		for _, test := range tests {
			err := c.Call(t.Context(), yonder.NewCall("take", test.v))
			if got := textOf(err); !strings.HasPrefix(got, `yonder: call "take": argument 1: `) || !strings.HasSuffix(got, test.want) ||
				yonder.CodeOf(err) != yonder.InvalidArgument || yonder.IsRemote(err) {
				t.Errorf("%s: got %v (%v)\nwant ...%s", test.name, err, yonder.CodeOf(err), test.want)
			}
			result <- test.v
			_, err = yonder.Invoke[any](t.Context(), c, "give")
			if got := textOf(err); !strings.HasPrefix(got, `yonder: call "give": result 1: `) || !strings.HasSuffix(got, test.want) ||
				yonder.CodeOf(err) != yonder.Internal || !yonder.IsRemote(err) {
				t.Errorf("%s: got %v (%v)\nwant ...%s", test.name, err, yonder.CodeOf(err), test.want)
			}
		}
		close(release)
		if err := <-sum; err != nil {
			t.Errorf("the call in flight: %v", err)
		}
	})
}

type celsiusThatFails int

func (celsiusThatFails) MarshalText() ([]byte, error) { return nil, errors.New("too cold") }

func TestUnencodableInJSON(t *testing.T) {
	var srv yonder.Server
	srv.Register("take", func(any) { t.Error("take was called") })
	c := inJSON.client(t, &srv)
	for want, v := range map[string]any{
		"field User.Name: a string that is not UTF-8 cannot be encoded":  User{Name: "a\xff"},
		`element ["\xff"]: a string that is not UTF-8 cannot be encoded`: map[string]int{"\xff": 1},
		"field Item.Next.Price: NaN cannot be encoded":                   Item{Next: &Item{Price: math.NaN()}},
		"element [1]: +Inf cannot be encoded":                            []float32{0, float32(math.Inf(1))},
	} {
		err := c.Call(t.Context(), yonder.NewCall("take", v))
		if textOf(err) != `yonder: call "take": argument 1: `+want || yonder.CodeOf(err) != yonder.InvalidArgument {
			t.Errorf("got %v\nwant ...%s", err, want)
		}
	}
	// This is not damage: it was so.
	srv.Register("echo", func(s string, raw json.RawMessage) (string, json.RawMessage) { return s, raw })
	s, raw := "\ufffd \\ufffd", json.RawMessage(`"\ufffd"`)
	if err := c.Call(t.Context(), yonder.NewCall("echo", s, raw).Into(&s, &raw)); err != nil || s != "\ufffd \\ufffd" || string(raw) != `"\ufffd"` {
		t.Errorf("got %q, %s, %v", s, raw, err)
	}
}

// A bomb panics while it is encoded or decoded.
type bomb struct{ Where string }

func (b bomb) MarshalText() ([]byte, error) {
	if b.Where == "encode" {
		panic("boom in MarshalText")
	}
	return []byte(b.Where), nil
}

func (b *bomb) UnmarshalText(text []byte) error {
	if string(text) == "decode" {
		panic("boom in UnmarshalText")
	}
	b.Where = string(text)
	return nil
}

// On the caller's side such a panic is the caller's own, as in encoding/json; on the
// handler's side it is like a panic of the handler.
func TestPanicInMarshal(t *testing.T) {
	runAll(t, func(t *testing.T, m mode) {
		m.needs(t, streams)
		m.cannot(t, inProcess, "nothing is encoded")
		log := new(logBuffer)
		srv := yonder.Server{Logger: log.logger()}
		srv.Register("echo", func(b bomb) bomb { return b })
		srv.Register("give", func(where string) bomb { return bomb{where} })
		srv.Register("stream", func(where string) iter.Seq2[bomb, error] {
			return func(yield func(bomb, error) bool) { yield(bomb{where}, nil) }
		})
		srv.Register("size", func(bs iter.Seq2[bomb, error]) (n int, err error) {
			for _, e := range bs {
				if e != nil {
					return n, e
				}
				n++
			}
			return n, nil
		})
		srv.Register("call", func(f func(bomb) (bomb, error), b bomb) (bomb, error) { return f(b) })
		c := m.client(t, &srv)
		var echo func(bomb) (bomb, error)
		c.Bind("echo", &echo)
		var give func(string) (bomb, error)
		c.Bind("give", &give)

		internal := func(what string, err error) {
			t.Helper()
			if yonder.CodeOf(err) != yonder.Internal || strings.Contains(textOf(err), "boom") {
				t.Errorf("%s: got %v (%v), want Internal without the panic's text", what, err, yonder.CodeOf(err))
			}
		}
		if got := panicOf(func() { echo(bomb{"encode"}) }); got != "boom in MarshalText" {
			t.Errorf("an argument that panics: recovered %q", got)
		}
		_, err := echo(bomb{"decode"})
		internal("an argument that panics on arrival", err)
		_, err = give("encode")
		internal("a result that panics", err)
		if got := panicOf(func() { give("decode") }); got != "boom in UnmarshalText" {
			t.Errorf("a result that panics on arrival: recovered %q", got)
		}

		var stream func(string) (iter.Seq2[bomb, error], error)
		c.Bind("stream", &stream)
		seq, err := stream("encode")
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range seq {
			internal("a value of a stream that panics", err)
		}
		var size func(iter.Seq2[bomb, error]) (int, error)
		c.Bind("size", &size)
		for _, where := range []string{"encode", "decode"} {
			_, err = size(func(yield func(bomb, error) bool) { yield(bomb{where}, nil) })
			internal("a stream to the handler, "+where, err)
		}
		if !m.can(t, callbacks) {
			return
		}
		var call func(func(bomb) (bomb, error), bomb) (bomb, error)
		c.Bind("call", &call)
		_, err = call(func(b bomb) (bomb, error) { return bomb{"encode"}, nil }, bomb{})
		internal("a callback's result that panics", err)
		_, err = call(func(b bomb) (bomb, error) { return b, nil }, bomb{"fine"})
		if err != nil {
			t.Error(err)
		}
		if got, err := echo(bomb{"fine"}); got.Where != "fine" || err != nil {
			t.Errorf("the next call: %v, %v", got, err)
		}
		if !strings.Contains(log.String(), "boom in MarshalText") || !strings.Contains(log.String(), "boom in UnmarshalText") {
			t.Errorf("the log misses a panic:\n%s", log)
		}
	})
}

// Types that are the same in the caller's program are passed on as they are.
func TestLocalSharesValues(t *testing.T) {
	var srv yonder.Server
	var got *User
	srv.Register("keep", func(ctx context.Context, u *User) *User { got = u; return u })
	c := inProcess.client(t, &srv)
	u := &User{"Foo", 1}
	back, err := yonder.Invoke[*User](t.Context(), c, "keep", u)
	if err != nil || got != u || back != u {
		t.Errorf("kept %p, returned %p, want %p; %v", got, back, u, err)
	}
}
