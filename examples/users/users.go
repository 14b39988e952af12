package main

import "errors"

// User is what the server knows of somebody.
type User struct {
	Name string
	Age  int
}

// errSuspended is an error that errors.Is finds at the other end, too.
var errSuspended = errors.New("the user is suspended")

// listed gives the errors that cross the connection the names they cross by. Both
// ends have it.
var listed = map[string]error{"users.errSuspended": errSuspended}
