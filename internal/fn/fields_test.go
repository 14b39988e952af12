package fn

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

type (
	base   struct{ ID, Shared int }
	other  struct{ Shared, Only int }
	tagged struct {
		X int `json:"Shared"`
	}
	Deep struct{ base }
	loop struct {
		*loop
		A int
	}
	Exported struct{ E int }
	text     string
)

func (text) MarshalText() ([]byte, error) { return nil, nil }

// structs are values in which every field that is encoded is so even when it is zero.
var structs = []any{
	user{},
	hidden{1, 2},
	onlyBlank{},
	struct {
		A int `json:"a"`
		B int `json:"-"`
		//lint:ignore SA5008 that it names the field "-" is what is tested
		C int `json:"-,"`
		e int
		_ int
	}{},
	struct {
		base
		Name string
	}{},
	struct {
		base
		other
	}{},
	struct {
		base
		other
		Shared int
	}{},
	struct {
		base
		tagged
	}{},
	struct {
		base
		other
		tagged
	}{},
	struct {
		Deep
		other
	}{},
	struct {
		*Exported
		X int
	}{&Exported{}, 0},
	struct {
		Exported `json:"named"`
	}{},
	struct {
		Deep
		base
	}{},
	struct {
		A int
		B int `json:"A"`
	}{},
	reflect.Zero(reflect.StructOf([]reflect.StructField{ // vet refuses it in source
		{Name: "A", Type: reflect.TypeFor[int](), Tag: `json:"A"`},
		{Name: "B", Type: reflect.TypeFor[int](), Tag: `json:"A"`},
		{Name: "C", Type: reflect.TypeFor[int]()},
	})).Interface(),
	struct {
		text
		Exported
	}{},
	loop{loop: &loop{}},
	struct {
		Z, Y int
		base
		X int
	}{},
}

func fieldNames(t reflect.Type) []string {
	names := []string{}
	for _, f := range fieldsOf(t) {
		names = append(names, f.name)
	}
	return names
}

// The names and their order are those of encoding/json.
func TestFieldsAsJSON(t *testing.T) {
	for _, v := range structs {
		if marshaler(reflect.TypeOf(v)) != "" {
			continue
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(strings.NewReader(string(data)))
		want := []string{}
		dec.Token() // the brace
		for dec.More() {
			name, _ := dec.Token()
			want = append(want, name.(string))
			var value json.RawMessage
			if err := dec.Decode(&value); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, fieldNames(reflect.TypeOf(v))); diff != "" {
			t.Errorf("%T: %s\n%s", v, diff, data)
		}
	}
}

// The names are those of the codec, also where only it reads the tag.
func TestFieldsAsCBOR(t *testing.T) {
	more := []any{
		struct {
			A int `cbor:"a" json:"b"`
			B int `cbor:"-" json:"c"`
			C int `cbor:"" json:"d"`
			E int `cbor:",omitzero" json:"f"`
		}{E: 1},
		struct {
			base
			X int `json:",string"`
			S int `json:",string"`
		}{},
	}
	for _, v := range append(more, structs...) {
		if marshaler(reflect.TypeOf(v)) != "" {
			continue
		}
		data, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := cbor.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		want := []string{}
		for name := range m {
			want = append(want, name)
		}
		slices.Sort(want)
		got := fieldNames(reflect.TypeOf(v))
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%T: %s", v, diff)
		}
	}
}

func TestFieldValue(t *testing.T) {
	type nested struct {
		*Exported
		X int
	}
	f := fieldsOf(reflect.TypeFor[nested]())
	if got := f[0].value(reflect.ValueOf(nested{&Exported{7}, 8})).Int(); got != 7 {
		t.Errorf("E is %d", got)
	}
	if v := f[0].value(reflect.ValueOf(nested{})); v.IsValid() {
		t.Errorf("E behind nil is %v", v)
	}
	if got := f[1].value(reflect.ValueOf(nested{nil, 8})).Int(); got != 8 {
		t.Errorf("X is %d", got)
	}
}

func TestMarshaler(t *testing.T) {
	for _, test := range []struct {
		v    any
		want string
	}{
		{time.Time{}, "time"},
		{&time.Time{}, ""},
		{text(""), "text"},
		{json.RawMessage{}, "json"},
		{cbor.RawMessage{}, "cbor"},
		{struct{ time.Time }{}, "binary"},
		{1, ""},
	} {
		if got := marshaler(reflect.TypeOf(test.v)); got != test.want {
			t.Errorf("%T: %q, want %q", test.v, got, test.want)
		}
	}
}
