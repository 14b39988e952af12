package main

import (
	"fmt"

	"github.com/yonder-rpc/yonder"
)

var users = map[int]User{
	0: {"Foo", 12},
	1: {"Bar", 13},
	2: {"Joe", 14},
}

func server() *yonder.Server {
	srv := &yonder.Server{Errors: listed}
	srv.Register("queryUser", queryUser)
	return srv
}

func queryUser(uid int) (User, error) {
	user, ok := users[uid]
	switch {
	case !ok:
		return User{}, yonder.Errorf(yonder.NotFound, "no user %d", uid)
	case user.Name == "Joe":
		return User{}, fmt.Errorf("user %d: %w", uid, errSuspended)
	}
	return user, nil
}
