package session_test

import (
	"encoding/gob"
	"math/big"
	"net"
	"net/url"
	"testing"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/session"
)

type offer struct {
	Price big.Int
	Link  url.URL
	More  []big.Int
}

// Values whose encoding methods are their pointers' cross as they are, also to and from peers
// without this package, as far as those can themselves.
func TestMethodsOfPointers(t *testing.T) {
	gob.Register(url.URL{}) // as a foreign peer must
	srv := &yonder.Server{Protocols: []yonder.Protocol{session.Protocol}}
	srv.Register("raise", func(o offer, by big.Int) (offer, *big.Int) {
		raised := o
		raised.Price = *new(big.Int).Add(&o.Price, &by)
		return raised, &by
	})
	srv.Register("home", func(u url.URL) url.URL { return url.URL{Scheme: u.Scheme, Host: u.Host} })
	address := serve(t, srv)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	client := session.NewClient(conn)
	defer client.Close()
	link := url.URL{Scheme: "https", Host: "example.com", Path: "/a"}

	var raise func(offer, big.Int) (offer, big.Int, error)
	client.Call("raise", &raise)
	got, by, err := raise(offer{*big.NewInt(9), link, []big.Int{*big.NewInt(1)}}, *big.NewInt(2))
	if err != nil || got.Price.Cmp(big.NewInt(11)) != 0 || got.Link != link || len(got.More) != 1 || by.Cmp(big.NewInt(2)) != 0 {
		t.Errorf("%v, %v, %v", got, &by, err)
	}
	var home func(url.URL) (url.URL, error)
	client.Call("home", &home)
	if u, err := home(link); err != nil || u.String() != "https://example.com" {
		t.Errorf("%v, %v", &u, err)
	}

	stranger, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	var theirs func(*url.URL) url.URL
	foreignCall(stranger, "home", &theirs)
	if u := theirs(&link); u.String() != "https://example.com" {
		t.Error(&u)
	}
	foreigner := session.NewClient(foreignServe(t, map[string]any{"host": func(u url.URL) string { return u.Host }}))
	defer foreigner.Close()
	var host func(url.URL) (string, error)
	foreigner.Call("host", &host)
	if name, err := host(link); name != "example.com" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}
