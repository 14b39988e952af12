// Service registers the methods of a value. TestDeadCode looks at what the linker makes
// of it.
package main

import "github.com/yonder-rpc/yonder"

type service struct{ N int }

//go:noinline
func (s *service) Add(n int) int { return s.N + n }

//go:noinline
func (s *service) Uncalled(n int) int { return s.N - n }

func main() {
	var srv yonder.Server
	srv.RegisterService("service", &service{1})
}
