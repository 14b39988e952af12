package cborjson

import (
	stdbytes "bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// The bytes are RFC 8949's, appendix A, where it has the value.
func TestAppendCBOR(t *testing.T) {
	for _, tt := range []struct{ json, cbor string }{
		{"0", "00"}, {"23", "17"}, {"24", "1818"}, {"100", "1864"}, {"1000", "1903e8"}, {"1000000", "1a000f4240"},
		{"1000000000000", "1b000000e8d4a51000"}, {"18446744073709551615", "1bffffffffffffffff"},
		{"18446744073709551616", "c249010000000000000000"}, {"-18446744073709551616", "3bffffffffffffffff"},
		{"-18446744073709551617", "c349010000000000000000"}, {"-1", "20"}, {"-100", "3863"}, {"-1000", "3903e7"},
		{"-0", "fb8000000000000000"}, {"1.1", "fb3ff199999999999a"}, {"1e0", "fb3ff0000000000000"}, {"1.0e+300", "fb7e37e43c8800759c"},
		{"-4.1", "fbc010666666666666"}, {"0.1000000000000000055511151231257827", "fb3fb999999999999a"}, {"1E-400", "fb0000000000000000"},
		{"false", "f4"}, {"true", "f5"}, {" null\r\n\t", "f6"},
		{`""`, "60"}, {`"a"`, "6161"}, {`"\"\\"`, "62225c"}, {`"ü"`, "62c3bc"}, {`"\u00fc"`, "62c3bc"}, {`"\ud800\udd51"`, "64f0908591"},
		{`"\/\b\f\n\r\t"`, "662f080c0a0d09"}, {`"\ud800"`, "63efbfbd"}, {`"\udd51\ud800"`, "66efbfbdefbfbd"}, {`"\ud800\u0061"`, "64efbfbd61"},
		{`"\ud800\n"`, "64efbfbd0a"}, {"\"\xff\"", "61ff"},
		{`"aaaaaaaaaaaaaaaaaaaaaaaa"`, "7818" + strings.Repeat("61", 24)}, {`"\u0061aaaaaaaaaaaaaaaaaa"`, "73" + strings.Repeat("61", 19)},
		{"[]", "80"}, {"[1, [2, 3], [4, 5]]", "8301820203820405"}, {"{}", "a0"}, {`{"a": 1, "b": [2, 3]}`, "a26161016162820203"},
		{`{"b":1,"a":2,"b":3}`, "a3616201616102616203"}, // in this order, and twice
		{"[" + strings.Repeat("0,", 22) + "0]", "97" + strings.Repeat("00", 23)},
		{"[" + strings.Repeat("0,", 23) + "0]", "9f" + strings.Repeat("00", 24) + "ff"},
	} {
		got, err := AppendCBOR([]byte("x"), []byte(tt.json))
		if err != nil || string(got[:1]) != "x" || hex.EncodeToString(got[1:]) != tt.cbor {
			t.Errorf("%s: %x, %v; want 78%s", tt.json, got, err, tt.cbor)
		}
	}
}

func TestInvalidJSON(t *testing.T) {
	deep := strings.Repeat("[", maxNesting+1)
	for text, want := range map[string]string{
		"":                                      "0: a value is expected",
		" ":                                     "1: a value is expected",
		"nul":                                   "0: a value is expected",
		"\x00":                                  "0: a value is expected",
		"1 2":                                   "2: there is more after the value",
		"01":                                    "1: there is more after the value",
		"[1":                                    "2: a comma or ] is expected",
		"[1 2]":                                 "3: a comma or ] is expected",
		"[1,]":                                  "3: a value is expected",
		"[":                                     "1: a value is expected",
		"[1\x00":                                "2: a comma or ] is expected",
		"{":                                     "1: a key is expected",
		"{1:2}":                                 "1: a key is expected",
		`{"a"}`:                                 "4: a colon is expected",
		`{"a":1,}`:                              "7: a key is expected",
		`{"a":1]`:                               "6: a comma or } is expected",
		`"a`:                                    "0: a string does not end",
		`"\`:                                    "0: a string does not end",
		`"\"`:                                   "0: a string does not end",
		"\"a\nb\"":                              "2: a control character is not escaped",
		`"a\x"`:                                 "3: there is no such escape sequence",
		`"\u12"`:                                "2: \\u needs four hexadecimal digits",
		`"\u12g4"`:                              "2: \\u needs four hexadecimal digits",
		`{"\ud800\u"`:                           "9: \\u needs four hexadecimal digits",
		"-":                                     "1: a digit is expected",
		"1.":                                    "2: a digit is expected",
		"-.5":                                   "1: a digit is expected",
		"1e+":                                   "3: a digit is expected",
		"[1e400]":                               "1: a number is beyond the range of a float64",
		"[-" + strings.Repeat("9", maxDigits+1): "1: an integer has more than 20000 digits",
		deep:                                    "10000: it is nested too deeply",
	} {
		_, err := AppendCBOR(nil, []byte(text))
		if err == nil || err.Error() != "JSON at byte "+want {
			t.Errorf("%.40s: %v; want byte %s", text, err, want)
		}
		if json.Valid([]byte(text)) && !strings.Contains(want, "number") {
			t.Errorf("%.40s: encoding/json takes it", text)
		}
	}
}

func TestAppendJSON(t *testing.T) {
	for _, tt := range []struct{ cbor, json string }{
		{"00", "0"}, {"1818", "24"}, {"1bffffffffffffffff", "18446744073709551615"}, {"20", "-1"}, {"3863", "-100"},
		{"3bffffffffffffffff", "-18446744073709551616"}, {"3b7fffffffffffffff", "-9223372036854775808"},
		{"c249010000000000000000", "18446744073709551616"}, {"c349010000000000000000", "-18446744073709551617"},
		{"c240", "0"}, {"c340", "-1"}, {"c2420001", "1"}, {"c25f4101420000ff", "65536"},
		{"f90000", "0"}, {"f98000", "-0"}, {"f93c00", "1"}, {"fb3ff199999999999a", "1.1"}, {"f93e00", "1.5"}, {"f97bff", "65504"},
		{"fa47c35000", "100000"}, {"fa7f7fffff", "3.4028234663852886e+38"}, {"fb7e37e43c8800759c", "1e+300"}, {"f90001", "5.960464477539063e-08"},
		{"f90400", "0.00006103515625"}, {"f9c400", "-4"}, {"fb4415af1d78b58c40", "100000000000000000000"},
		{"f4", "false"}, {"f5", "true"}, {"f6", "null"}, {"f7", "null"},
		{"c074323031332d30332d32315432303a30343a30305a", `"2013-03-21T20:04:00Z"`}, {"c11a514b67b0", `"2013-03-21T20:04:00Z"`},
		{"c1fb41d452d9ec200000", `"2013-03-21T20:04:00.5Z"`}, {"c120", `"1969-12-31T23:59:59Z"`}, {"c1f9b800", `"1969-12-31T23:59:59.5Z"`},
		{"d9d9f701", "1"}, {"d74401020304", `"AQIDBA=="`}, {"40", `""`}, {"5f42010243030405ff", `"AQIDBAU="`}, {"5fff", `""`},
		{"60", `""`}, {"62225c", `"\"\\"`}, {"62c3bc", `"ü"`}, {"6661090a0d007f", `"a\u0009\u000a\u000d\u0000` + "\x7f\""}, {"61ff", "\"\xff\""},
		{"7f61c361bcff", `"ü"`}, {"7fff", `""`}, {"63e280a8", "\"\u2028\""},
		{"80", "[]"}, {"8301820203820405", "[1,[2,3],[4,5]]"}, {"9fff", "[]"}, {"9f018202039f0405ffff", "[1,[2,3],[4,5]]"},
		{"a0", "{}"}, {"a26161016162820203", `{"a":1,"b":[2,3]}`}, {"bf61610161629f0203ffff", `{"a":1,"b":[2,3]}`}, {"a17f616161 62ff f6", `{"ab":null}`},
	} {
		data, err := hex.DecodeString(strings.ReplaceAll(tt.cbor, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got, err := AppendJSON([]byte("x"), data)
		if err != nil || string(got) != "x"+tt.json {
			t.Errorf("%s: %s, %v; want x%s", tt.cbor, got, err, tt.json)
		}
	}
}

func TestInvalidCBOR(t *testing.T) {
	for data, want := range map[string]string{
		"":                                       "0: it ends too early",
		"18":                                     "0: it ends too early",
		"1c":                                     "0: this is not the head of an item",
		"1f":                                     "0: this is not the head of an item",
		"3f":                                     "0: this is not the head of an item",
		"df":                                     "0: this is not the head of an item",
		"ff":                                     "0: this is not the head of an item",
		"81ff":                                   "1: this is not the head of an item",
		"0001":                                   "1: there is more after the item",
		"81":                                     "1: it ends too early",
		"9bffffffffffffffff":                     "9: it ends too early",
		"9f":                                     "1: it ends too early",
		"bf616100":                               "4: it ends too early",
		"bf6161ff":                               "3: this is not the head of an item",
		"61":                                     "1: it ends too early",
		"5bffffffffffffffff":                     "9: it ends too early",
		"5f6161ff":                               "1: this is not a part of the string",
		"5f5f4100ffff":                           "1: this is not a part of the string",
		"7f4100ff":                               "1: this is not a part of the string",
		"a10000":                                 "1: a key that is no text cannot be in JSON",
		"a1410000":                               "1: a key that is no text cannot be in JSON",
		"81f97e00":                               "1: NaN cannot be in JSON",
		"fa7f800000":                             "0: +Inf cannot be in JSON",
		"fbfff0000000000000":                     "0: -Inf cannot be in JSON",
		"f0":                                     "0: this simple value has no name in JSON",
		"f8ff":                                   "0: this simple value has no name in JSON",
		"c201":                                   "1: a bignum is not a byte string",
		"c259ffff" + strings.Repeat("ff", 65535): "1: an integer has more than 20000 digits",
		"c16161":                                 "1: a time is not a number of seconds in the years 0 to 9999",
		"c1f97e00":                               "1: a time is not a number of seconds in the years 0 to 9999",
		"c11bffffffffffffffff":                   "1: a time is not a number of seconds in the years 0 to 9999",
		"c13a7fffffffff":                         "6: there is more after the item",
		"c13b000000ffffffffff":                   "1: a time is not a number of seconds in the years 0 to 9999",
		strings.Repeat("81", maxNesting+1):       "10000: it is nested too deeply",
		strings.Repeat("c6", maxNesting+1):       "10000: it is nested too deeply",
	} {
		b, err := hex.DecodeString(data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := AppendJSON(nil, b); err == nil || err.Error() != "CBOR at byte "+want {
			t.Errorf("%.40s: %v; want byte %s", data, err, want)
		}
	}
}

// A number of the most digits goes there and back.
func TestLongest(t *testing.T) {
	for _, number := range []string{strings.Repeat("9", maxDigits), "-" + strings.Repeat("9", maxDigits)} {
		data, err := AppendCBOR(nil, []byte(number))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := AppendJSON(nil, data); err != nil || string(text) != number {
			t.Errorf("%.20s: %.20s, %v", number, text, err)
		}
	}
}

// plainCBOR has everything as encoding/json would have it, but for numbers.
var plainCBOR, _ = cbor.DecOptions{
	MaxNestedLevels: 2 * maxNesting, MaxArrayElements: math.MaxInt32, MaxMapPairs: math.MaxInt32, UTF8: cbor.UTF8DecodeInvalid,
	DefaultMapType: reflect.TypeFor[map[string]any](), IntDec: cbor.IntDecConvertSignedOrBigInt,
}.DecMode()

// value returns what encoding/json makes of a text, with the exact numbers.
func value(t *testing.T, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(stdbytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return numbers(v)
}

// numbers has each number as a float64, or if it is an integer that no float64 is written as, in
// digits.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		f, _ := v.Float64()
		n, ok := new(big.Int).SetString(v.String(), 10)
		if !ok || strconv.FormatFloat(f, 'f', -1, 64) == v.String() { // which need not be exactly f
			return f
		}
		return n.String()
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// FuzzAppendCBOR takes what encoding/json takes, and returns it as encoding/json would.
func FuzzAppendCBOR(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2.5e3,"\ud83d\ude00\n",null,true],"b":{}}`, "[18446744073709551616,-0,0.1]", `"\ud800"`, "1e400", "[[[[]]]]", " 01", `"a` + "\xff" + `"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		data, err := AppendCBOR(nil, text)
		if len(data) > 12*len(text) {
			t.Fatalf("%d bytes have become %d", len(text), len(data))
		}
		if err != nil {
			if json.Valid(text) && !strings.Contains(err.Error(), "number") && !strings.Contains(err.Error(), "digits") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if !json.Valid(text) {
			t.Fatalf("encoding/json does not take %q", text)
		}
		if err := plainCBOR.Wellformed(data); err != nil {
			t.Fatalf("%q: %x: %v", text, data, err)
		}
		back, err := AppendJSON(nil, data)
		if err != nil {
			t.Fatalf("%q: %x: %v", text, data, err)
		}
		if !reflect.DeepEqual(value(t, text), value(t, back)) { // cmp takes twice as long with each level
			t.Fatalf("%q: %x: %q", text, data, back)
		}
	})
}

// FuzzAppendJSON makes JSON of CBOR, the value that a decoder of CBOR finds.
func FuzzAppendJSON(f *testing.F) {
	for _, seed := range []string{
		"bf61610161629f0203ffff", "5f42010243030405ff", "c11a514b67b0", "c249010000000000000000", "f97e00", "9bffffffffffffffff", "7f61c361bcff", "c6c6c600", "a1fb3ff199999999999af6",
	} {
		data, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := AppendJSON(nil, data)
		if len(text) > 12*len(data)+12 {
			t.Fatalf("%d bytes have become %d", len(data), len(text))
		}
		if err != nil {
			return
		}
		if err := plainCBOR.Wellformed(data); err != nil {
			t.Fatalf("%x: %v", data, err)
		}
		if !json.Valid(text) {
			t.Fatalf("%x: %q", data, text)
		}
		again, err := AppendCBOR(nil, text)
		if err != nil {
			t.Fatalf("%x: %q: %v", data, text, err)
		}
		back, err := AppendJSON(nil, again)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(value(t, text), value(t, back)) {
			t.Fatalf("%x: %q: %q", data, text, back)
		}
	})
}
