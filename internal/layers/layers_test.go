package layers_test

import (
	"net"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder/internal/layers"
)

type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }

type began struct{ wrapper }

func (began) Authorization() string { return "Bearer x" }

func TestLayers(t *testing.T) {
	socket := &net.TCPConn{}
	plain, _ := http.NewRequest("GET", "/", nil)
	over := plain.WithContext(layers.Under(plain.Context(), wrapper{socket}))
	if layers.HasUnder(plain.Context()) || !layers.HasUnder(over.Context()) {
		t.Error("HasUnder")
	}
	for _, tt := range []struct {
		name     string
		conn     any
		layers   int
		overHTTP bool
		found    bool // the socket
	}{
		{"nothing", nil, 0, false, false},
		{"a socket", socket, 1, false, true},
		{"a pipe", struct{}{}, 1, false, false},
		{"wrapped", wrapper{wrapper{socket}}, 3, false, true},
		{"around nothing", wrapper{}, 1, false, false},
		{"began as a request", wrapper{began{wrapper{socket}}}, 3, true, true},
		{"a request", plain, 1, true, false},
		{"a request over a connection", over, 3, true, true},
	} {
		n := 0
		for range layers.All(tt.conn) {
			n++
		}
		found, ok := layers.Find[*net.TCPConn](tt.conn)
		if diff := cmp.Diff([]any{tt.layers, tt.overHTTP, tt.found, tt.found}, []any{n, layers.OverHTTP(tt.conn), ok, found == socket}); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}
