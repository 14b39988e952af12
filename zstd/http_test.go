package zstd_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	klauspost "github.com/klauspost/compress/zstd"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/jsonrpc"
	"github.com/yonder-rpc/yonder/zstd"
)

// JSON-RPC over HTTP takes and sends what a server's Compression does, as a content encoding.
func TestHTTP(t *testing.T) {
	srv := &yonder.Server{Compression: zstd.New(), Limits: yonder.Limits{MaxMessage: 64 << 10}}
	srv.Register("repeat", strings.Repeat)
	ts := httptest.NewServer(jsonrpc.Handler(srv))
	defer ts.Close()
	defer srv.Close()
	enc, err := klauspost.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	dec, err := klauspost.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	post := func(body []byte, encoding, accept string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequest("POST", ts.URL, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Content-Encoding", encoding)
		req.Header.Set("Accept-Encoding", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, text
	}
	request := `{"jsonrpc":"2.0","method":"repeat","params":["ha ",1000],"id":1}`
	want := `{"jsonrpc":"2.0","result":"` + strings.Repeat("ha ", 1000) + `","id":1}` + "\n"
	resp, text := post(enc.EncodeAll([]byte(request), nil), "zstd", "zstd")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Encoding") != "zstd" || len(text) > 200 {
		t.Fatalf("%s, %s, %d bytes", resp.Status, resp.Header.Get("Content-Encoding"), len(text))
	}
	if got, err := dec.DecodeAll(text, nil); string(got) != want || err != nil {
		t.Errorf("%.100q, %v", got, err)
	}
	if resp, text := post([]byte(request), "", "br"); resp.Header.Get("Content-Encoding") != "" || string(text) != want {
		t.Errorf("who does not accept it: %s, %.100q", resp.Header.Get("Content-Encoding"), text)
	}
	bomb := enc.EncodeAll([]byte(request+strings.Repeat(" ", 10<<20)), nil)
	if resp, text := post(bomb, "zstd", ""); resp.StatusCode != 400 || !strings.Contains(string(text), "65536 bytes") {
		t.Errorf("a bomb of %d bytes: %s, %s", len(bomb), resp.Status, text)
	}
	if resp, _ := post([]byte(request), "br", ""); resp.StatusCode != 415 || resp.Header.Get("Accept-Encoding") != "zstd, gzip" {
		t.Errorf("another encoding: %s, %q", resp.Status, resp.Header.Get("Accept-Encoding"))
	}
}
