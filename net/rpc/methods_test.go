package rpc_test

import (
	"math/big"
	"net"
	stock "net/rpc"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/yonder-rpc/yonder"
	"github.com/yonder-rpc/yonder/net/rpc"
)

// Offer has values whose encoding methods are their pointers'.
type Offer struct {
	Price big.Int
	Link  url.URL
	More  []big.Int
}

// Shop is a service that takes and gives such values.
type Shop struct{}

func (Shop) Double(n big.Int, reply *big.Int) error {
	reply.Add(&n, &n)
	return nil
}

func (Shop) Raise(o Offer, reply *Offer) error {
	*reply = o
	reply.Price.Add(&o.Price, big.NewInt(1))
	return nil
}

func (Shop) Home(link url.URL, reply *url.URL) error {
	reply.Scheme, reply.Host = link.Scheme, link.Host
	return nil
}

// shop is what a Shop is to clients that bind its methods.
type shop struct {
	Double func(big.Int) (big.Int, error)
	Raise  func(Offer) (Offer, error)
	Home   func(url.URL) (url.URL, error)
}

// Values whose encoding methods are their pointers' cross as they are, to and from all kinds of
// peers. The standard client can send them only by pointer.
func TestMethodsOfPointers(t *testing.T) {
	noLeaks(t)
	ours, theirs := rpc.NewServer(), stock.NewServer()
	ours.Register(Shop{})
	theirs.Register(Shop{})
	native := &yonder.Server{Protocols: []yonder.Protocol{rpc.Protocol}}
	native.Register("Shop.Double", func(n big.Int) (double big.Int) { Shop{}.Double(n, &double); return double })
	native.Register("Shop.Raise", func(o Offer) (raised Offer) { Shop{}.Raise(o, &raised); return raised })
	native.Register("Shop.Home", func(u url.URL) (home url.URL) { Shop{}.Home(u, &home); return home })

	over := func(c caller) *shop {
		return &shop{
			func(n big.Int) (r big.Int, err error) { err = c.Call("Shop.Double", n, &r); return },
			func(o Offer) (r Offer, err error) { err = c.Call("Shop.Raise", o, &r); return },
			func(u url.URL) (r url.URL, err error) { err = c.Call("Shop.Home", u, &r); return },
		}
	}
	equal := cmp.Comparer(func(a, b big.Int) bool { return a.Cmp(&b) == 0 })
	large := *new(big.Int).Exp(big.NewInt(-7), big.NewInt(101), nil)
	link := url.URL{Scheme: "https", Host: "example.com", Path: "/a", User: url.User("me")}
	for name, serve := range map[string]func(net.Conn){
		"yonder": func(c net.Conn) { native.ServeConn(c) }, "drop-in": func(c net.Conn) { ours.ServeConn(c) }, "standard": func(c net.Conn) { theirs.ServeConn(c) },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { // ends when l is closed
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go serve(c) // ends with the connection
			}
		}()
		defer l.Close()
		bound, err := rpc.Connect(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer bound.Close()
		var s shop
		bound.BindService("Shop", &s)
		dropIn, err := rpc.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer dropIn.Close()
		standard, err := stock.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer standard.Close()
		for client, s := range map[string]*shop{
			"yonder": &s, "drop-in": over(dropIn), "standard": {
				func(n big.Int) (r big.Int, err error) { err = standard.Call("Shop.Double", &n, &r); return },
				func(o Offer) (r Offer, err error) { err = standard.Call("Shop.Raise", &o, &r); return },
				func(u url.URL) (r url.URL, err error) { err = standard.Call("Shop.Home", &u, &r); return },
			},
		} {
			if n, err := s.Double(large); err != nil || n.Cmp(new(big.Int).Lsh(&large, 1)) != 0 {
				t.Errorf("%s to %s: %s, %v", client, name, &n, err)
			}
			offer := Offer{Price: *big.NewInt(9), Link: link, More: []big.Int{large}}
			raised := offer
			raised.Price = *big.NewInt(10)
			if got, err := s.Raise(offer); err != nil || !cmp.Equal(raised, got, equal, cmp.AllowUnexported(url.Userinfo{})) {
				t.Errorf("%s to %s: %v, %v", client, name, got, err)
			}
			if u, err := s.Home(link); err != nil || u.String() != "https://example.com" {
				t.Errorf("%s to %s: %v, %v", client, name, &u, err)
			}
		}
	}
	t.Cleanup(func() { ours.Close(); native.Close() })
}
