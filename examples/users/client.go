package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/yonder-rpc/yonder"
)

func client(ctx context.Context, address string) error {
	dialer := yonder.Dialer{Errors: listed}
	c, err := dialer.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close()

	var query func(ctx context.Context, uid int) (User, error)
	c.Bind("queryUser", &query)

	for uid := range 4 {
		user, err := query(ctx, uid)
		switch {
		case yonder.CodeOf(err) == yonder.NotFound:
			fmt.Println("not found:", err)
		case errors.Is(err, errSuspended):
			fmt.Println("suspended:", err)
		case err != nil:
			return err
		default:
			fmt.Printf("user %d is %s, %d years old\n", uid, user.Name, user.Age)
		}
	}
	return nil
}
