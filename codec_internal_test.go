package yonder

import (
	"bytes"
	"encoding/json"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestCostlyValues is a regression: what a bigint of 1 MiB was decoded into, whatever its
// type, took up to 45 seconds, and 10,000 tags of one value 0.2.
func TestCostlyValues(t *testing.T) {
	head := func(tag byte, n int) []byte {
		return []byte{tag, 0x5a, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	}
	bignum := func(n int) []byte { return append(head(0xc2, n), bytes.Repeat([]byte{0xff}, n)...) }
	const large = 1 << 20
	chunks := []byte("\xc3\x5f")
	for range 64 {
		chunks = append(chunks, append([]byte{0x59, 0x04, 0x00}, make([]byte, 1<<10)...)...)
	}
	digits := strings.Repeat("7", large)
	tests := []struct {
		name  string
		codec Codec
		data  []byte
		is    string // "": it is decoded into an any
	}{
		{"a bigint", CBOR, bignum(large), "a bigint of"},
		{"a negative one", CBOR, append(head(0xc3, large), make([]byte, large)...), "a bigint of"},
		{"in chunks", CBOR, append(chunks, 0xff), "a bigint of"},
		{"in an array", CBOR, append([]byte{0x82, 0x01}, bignum(large)...), "a bigint of"},
		{"in an endless map", CBOR, append([]byte("\xbf\x61a\x81\x01\x61b"), append(bignum(large), 0xff)...), "a bigint of"},
		{"behind a tag", CBOR, append([]byte("\xd8\x2a"), bignum(large)...), "a bigint of"},
		{"cut off", CBOR, bignum(large)[:10_000], "a bigint of"},
		{"in the next value", CBOR, append([]byte{0x01}, bignum(large)...), ""},
		{"of the largest size", CBOR, bignum(maxBignum), ""},
		{"bytes that look like one", CBOR, append(head(0x82, 0)[:1], append(append([]byte{0x5a, 0, 0x10, 0, 6}, bignum(large)...), 1)...), ""},
		{"a small one before long bytes", CBOR, append([]byte{0x9f, 0xc2, 0x41, 1, 0x59, 0x20, 0}, append(make([]byte, 0x2000), 0xff)...), ""},
		{"small ones", CBOR, append([]byte{0x99, 0x10, 0}, bytes.Repeat([]byte{0xc2, 0x42, 1, 2}, 4096)...), ""},
		{"many tags", CBOR, append(bytes.Repeat([]byte{0xd1}, 17), 1), "a value with more than 16 tags"},
		{"many tags in a map", CBOR, append(append([]byte("\xa1\x61a\xd1"), bytes.Repeat([]byte("\xd8\x20"), 9_000)...), 1), "a value with more than 16 tags"},
		{"a few tags on each value", CBOR, append([]byte{0x82}, bytes.Repeat(append(bytes.Repeat([]byte{0xd1}, 16), 1), 2)...), ""},
		{"digits", JSON, []byte(digits), "a number of"},
		{"digits in a field", JSON, []byte(`{"a\"b":[1,-` + digits + `]}`), "a number of"},
		{"digits in text", JSON, []byte(`["\"` + digits + `"]`), ""},
		{"digits in the next value", JSON, []byte("1\n" + digits), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, typ := range append(decoded, reflect.TypeFor[big.Int](), reflect.TypeFor[json.Number]()) {
				if test.is == "" && typ != reflect.TypeFor[any]() {
					continue
				}
				start := time.Now()
				_, err := test.codec.Decode(test.data, reflect.New(typ).Interface())
				if test.is == "" && err != nil || !strings.Contains(textOf(err), test.is) {
					t.Errorf("%v: %.200v, want %q", typ, err, test.is)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("%v: it took %v", typ, took)
				}
			}
		})
	}
}
