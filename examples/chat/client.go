package main

import (
	"context"
	"fmt"

	"github.com/yonder-rpc/yonder"
)

// guest is a client that prints what others say.
type guest struct {
	conn *yonder.Client
	chat struct {
		Join func(ctx context.Context, name string) error
		Say  func(ctx context.Context, text string) error
	}
}

func enter(ctx context.Context, address, name string) (*guest, error) {
	own := new(yonder.Server) // what the other end may call
	own.Register("hear", func(from, text string) {
		fmt.Printf("%s hears %s say: %s\n", name, from, text)
	})
	dialer := yonder.Dialer{Server: own}
	conn, err := dialer.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	g := &guest{conn: conn}
	conn.BindService("Chat", &g.chat)
	if err := g.chat.Join(ctx, name); err != nil {
		conn.Close()
		return nil, err
	}
	return g, nil
}

func client(ctx context.Context, address string) error {
	guests := map[string]*guest{}
	for _, name := range []string{"Ann", "Bob", "Joe"} {
		g, err := enter(ctx, address, name)
		if err != nil {
			return err
		}
		defer g.conn.Close()
		guests[name] = g
	}
	for _, line := range []struct{ from, text string }{
		{"Ann", "hello"}, {"Bob", "hello, Ann; I must go"}, {"Joe", "so soon?"},
	} {
		if err := guests[line.from].chat.Say(ctx, line.text); err != nil {
			return err
		}
		if line.from == "Bob" {
			guests["Bob"].conn.Close()
		}
	}
	return nil
}
