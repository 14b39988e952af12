// Functions registers and binds functions, in each of the ways there are. TestDeadCode
// looks at what the linker makes of it.
package main

import (
	"context"
	"fmt"

	"github.com/yonder-rpc/yonder"
)

type service struct{ N int }

//go:noinline
func (s *service) Add(n int) int { return s.N + n }

//go:noinline
func (s *service) Uncalled(n int) int { return s.N - n }

func main() {
	s := &service{1}
	var srv yonder.Server
	srv.Register("Add", s.Add)
	srv.Add(yonder.Procedure{Name: "self", Func: func(any) *service { return s }}) // so that reflection can reach it
	yonder.Handle(&srv, "same", func(_ context.Context, s *service) (*service, error) { return s, nil })
	go srv.ListenAndServe("127.0.0.1:0")

	client := yonder.Local(&srv)
	var calls struct {
		Add func(n int) (int, error) `yonder:"Add"`
	}
	client.BindService("service", &calls)
	var self func(any) (*service, error)
	client.Bind("self", &self)
	same := yonder.Remote[*service, *service](client, "same")
	fmt.Println(self(s))
	fmt.Println(same(context.Background(), s))
	fmt.Println(client.Procedures(context.Background()))
	fmt.Println(yonder.Dial(context.Background(), "127.0.0.1:1"))
}
