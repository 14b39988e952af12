// Package hellopb is what protoc makes of hello.proto. See package benchpb for what it takes.
package hellopb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative hello.proto
