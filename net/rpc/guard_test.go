package rpc

import (
	"bytes"
	"encoding/gob"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var updateCorpus = flag.Bool("update", false, "rewrite the corpus of FuzzGuard")

// guardTree has all that gob has, and itself.
type guardTree struct {
	Bool    bool
	Int     int
	Float   float64
	Complex complex128
	Bytes   []byte
	Name    string
	Time    time.Time // has an encoding of its own
	Array   [3]uint16
	Ints    []int
	Names   map[string][]string
	Any     any
	Anys    []any
	ByKey   map[guardKey]any
	Next    *guardTree
	Trees   []guardTree
}

type guardKey struct{ A, B int }

type guardLeaf struct{ Any any }

type guardOther struct {
	Leaf  guardLeaf
	Table map[string]int
}

// guardHolder has a collection of what may be nil.
type guardHolder struct{ Anys []any }

// guardNames has one of guardTree's fields: the others are passed over.
type guardNames struct{ Name string }

// guardGob tells gob of the types that interfaces hold here. Twice is allowed.
func guardGob() {
	gob.Register(guardKey{})
	gob.Register(guardLeaf{})
	gob.Register(guardOther{})
	gob.Register(guardHolder{})
	for _, v := range []any{
		[]guardHolder{}, []*guardHolder{}, [][2]guardHolder{}, [2][1]guardHolder{}, map[string]guardHolder{}, map[guardKey]guardHolder{},
		map[time.Time][]guardHolder{}, map[netip.Addr]guardHolder{}, []guardTree{},
	} {
		gob.Register(v)
	}
	gob.Register(map[string]any{})
	gob.Register([]any{})
}

func guardTrees() []guardTree {
	deep := new(guardTree)
	for range 50 {
		deep = &guardTree{Name: "deep", Next: deep}
	}
	return []guardTree{
		{},
		{Bool: true, Int: -5, Float: 1.5, Complex: 2i, Bytes: []byte("bytes"), Name: "name", Time: time.Unix(1, 2).UTC()},
		{Array: [3]uint16{1, 0, 65535}, Ints: []int{1, -1, 1 << 30}, Names: map[string][]string{"a": {"b", ""}, "c": nil}},
		{Any: 1, Anys: []any{"x", 2, nil, guardKey{1, 2}}},
		{Any: guardLeaf{guardOther{guardLeaf{map[string]any{"k": guardKey{3, 4}}}, map[string]int{"x": 1}}}, Name: "behind"},
		{Anys: []any{guardLeaf{[]any{guardLeaf{guardKey{}}, guardOther{}}}, guardOther{Table: map[string]int{"y": 2}}, 7}, Ints: []int{1}},
		{ByKey: map[guardKey]any{{1, 2}: "v", {3, 4}: guardLeaf{5}}},
		{Any: guardHolder{[]any{nil, 1, guardHolder{[]any{nil}}}}, Name: "holder"},
		{Any: []any{nil, map[string]any{"nil": nil}}, Name: "nils"},
		{Trees: []guardTree{{Name: "1"}, {Trees: []guardTree{{Any: guardLeaf{}}}}}},
		*deep,
		{Bytes: make([]byte, 70_000), Name: strings.Repeat("long", 5_000)},
	}
}

// guardStream encodes values, each alone or all on one stream.
func guardStream(tb testing.TB, values ...any) []byte {
	tb.Helper()
	guardGob()
	var b bytes.Buffer
	enc := gob.NewEncoder(&b)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Bytes()
}

// TestGuardPasses has values come through a guard as without one, however they are cut up.
func TestGuardPasses(t *testing.T) {
	var all []any
	for _, tree := range guardTrees() {
		all = append(all, tree)
	}
	streams := [][]byte{guardStream(t, all...)}
	for _, v := range all {
		streams = append(streams, guardStream(t, v))
	}
	for i, stream := range streams {
		for name, r := range map[string]io.Reader{
			"whole": bytes.NewReader(stream), "by bytes": iotest.OneByteReader(bytes.NewReader(stream)),
		} {
			t.Run(fmt.Sprintf("%d %s", i, name), func(t *testing.T) {
				plain, guarded := gob.NewDecoder(bytes.NewReader(stream)), newGobDecoder(r, 0)
				for {
					var want, got guardTree
					wantErr, gotErr := plain.Decode(&want), guarded.decode(&got)
					if diff := cmp.Diff(want, got); diff != "" || wantErr != gotErr {
						t.Fatalf("%v, %v without a guard\n%s", gotErr, wantErr, diff)
					}
					if wantErr != nil {
						break
					}
				}
			})
		}
	}
}

// TestGuardMendsLengths has interfaces passed over within which types are defined. gob
// itself loses its place there, because it goes by the first part's length.
func TestGuardMendsLengths(t *testing.T) {
	for i, tree := range guardTrees() {
		d := newGobDecoder(bytes.NewReader(guardStream(t, tree)), 0)
		var got guardNames
		if err := d.decode(&got); err != nil || got.Name != tree.Name {
			t.Errorf("%d: %q, %v; want %q", i, got.Name, err, tree.Name)
		}
	}
}

// guardMessage makes a message of a type number and a body.
func guardMessage(id int64, body ...byte) []byte {
	n := uint64(id) << 1
	if id < 0 {
		n = uint64(^id)<<1 | 1
	}
	content := append(appendUint(nil, n), body...)
	return append(appendUint(nil, uint64(len(content))), content...)
}

// guardBomb is a value of guardTree or guardOther of which one field's count is huge.
func guardBomb(tb testing.TB, v any) []byte {
	const marker = 0x77
	stream := guardStream(tb, v)
	at := bytes.LastIndexByte(stream, marker)
	last := 0 // where the last message begins
	for i := 0; i < len(stream); {
		c := cursor{b: stream, i: i}
		n := int(c.uint())
		last, i = i, c.i+n
	}
	if at < last {
		tb.Fatal("the marker is not in the value")
	}
	c := cursor{b: stream, i: last}
	c.uint()
	content := append(append(append([]byte{}, stream[c.i:at]...), 0xfc, 0x10, 0, 0, 0), stream[at+1:]...)
	return append(append(stream[:last:last], appendUint(nil, uint64(len(content)))...), content...)
}

// guardBombs claim what they do not have. The marker is the length of what has the count.
func guardBombs(tb testing.TB) map[string][]byte {
	table := make(map[string]int)
	names := make(map[string][]string)
	for i := range 0x77 {
		table[fmt.Sprint(i)] = 1
		names[fmt.Sprint(i)] = nil
	}
	return map[string][]byte{
		"map":                guardBomb(tb, guardOther{Table: table}),
		"map of slices":      guardBomb(tb, guardTree{Names: names}),
		"slice":              guardBomb(tb, guardTree{Ints: make([]int, 0x77)}),
		"slice of structs":   guardBomb(tb, guardTree{Trees: make([]guardTree, 0x77)}),
		"slice of any":       guardBomb(tb, guardTree{Anys: make([]any, 0x77)}),
		"map in an any":      guardBomb(tb, guardTree{Any: guardOther{Table: table}}),
		"map in a map":       guardBomb(tb, guardTree{ByKey: map[guardKey]any{{}: guardOther{Table: table}}}),
		"huge length":        {0xfc, 0x3f, 0xff, 0xff, 0xff, 2, 0, 1},
		"absurd length":      {0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"length of a length": {0x80, 1, 2, 3},
		"huge definition":    append([]byte{0xfc, 0x3f, 0xff, 0xff, 0xff}, 0xff, 0x81, 3),
	}
}

// TestGuardRefuses bounds what lies cost.
func TestGuardRefuses(t *testing.T) {
	for name, stream := range guardBombs(t) {
		t.Run(name, func(t *testing.T) {
			d := newGobDecoder(bytes.NewReader(stream), 0)
			var tree guardTree
			into := any(&tree)
			if name == "map" {
				into = new(guardOther)
			}
			var err error
			if spent := allocated(func() { err = d.decode(into) }); spent > 1<<20 {
				t.Errorf("it cost %d bytes of memory", spent)
			}
			if err == nil {
				t.Errorf("%d bytes were accepted: %+v", len(stream), tree)
			}
		})
	}
	t.Run("nesting", func(t *testing.T) {
		stream := guardStream(t, guardTree{Next: new(guardTree)})
		c := cursor{b: stream}
		last := 0
		for c.i < len(stream) {
			last = c.i
			c.i += int(c.uint())
		}
		id := (&cursor{b: stream, i: last + 1}).int()
		field := byte(reflect.TypeFor[guardTree]().NumField() - 1) // Next, counted from one
		for _, depth := range []int{maxNesting - 1, maxNesting, 5_000_000} {
			deep := append(stream[:last:last], guardMessage(id, bytes.Repeat([]byte{field}, depth)...)...)
			d := newGobDecoder(bytes.NewReader(deep), 0)
			err := d.decode(new(guardTree))
			if e, ok := errors.AsType[*messageError](err); ok != (depth >= maxNesting) || ok && !strings.Contains(e.text, "nested deeper than 50000 levels") || !ok && err != nil {
				t.Errorf("%d deep: %v", depth, err)
			}
		}
	})
	t.Run("nesting behind definitions", func(t *testing.T) {
		deep := new(guardTree)
		for range maxNesting {
			deep = &guardTree{Next: deep}
		}
		leaf := guardLeaf{guardKey{1, 2}}
		d := newGobDecoder(bytes.NewReader(guardStream(t, guardTree{Any: leaf, Next: deep}, guardTree{Any: leaf})), 0)
		if err := d.decode(new(guardTree)); textOf(err) != errNested.Error() {
			t.Errorf("%v; want %v", err, errNested)
		}
		var got guardTree
		if err := d.decode(&got); err != nil || got.Any != any(leaf) {
			t.Errorf("the next value: %+v, %v", got, err)
		}
	})
	t.Run("definitions", func(t *testing.T) {
		var stream []byte
		for i := range 100_000 {
			def := []byte{2, 1, 1, 1, 'S', 0, 1, 4, 0, 0} // a slice of ints
			stream = append(stream, guardMessage(-int64(gobUser+i), def...)...)
		}
		g := newGuard(bytes.NewReader(stream), 0)
		if _, err := io.Copy(io.Discard, guardReader{g}); err == nil || !strings.Contains(err.Error(), "definitions") {
			t.Errorf("%d bytes of definitions: %v", len(stream), err)
		}
	})
}

// guardReader hides the guard's other methods.
type guardReader struct{ io.Reader }

// guardExtra is what guardTable lacks a field of.
type guardExtra struct {
	Extra []any
	Table map[string]int
}

type guardTable struct{ Table map[string]int }

// guardHidden is a guardExtra that is true, but of which a decoder that passes over Extra
// sees, behind the nil in that, a table of a million.
func guardHidden(tb testing.TB) []byte {
	stream := guardStream(tb, guardExtra{Extra: []any{1}, Table: map[string]int{"x": 1}})
	last := 0
	for i := 0; i < len(stream); {
		c := cursor{b: stream, i: i}
		n := int(c.uint())
		last, i = i, c.i+n
	}
	c := cursor{b: stream, i: last}
	c.uint()
	id := c.int()
	return append(stream[:last:last], guardMessage(id,
		1, 2, // Extra, of two:
		0,                                                  // nil
		10, 0, 0, 6, 0, 1, 0xfd, 0x10, 0, 0, 0, 4, 3, 0, 2, // a name of ten bytes, and an int; or: type 5, no bytes, nil, type 3, no bytes, Table, a million
		0, // that is all; or
	)...)
}

// TestGuardNils has nil interfaces come through where gob decodes them, and where it passes over
// them, which alone it gets wrong.
func TestGuardNils(t *testing.T) {
	decode := func(stream []byte, into any) (err error) {
		d := newGobDecoder(bytes.NewReader(stream), 0)
		if spent := allocated(func() { err = d.decode(into) }); spent > 4<<20 {
			t.Errorf("into %T: it cost %d bytes of memory", into, spent)
		}
		return err
	}
	hidden := guardHidden(t)
	var table guardTable
	for _, into := range []any{&table, nil} {
		if err := decode(hidden, into); err != nil || table.Table != nil {
			t.Errorf("into %T: %v, %v; want nothing", into, err, table)
		}
	}
	holder := guardHolder{[]any{nil, 1, nil}}
	for _, v := range []any{
		guardExtra{Extra: []any{nil, 1, nil}, Table: map[string]int{"x": 1}},
		holder,
		guardTree{Next: &guardTree{Anys: []any{nil}}},
		guardTree{Anys: []any{nil, []any{nil}, map[string]any{"nil": nil}}},
		guardTree{Any: holder},
		guardTree{Any: []guardHolder{holder, {}, holder}},
		guardTree{Any: []*guardHolder{&holder}},
		guardTree{Any: [][2]guardHolder{{holder, holder}}},
		guardTree{Any: [2][1]guardHolder{{holder}, {holder}}},
		guardTree{Any: map[string]guardHolder{"k": holder}},
		guardTree{Any: map[guardKey]guardHolder{{1, 2}: holder}},
		guardTree{Any: map[time.Time][]guardHolder{time.Unix(1, 2).UTC(): {holder}}},
		guardTree{Any: map[netip.Addr]guardHolder{netip.MustParseAddr("::1"): holder}},
		guardTree{Any: []guardTree{{Any: []guardHolder{holder}, Trees: []guardTree{{Anys: []any{nil}}}}}},
		guardTree{Anys: []any{holder, guardLeaf{[]guardHolder{holder}}}, Name: "behind"},
	} {
		stream := guardStream(t, v, guardNames{"next"})
		for _, passed := range []bool{false, true} {
			into, next := reflect.New(reflect.TypeOf(v)), guardNames{}
			place := into.Interface()
			if passed {
				place = nil
			}
			d := newGobDecoder(bytes.NewReader(stream), 0)
			if err := errors.Join(d.decode(place), d.decode(&next)); err != nil || next.Name != "next" {
				t.Errorf("%+v into %T: %v, and %q comes next", v, place, err, next.Name)
			}
			if got := into.Elem().Interface(); !passed && !reflect.DeepEqual(v, got) {
				t.Errorf("%+v became %+v", v, got)
			}
		}
	}
	for name, want := range map[string]reflect.Type{
		"github.com/yonder-rpc/yonder/net/rpc.guardHolder": reflect.TypeFor[guardHolder](),
		"int":          nil,
		"no such type": nil,
		"":             nil,
	} {
		// of number 65, a struct, and an empty value
		if got := registered([]byte(name), []byte{0xff, 0x81, 3, 0, 0, 4, 0xff, 0x82, 1, 0}); got != want {
			t.Errorf("gob knows a struct %v by the name %q; want %v", got, name, want)
		}
	}
}

// TestGuardNilUnknown has a nil interface refused where nobody can know whether gob passes over it,
// and the definitions of types before it not be lost.
func TestGuardNilUnknown(t *testing.T) {
	leaf, holder := guardLeaf{guardKey{1, 2}}, guardHolder{[]any{nil}}
	stream := guardStream(t, guardTree{Anys: []any{leaf, holder, guardOther{}}}, guardTree{Any: leaf}, guardTree{Any: guardOther{Leaf: leaf}})
	stream = bytes.ReplaceAll(stream, []byte("rpc.guardHolder"), []byte("rpc.guardUnheard"[:len("rpc.guardHolder")]))
	want := []guardTree{{}, {Any: leaf}, {Any: guardOther{Leaf: leaf}}}
	d := newGobDecoder(bytes.NewReader(stream), 0)
	g := newGuard(bytes.NewReader(stream), 0)
	late := newLateDecoder(g, nil)
	for i := range want {
		var got, gotLate guardTree
		err := d.decode(&got)
		g.want = wantOf(&gotLate)
		held, defs, errLate := g.hold()
		if value := late.define(held, defs); errLate == nil {
			errLate = late.decode(value, &gotLate)
		}
		for _, err := range []error{err, errLate} {
			if e, ok := errors.AsType[*messageError](err); ok != (i == 0) || ok && !strings.Contains(e.text, "nil interface") || !ok && err != nil {
				t.Errorf("value %d: %v", i, err)
			}
		}
		if diff := cmp.Diff(want[i], got) + cmp.Diff(want[i], gotLate); diff != "" {
			t.Errorf("value %d:\n%s", i, diff)
		}
	}
}

// TestGuardManyNils has so many nil interfaces thrown away that what is put in their place would be
// many times the message.
func TestGuardManyNils(t *testing.T) {
	stream := guardStream(t, guardTree{Anys: make([]any, 1<<20)}, guardTree{Name: "next"})
	d := newGobDecoder(bytes.NewReader(stream), 0)
	var err error
	spent := allocated(func() { err = d.decode(nil) })
	if e, ok := errors.AsType[*messageError](err); !ok || !strings.Contains(e.text, "nil interface") {
		t.Errorf("thrown away: %v", err)
	}
	if spent > 32<<20 {
		t.Errorf("a message of %d bytes took %d", len(stream), spent)
	}
	var next guardTree
	if err := d.decode(&next); err != nil || next.Name != "next" {
		t.Errorf("the next value: %v, %+v", err, next)
	}
}

// TestGuardShapes has types of which no value is, or only a large one.
func TestGuardShapes(t *testing.T) {
	types := map[int64]*wireType{
		100: {kind: kindArray, elem: 100, size: 2},
		101: {kind: kindArray, elem: 102, size: 1 << 62},
		102: {kind: kindArray, elem: 103, size: 1 << 62},
		103: {kind: kindStruct, fields: []int64{gobInterface}, names: []string{"Any"}},
		104: {kind: kindMap, key: 105, elem: 104},
		106: {kind: kindSlice, elem: 106},
		107: {kind: kindArray, elem: 103, size: maxEmpty + 1},
	}
	for i := range int64(2 * maxShape) {
		types[200+i] = &wireType{kind: kindSlice, elem: 201 + i}
	}
	for id := range types {
		g := &guard{types: types}
		var got want
		if spent := allocated(func() { got = g.held([]byte("[]interface {}"), id) }); got != (want{}) || spent > 1<<20 {
			t.Errorf("type %d: %v, for %d bytes of memory", id, got, spent)
		}
	}
	g := &guard{types: types}
	for i := range 2 * maxLocals {
		g.held(fmt.Append(nil, "name", i), 103)
	}
	if len(g.locals) > maxLocals {
		t.Errorf("%d names are kept", len(g.locals))
	}
}

// TestGuardTrust has a large message be read in few pieces where as much has come before, and a length
// alone cost no more than eight times that.
func TestGuardTrust(t *testing.T) {
	const size = 1 << 20
	message := make([]byte, size)
	stream := guardStream(t, message, message)
	r := &countedReads{r: bytes.NewReader(stream)}
	d := newGobDecoder(r, 0)
	var reads [2]int
	for i := range reads {
		before := r.n
		var got []byte
		if err := d.decode(&got); err != nil || len(got) != size {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		reads[i] = r.n - before
	}
	if reads[0] < 5 || reads[1] > 3 {
		t.Errorf("%v reads; want the first to take memory as it comes, and not the second", reads)
	}
	for _, claim := range []struct{ size, most uint64 }{{7 * size, 8*size + 4*size}, {9 * size, 4 * size}, {512 * size, 4 * size}} {
		claimed := append(stream[:len(stream)/2:len(stream)/2], appendUint(nil, claim.size)...)
		claimed = append(claimed, stream[len(stream)/2+4:][:20]...)
		d := newGobDecoder(bytes.NewReader(claimed), 0)
		var got []byte
		if err := d.decode(&got); err != nil {
			t.Fatal(err)
		}
		if spent := allocated(func() {
			if err := d.decode(&got); err == nil {
				t.Error("what has not come was decoded")
			}
		}); spent > claim.most {
			t.Errorf("a length of %d bytes behind %d cost %d", claim.size, size, spent)
		}
	}
}

// countedReads counts reads.
type countedReads struct {
	r io.Reader
	n int
}

func (c *countedReads) Read(p []byte) (int, error) {
	c.n++
	return c.r.Read(p)
}

// TestGuardGoesOn reads on behind a value that was refused.
func TestGuardGoesOn(t *testing.T) {
	stream := guardStream(t, guardNames{"small"}, guardNames{strings.Repeat("large", 1000)}, guardNames{"small again"})
	d := newGobDecoder(bytes.NewReader(stream), 1000)
	var got []string
	for {
		var n guardNames
		err := d.decode(&n)
		if err == io.EOF {
			break
		}
		if e, ok := errors.AsType[*messageError](err); ok && e.size {
			n.Name = "refused"
		} else if err != nil {
			t.Fatal(err)
		}
		got = append(got, n.Name)
	}
	if diff := cmp.Diff([]string{"small", "refused", "small again"}, got); diff != "" {
		t.Error(diff)
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzGuard checks that whatever comes in, what the guard lets through costs little to
// decode, panics nobody, and would be let through again as it is.
func FuzzGuard(f *testing.F) {
	guardGob()
	if *updateCorpus {
		writeCorpus(f)
	}
	const limit = 1 << 20
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 1<<16 {
			t.Skip("too long to be of use")
		}
		for _, into := range []func() any{
			func() any { return new(guardTree) },
			func() any { return new(guardOther) },
			func() any { return new(guardTable) },
			func() any { return nil },
		} {
			spent := allocated(func() {
				d := newGobDecoder(bytes.NewReader(stream), limit)
				for range 100 {
					if d.decode(into()) != nil {
						break
					}
				}
			})
			if spent > 64<<20 {
				t.Errorf("%d bytes cost %d bytes of memory", len(stream), spent)
			}
		}
		once, _ := io.ReadAll(guardReader{newGuard(bytes.NewReader(stream), 0)})
		twice, err := io.ReadAll(guardReader{newGuard(bytes.NewReader(once), 0)})
		if err != nil && err != io.ErrUnexpectedEOF || !bytes.Equal(once, twice) {
			t.Errorf("let through the first time:\n%x\nand the second, %v:\n%x", once, err, twice)
		}
	})
}

// writeCorpus writes what a fuzzer would take long to find.
func writeCorpus(f *testing.F) {
	dir := filepath.Join("testdata", "fuzz", "FuzzGuard")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.Fatal(err)
	}
	inputs := guardBombs(f)
	inputs["hidden"] = guardHidden(f)
	for i, tree := range guardTrees() {
		if len(tree.Bytes) < 1000 {
			inputs[fmt.Sprintf("tree %d", i)] = guardStream(f, tree)
		}
	}
	inputs["header"] = guardStream(f, &Request{ServiceMethod: "Math.Add", Seq: 1}, 1, &requestHeader{"Math.Add", 2, 3, []string{"k", "v"}, 1}, 2)
	for name, input := range inputs {
		text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", input)
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, " ", "-")), []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
}

// Only what gob nests counts as nested: of a list, that is a level a node.
func TestNesting(t *testing.T) {
	type node struct {
		Value int
		Next  *node
	}
	list := func(n int) (l *node) {
		for i := range n {
			l = &node{i, l}
		}
		return l
	}
	var loop pointers
	loop = &loop
	inner := any(1)
	for range maxLevels / 2 {
		inner = []any{inner}
	}
	for _, test := range []struct {
		name  string
		value any
		bad   bool
	}{
		{"list", list(maxLevels), false},
		{"longer list", list(maxLevels + 1), true},
		{"lists", []*node{list(maxLevels - 1), list(maxLevels - 1)}, false},
		{"anys", inner, false},
		{"more anys", []any{inner}, true},
		{"pointer to itself", loop, true},
	} {
		if err := nesting(reflect.ValueOf(test.value), maxLevels); (err != nil) != test.bad {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// pointers is a type of pointers to pointers without end.
type pointers *pointers

// TestLate decodes values in another order than they came in, and some never: definitions of
// types are not lost with them.
func TestLate(t *testing.T) {
	guardGob()
	type other struct{ N int }
	stream := guardStream(t, guardNames{"one"}, 2, other{3}, guardNames{"four"}, guardTree{Any: guardKey{5, 5}}, other{6}, guardTree{Any: guardLeaf{guardKey{7, 7}}})
	for _, order := range [][]int{{0, 1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1, 0}, {3}, {5, 2}, {6, 3, 5}, {}} {
		g := newGuard(bytes.NewReader(stream), 0)
		late := newLateDecoder(g, nil)
		places := []any{new(guardNames), new(int), new(other), new(guardNames), new(guardTree), new(other), new(guardTree)}
		var values []lateValue
		for _, into := range places {
			g.want = wantOf(into)
			held, defs, err := g.hold()
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, late.define(held, defs))
		}
		if _, _, err := g.hold(); err != io.EOF {
			t.Errorf("after the last value: %v", err)
		}
		want := []any{&guardNames{"one"}, new(2), &other{3}, &guardNames{"four"}, &guardTree{Any: guardKey{5, 5}}, &other{6}, &guardTree{Any: guardLeaf{guardKey{7, 7}}}}
		for _, i := range order {
			if err := late.decode(values[i], places[i]); err != nil {
				t.Errorf("%v: value %d: %v", order, i, err)
			} else if !reflect.DeepEqual(want[i], places[i]) {
				t.Errorf("%v: value %d: %+v", order, i, places[i])
			}
		}
	}
}
