package main

import "github.com/yonder-rpc/yonder"

func server() *yonder.Server {
	srv := new(yonder.Server)
	srv.Register("hello", hello)
	return srv
}

func hello(name string) string {
	return "Hello, " + name
}
