package yonder

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder/internal/plain"
)

type (
	smallValue struct {
		ID    int64
		Name  string
		Tags  []string
		Score float64
	}
	largeValue struct {
		Title  string
		Owner  *smallValue
		Parts  []smallValue
		Grid   [4][4]float32
		Digest [32]byte
		Body   []byte
		Counts []int
		Open   bool
	}
)

var aSmallValue = smallValue{1 << 40, "sixteen letters.", []string{"red", "green"}, 0.25}

func aLargeValue() largeValue {
	v := largeValue{Title: "a larger one", Owner: &aSmallValue, Body: make([]byte, 300), Open: true}
	for i := range 20 {
		v.Parts = append(v.Parts, smallValue{int64(i), fmt.Sprint("part ", i), []string{"a", "b", "c"}, float64(i) / 3})
		v.Counts = append(v.Counts, i*i*i)
	}
	return v
}

// BenchmarkPlain compares what plain values take with and without package plain.
func BenchmarkPlain(b *testing.B) {
	b.Run("small", func(b *testing.B) { benchPlain(b, aSmallValue) })
	b.Run("large", func(b *testing.B) { benchPlain(b, aLargeValue()) })
	b.Run("unknown", func(b *testing.B) { // one field of four
		var data bytes.Buffer
		if err := CBOR.Encode(&data, aSmallValue); err != nil {
			b.Fatal(err)
		}
		var into struct {
			ID    int64
			Tags  []string
			Score float64
		}
		b.ReportAllocs()
		for b.Loop() {
			into.ID, into.Tags, into.Score = 0, nil, 0
			if _, err := CBOR.Decode(data.Bytes(), &into); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchPlain[T any](b *testing.B, v T) {
	library := CBOR.(*cborCodec)
	var data bytes.Buffer
	if err := library.Encode(&data, v); err != nil {
		b.Fatal(err)
	}
	run := func(name string, f func() bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !f() {
					b.Fatal("failed")
				}
			}
		})
	}
	var buf bytes.Buffer
	boxed := any(v)
	run("encode", func() bool { buf.Reset(); return plain.Encode(&buf, &v) })
	run("encode/copied", func() bool { buf.Reset(); return plain.Encode(&buf, boxed) })
	run("encode/library", func() bool { buf.Reset(); return library.enc.MarshalToBuffer(boxed, &buf) == nil })
	into := new(T)
	run("decode", func() bool {
		*into = *new(T)
		_, ok := plain.Decode(data.Bytes(), into)
		return ok
	})
	run("decode/library", func() bool {
		*into = *new(T)
		_, err := library.dec.UnmarshalFirst(data.Bytes(), into)
		return err == nil
	})
}

// encodeLikeLibrary encodes v both ways and compares. It reports whether v is plain.
func encodeLikeLibrary(t *testing.T, v any) bool {
	t.Helper()
	var fast, slow bytes.Buffer
	fast.WriteString("before")
	slow.WriteString("before")
	ok := plain.Encode(&fast, v)
	if !ok {
		if fast.String() != "before" {
			t.Fatalf("%T: refused, but it wrote %x", v, fast.Bytes())
		}
		return false
	}
	if err := CBOR.(*cborCodec).enc.MarshalToBuffer(v, &slow); err != nil || !bytes.Equal(fast.Bytes(), slow.Bytes()) {
		t.Fatalf("%T %+v:\n got %x\nwant %x, %v", v, v, fast.Bytes(), slow.Bytes(), err)
	}
	return true
}

// decodeLikeLibrary decodes data both ways into what old makes, and compares. It reports whether
// the fast path took it.
func decodeLikeLibrary(t *testing.T, data []byte, old func() reflect.Value) bool {
	t.Helper()
	fast, slow := old(), old()
	rest, ok := plain.Decode(data, fast.Interface())
	if !ok {
		if !identical(fast, slow) {
			t.Fatalf("%v: %x was refused, but left %+v, not %+v", fast.Type(), data, fast.Elem(), slow.Elem())
		}
		return false
	}
	want, err := CBOR.(*cborCodec).dec.UnmarshalFirst(data, slow.Interface())
	if err != nil || !bytes.Equal(rest, want) || !identical(fast, slow) {
		t.Fatalf("%v: %x:\n got %+v, rest %x\nwant %+v, rest %x, %v", fast.Type(), data, fast.Elem(), rest, slow.Elem(), want, err)
	}
	encodeLikeLibrary(t, fast.Interface())
	return true
}

// identical compares plain values to the bits of floats, nil slices, and capacities.
func identical(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Pointer:
		return a.IsNil() == b.IsNil() && (a.IsNil() || identical(a.Elem(), b.Elem()))
	case reflect.Slice:
		if a.IsNil() != b.IsNil() || a.Len() != b.Len() || a.Cap() != b.Cap() {
			return false
		}
		a, b = a.Slice(0, a.Cap()), b.Slice(0, b.Cap())
		fallthrough
	case reflect.Array:
		for i := range a.Len() {
			if !identical(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		for i := range a.NumField() {
			if !identical(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Float32, reflect.Float64:
		return math.Float64bits(a.Float()) == math.Float64bits(b.Float())
	}
	return a.Comparable() && a.Equal(b) || a.IsZero() && b.IsZero()
}

type (
	plainName string
	plainByte uint8
	plainAny  struct {
		B   bool `json:"b"`
		I   int
		I8  int8    `cbor:"i8" json:"other"`
		U16 uint16  `json:",omitempty"`
		U   uint64  `json:"u,omitempty"`
		F   float32 `json:"f,omitempty"`
		//lint:ignore SA5008 the tag of a field whose name is "-", on purpose
		N    plainName `json:"-,"`
		Skip chan int  `json:"-"`
		//lint:ignore U1000 a field that is not exported is passed over
		home int
		Raw  []byte `json:"raw,omitempty"`
		Own  []plainByte
		Arr  [3]plainByte
		P    **int `json:",omitempty"`
		L    [][]int16
		A    [2]struct{ X, x int }
		S    []struct{}
		T    time.Duration
	}
	plainBits struct {
		F float64
		A [2]float32
		P *float64
	}
)

// plainTypes are decoded by fuzzing.
var plainTypes = []reflect.Type{
	reflect.TypeFor[smallValue](), reflect.TypeFor[largeValue](), reflect.TypeFor[plainAny](), reflect.TypeFor[plainBits](),
	reflect.TypeFor[int8](), reflect.TypeFor[uint32](), reflect.TypeFor[int64](), reflect.TypeFor[uint64](),
	reflect.TypeFor[float32](), reflect.TypeFor[float64](), reflect.TypeFor[bool](), reflect.TypeFor[string](),
	reflect.TypeFor[[]byte](), reflect.TypeFor[[2]byte](), reflect.TypeFor[[0]byte](), reflect.TypeFor[[0]int](), reflect.TypeFor[[]string](),
	reflect.TypeFor[[]*smallValue](), reflect.TypeFor[***int](), reflect.TypeFor[[][][]int8](), reflect.TypeFor[[]struct{}](),
	reflect.TypeFor[[2][]plainName](), reflect.TypeFor[struct{}](),
}

var plainScalars = []reflect.Type{
	reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[int16](), reflect.TypeFor[int32](),
	reflect.TypeFor[int64](), reflect.TypeFor[uint](), reflect.TypeFor[uint8](), reflect.TypeFor[uint16](), reflect.TypeFor[uint32](),
	reflect.TypeFor[uint64](), reflect.TypeFor[float32](), reflect.TypeFor[float64](), reflect.TypeFor[string](),
	reflect.TypeFor[plainName](), reflect.TypeFor[plainByte](), reflect.TypeFor[time.Duration](),
}

// randomType returns a type that is plain.
func randomType(r *rand.Rand, depth int) reflect.Type {
	kind := r.IntN(8)
	if depth == 0 {
		kind = 0
	}
	switch kind {
	case 0, 1, 2:
		return plainScalars[r.IntN(len(plainScalars))]
	case 3:
		return reflect.SliceOf(randomType(r, depth-1))
	case 4:
		return reflect.ArrayOf(r.IntN(4), randomType(r, depth-1))
	case 5:
		return reflect.PointerTo(randomType(r, depth-1))
	}
	tags := []string{"", `json:"-"`, `json:"n%d"`, `cbor:"n%d" json:"-"`, `json:"N%d"`, `json:",omitempty"`, `cbor:"o%d,omitempty"`, `json:"näme %d and more than 23 bytes"`}
	fields := make([]reflect.StructField, r.IntN(6))
	if r.IntN(20) == 0 {
		fields = make([]reflect.StructField, 20+r.IntN(45)) // 64 are plain
	}
	for i := range fields {
		tag := tags[r.IntN(len(tags))]
		if strings.Contains(tag, "%") {
			tag = fmt.Sprintf(tag, i)
		}
		fields[i] = reflect.StructField{Name: fmt.Sprint("F", i), Type: randomType(r, depth-1), Tag: reflect.StructTag(tag)}
		if k := fields[i].Type.Kind(); (k == reflect.Struct || k == reflect.Array) && strings.Contains(tag, "omit") {
			fields[i].Tag = ""
		}
	}
	return reflect.StructOf(fields)
}

// randomize sets v to something random.
func randomize(r *rand.Rand, v reflect.Value) {
	bits := r.Uint64() >> r.IntN(64)
	if r.IntN(4) == 0 {
		bits = 0
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(bits&1 > 0)
	case reflect.String:
		b := make([]byte, bits%40) // hardly ever UTF-8
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		v.SetString(string(b))
	case reflect.Float32, reflect.Float64:
		special := []float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), 1, 0.1, math.MaxFloat32, math.SmallestNonzeroFloat32}
		v.SetFloat(special[r.IntN(len(special))])
		if r.IntN(2) == 0 {
			v.SetFloat(math.Float64frombits(r.Uint64()))
		}
	case reflect.Pointer:
		if bits > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			randomize(r, v.Elem())
		}
	case reflect.Slice:
		if n := r.IntN(5); n > 0 {
			n--
			if r.IntN(20) == 0 {
				n = 300
			}
			v.Set(reflect.MakeSlice(v.Type(), n, n+r.IntN(2)))
		}
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			randomize(r, v.Index(i))
			if i > 20 && v.Index(i).Kind() != reflect.Uint8 {
				break
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				randomize(r, v.Field(i))
			}
		}
	default:
		if v.CanInt() {
			v.SetInt(int64(bits) >> 1 * int64(1-2*r.IntN(2)))
		} else if v.CanUint() {
			v.SetUint(bits)
		}
	}
}

// TestPlainLikeLibrary compares values of random types, there and back, and damaged on the way.
func TestPlainLikeLibrary(t *testing.T) {
	const seed = 1
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	r := rand.New(rand.NewPCG(seed, seed))
	fast, damaged := 0, 0
	for range rounds {
		typ := randomType(r, 4)
		zero := func() reflect.Value { return reflect.New(typ) }
		for range 5 {
			v := zero()
			randomize(r, v.Elem())
			if !encodeLikeLibrary(t, v.Interface()) || !encodeLikeLibrary(t, v.Elem().Interface()) {
				t.Fatalf("%v is not plain", typ)
			}
			var buf bytes.Buffer
			if !plain.Encode(&buf, v.Interface()) {
				t.Fatal(typ)
			}
			data := append(buf.Bytes(), "rest"...)
			if decodeLikeLibrary(t, data, zero) {
				fast++
			}
			random := r.Uint64()
			set := func() reflect.Value { // the same again and again
				v := zero()
				randomize(rand.New(rand.NewPCG(random, 0)), v.Elem())
				return v
			}
			decodeLikeLibrary(t, data, set)
			decodeLikeLibrary(t, data, func() reflect.Value { return reflect.New(plainTypes[random%uint64(len(plainTypes))]) })
			for range 5 {
				bad := bytes.Clone(data[:buf.Len()])
				switch at := r.IntN(len(bad)); r.IntN(4) {
				case 0:
					bad = bad[:at]
				case 1:
					bad = slices.Delete(bad, at, at+1)
				case 2:
					bad[at] ^= 1 << r.IntN(8)
				case 3:
					bad[at] = []byte{0xf6, 0xf7, 0xa0, 0x80, 0xbf, 0x9f, 0xff, 0xc1, 0x1b, 0xf9, 0x60, 0x40}[r.IntN(12)]
				}
				if decodeLikeLibrary(t, bad, zero) {
					damaged++
				}
				decodeLikeLibrary(t, bad, set)
			}
		}
	}
	t.Logf("of %d values, %d were decoded fast; of five damaged ones each, %d", 5*rounds, fast, damaged)
	if fast < 2*rounds {
		t.Error("too few to show anything")
	}
}

// These types are the library's.
type (
	plainLoop   struct{ Next *plainLoop }
	plainLevel  int // text by the pointer's method
	plainReader int // reads text, and does not write it
	plainTagged struct {
		_ struct{} `cbor:",toarray"`
		A int
	}
)

func (*plainLevel) MarshalText() ([]byte, error) { return []byte("level"), nil }
func (*plainReader) UnmarshalText([]byte) error  { return nil }

func TestNotPlain(t *testing.T) {
	var many []reflect.StructField
	for i := range 65 {
		many = append(many, reflect.StructField{Name: fmt.Sprint("F", i), Type: reflect.TypeFor[int]()})
	}
	for _, v := range []any{
		nil, map[string]int{}, []any{1}, struct{ A any }{}, time.Time{}, &time.Time{}, big.Int{}, []*big.Int{nil}, netip.Addr{},
		json.RawMessage("1"), []json.RawMessage{}, NotFound, [1]Code{}, complex(1, 1), make(chan int), func() {}, uintptr(1),
		plainLoop{}, &plainLoop{}, plainLevel(1), []plainLevel{1}, struct{ L *plainLevel }{}, plainReader(1), plainTagged{},
		struct{ smallValue }{}, struct{ *smallValue }{}, struct{ plainName }{},
		struct {
			A int `json:",string"`
		}{},
		struct {
			A int `json:",omitzero"`
		}{},
		struct {
			A int `cbor:"1,keyasint"`
		}{},
		struct {
			A struct{} `json:",omitempty"`
		}{},
		struct {
			A int
			B int `json:"A"`
		}{},
		reflect.Zero(reflect.StructOf(many)).Interface(),
	} {
		if encodeLikeLibrary(t, v) {
			t.Errorf("%T: encoded as plain", v)
		}
		if v == nil {
			continue
		}
		into := func() reflect.Value { return reflect.New(reflect.TypeOf(v)) }
		for _, data := range []string{"\xa0", "\xf6", "\x01", "\x80", "\x60"} {
			if decodeLikeLibrary(t, []byte(data), into) {
				t.Errorf("%T: decoded as plain", v)
			}
		}
	}
	for _, into := range []any{nil, 1, smallValue{}, (*smallValue)(nil), []int{1}} {
		if _, ok := plain.Decode([]byte{0xa0}, into); ok {
			t.Errorf("decoded into %#v", into)
		}
	}
}

// TestPlainFallback shows what of the data is the library's to decide, and that a target which
// held something, and one that was begun, end as the library alone leaves them.
func TestPlainFallback(t *testing.T) {
	type target struct {
		A int8
		B []int
		C *int
		D string
		E float64
		F [2]byte
		G [2]int
		H []byte
		b int // stays
	}
	seven := 7
	tests := []struct {
		name, data string
		fast       bool
	}{
		{"in order", "a2 6141 01 6142 820102", true},
		{"in another order", "a2 6142 820102 6141 01", true},
		{"longer heads than needed", "b90002 6141 1800 6142 9a000000021b000000000000000102", true},
		{"nothing", "a0", true},
		{"nil", "a3 6142 f6 6143 f6 6148 f6", true},
		{"empty", "a2 6142 80 6148 40", true},
		{"a rest", "a1 6141 01 ff", true},
		{"unknown", "a2 6141 01 615a 02", true},
		{"unknown at first", "a3 615a 02 6141 01 6142 8101", true},
		{"unknown, all kinds", "a1 615a 90 00 3903e7 430102ff 62c328 820102 a2616101f5f6 d864 c1 1a00000001 f4 f7 e0 f820 f93c00 fa7fc00000 fb3ff0000000000000 80 a0 1bffffffffffffffff", true},
		{"unknown with a long name", "a1 7818" + strings.Repeat("5a", 24) + " 01", true},
		{"unknown that is not UTF-8", "a2 62c328 01 6141 01", true},
		{"unknown twice", "a3 615a 01 615a 02 6141 01", true},
		{"unknown beside all there are", "a9 6141 01 6142 80 6143 01 6144 6178 6145 fb3ff0000000000000 6146 420102 6147 820102 6148 40 615a 01", true},
		{"stays at home", "a2 6162 820102 615a 01", false}, // as b, and as B in another case
		{"unknown, nested", "a1 615a " + strings.Repeat("81", 63) + "00", true},
		{"unknown, nested deeply", "a2 6141 05 615a " + strings.Repeat("81", 64) + "00", false},
		{"unknown big number", "a2 6141 05 615a c24101", false},
		{"unknown negative big number", "a2 6141 05 615a 81c34101", false},
		{"unknown indefinite array", "a2 6141 05 615a 9f01ff", false},
		{"unknown indefinite string", "a2 6141 05 615a 7f6178ff", false},
		{"unknown invalid simple value", "a2 6141 05 615a f81f", false},
		{"unknown break", "a2 6141 05 615a ff", false},
		{"unknown reserved", "a2 6141 05 615a 1d", false},
		{"unknown cut off", "a2 6141 05 615a 8201", false},
		{"unknown name cut off", "a2 6141 05 625a", false},
		{"unknown without a value", "a2 6141 05 615a", false},
		{"unknown tag without a value", "a2 6141 05 615a c1", false},
		{"unknown longer than it all", "a2 6141 05 615a 5bffffffffffffffff00", false},
		{"unknown with more elements than bytes", "a2 6141 05 615a bbffffffffffffffff00", false},
		{"more pairs than bytes", "bbffffffffffffffff 6141 01", false},
		{"another case", "a2 6141 01 6162 8101", false},
		{"twice", "a2 6141 01 6141 02", false},
		{"a name with a longer head", "a1 780141 01", false},
		{"a name as bytes", "a1 4141 01", false},
		{"a number as name", "a1 00 01", false},
		{"indefinite map", "bf 6141 01 ff", false},
		{"indefinite array", "a2 6141 05 6142 9f0102ff", false},
		{"indefinite string", "a2 6141 05 6144 7f6178ff", false},
		{"tag", "a2 6141 05 6142 c18101", false},
		{"self-described", "d9d9f7 a1 6141 01", false},
		{"null for a number", "a2 6144 6178 6141 f6", false},
		{"undefined", "a2 6144 6178 6142 f7", false},
		{"null for it all", "f6", false},
		{"overflow", "a3 6144 6178 6141 1880 6142 8101", false},
		{"negative overflow", "a2 6142 820105 6141 3880", false},
		{"beyond int64", "a2 6144 6178 6142 811bffffffffffffffff", false},
		{"text for a number", "a2 6144 6178 6142 82016178", false},
		{"bytes for a string", "a2 6141 01 6144 4178", false},
		{"a float for a number", "a2 6144 6178 6141 fb3ff0000000000000", false},
		{"a half", "a2 6144 6178 6145 f93c00", false},
		{"a number for a float", "a2 6144 6178 6145 01", false},
		{"simple value", "a2 6144 6178 6141 e5", false},
		{"a short array", "a2 6144 6178 6147 8101", false},
		{"a long array", "a2 6144 6178 6147 83010203", false},
		{"short bytes", "a2 6144 6178 6146 4101", false},
		{"long bytes", "a2 6144 6178 6146 43010203", false},
		{"bytes as an array", "a2 6144 6178 6148 820102", false},
		{"cut off", "a3 6144 6178 6142 820102", false},
		{"cut off in a head", "a2 6141 01 6142 82 1901", false},
		{"more elements than bytes", "a2 6144 6178 6142 9a7fffffff01", false},
		{"a length beyond int64", "a2 6144 6178 6142 9bffffffffffffffff01", false},
		{"a string beyond int64", "a2 6141 01 6144 7bffffffffffffffff01", false},
		{"reserved", "a2 6144 6178 6141 1c", false},
		{"another type", "82 01 02", false},
		{"no data", "", false},
	}
	zero := func() *target { return new(target) }
	olds := map[string]func() *target{
		"zero":  zero,
		"begun": func() *target { return &target{A: 3, b: 5} },
		"full": func() *target {
			return &target{1, []int{9, 9, 9}[:1], &seven, "d", 1.5, [2]byte{1, 2}, [2]int{3, 4}, []byte{5}, 6}
		},
		"minus0": func() *target { return &target{E: math.Copysign(0, -1)} },
	}
	library := CBOR.(*cborCodec)
	for _, test := range tests {
		data, err := hex.DecodeString(strings.ReplaceAll(test.data, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		fast := decodeLikeLibrary(t, data, func() reflect.Value { return reflect.ValueOf(zero()) })
		if fast != test.fast {
			t.Errorf("%s: fast: %v", test.name, fast)
		}
		if fast != decodeLikeLibrary(t, data, func() reflect.Value { return reflect.ValueOf(&target{b: 5}) }) {
			t.Errorf("%s: a field that stays at home makes a difference", test.name)
		}
		for name, old := range olds {
			got, want := old(), old()
			rest, err := CBOR.Decode(data, got)
			wantRest, wantErr := library.decode(data, want)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) || !bytes.Equal(rest, wantRest) || !identical(reflect.ValueOf(got), reflect.ValueOf(want)) {
				t.Errorf("%s, %s:\n got %+v, %x, %v\nwant %+v, %x, %v", test.name, name, got, rest, err, want, wantRest, wantErr)
			}
			if name != "zero" && decodeLikeLibrary(t, data, func() reflect.Value { return reflect.ValueOf(old()) }) {
				t.Errorf("%s, %s: decoded fast", test.name, name)
			}
		}
	}
}

// TestPlainLimits shows that a slice is not made for what the data only claims.
func TestPlainLimits(t *testing.T) {
	type wide [1 << 20]byte
	data := append([]byte{0x99, 0xff, 0xff}, make([]byte, 0xffff)...)
	got := testing.AllocsPerRun(1, func() {
		if _, ok := plain.Decode(data, new([]wide)); ok { // 64 GiB
			t.Error("decoded")
		}
	})
	if got > 1 {
		t.Errorf("%v allocations", got)
	}
}

func TestPlainAllocations(t *testing.T) {
	var buf bytes.Buffer
	boxed := any(aSmallValue)
	if n := testing.AllocsPerRun(100, func() { buf.Reset(); plain.Encode(&buf, boxed) }); n != 0 {
		t.Errorf("encoding takes %v allocations", n)
	}
	into := new(smallValue)
	if n := testing.AllocsPerRun(100, func() { *into = smallValue{}; plain.Decode(buf.Bytes(), into) }); n != 2 {
		t.Errorf("decoding takes %v allocations, want 2: a slice, and what the name and the tags share", n)
	}
}

// Values that are decoded one after the other share memory for their strings, and each keeps its own.
func TestPlainTexts(t *testing.T) {
	plan := plain.Of(reflect.TypeFor[smallValue]())
	var texts plain.Texts
	var want, got []smallValue
	for i := range 100 {
		v := smallValue{Name: strings.Repeat("n", i), Tags: []string{fmt.Sprint(i), "", "tag"}}
		var buf bytes.Buffer
		plain.Encode(&buf, v)
		var into smallValue
		if _, ok := plan.Decode(buf.Bytes(), reflect.ValueOf(&into), &texts); !ok {
			t.Fatalf("%+v is not decoded", v)
		}
		want, got = append(want, v), append(got, into)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var buf bytes.Buffer
	plain.Encode(&buf, aSmallValue)
	into := new(smallValue)
	place := reflect.ValueOf(into)
	n := testing.AllocsPerRun(100, func() { *into = smallValue{}; plan.Decode(buf.Bytes(), place, &texts) })
	if n != 1 {
		t.Errorf("decoding takes %v allocations, want little more than 1: a slice", n)
	}
}

// A plan touches no value of another type.
func TestPlainOtherType(t *testing.T) {
	plan := plain.Of(reflect.TypeFor[smallValue]())
	var none *smallValue
	for _, v := range []any{1, new(int), none, new(none)} {
		var buf bytes.Buffer
		if plan.Encode(&buf, reflect.ValueOf(v)) || buf.Len() > 0 {
			t.Errorf("%T is encoded as %x", v, buf.Bytes())
		}
		if _, ok := plan.Decode([]byte{0xa0}, reflect.ValueOf(v), new(plain.Texts)); ok {
			t.Errorf("%T is decoded", v)
		}
	}
}

// FuzzDecodeLikeLibrary decodes into targets that are zero, and into what data itself describes.
func FuzzDecodeLikeLibrary(f *testing.F) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, typ := range plainTypes {
		v := reflect.New(typ)
		randomize(r, v.Elem())
		var buf bytes.Buffer
		if !plain.Encode(&buf, v.Interface()) {
			f.Fatalf("%v is not plain", typ)
		}
		f.Add(buf.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		for _, typ := range plainTypes {
			decodeLikeLibrary(t, data, func() reflect.Value { return reflect.New(typ) })
			decodeLikeLibrary(t, data, func() reflect.Value {
				v := reflect.New(typ)
				_, _ = CBOR.(*cborCodec).dec.UnmarshalFirst(data, v.Interface())
				return v
			})
		}
	})
}
