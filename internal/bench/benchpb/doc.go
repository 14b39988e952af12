// Package benchpb is what protoc makes of bench.proto, for the entrants that use Protocol Buffers.
//
// To make it again, have protoc (Debian: protobuf-compiler) and these in PATH:
//
//	go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
//	go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
//	go install connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1
//	go install storj.io/drpc/cmd/protoc-gen-go-drpc@v1.0.0
//	go install github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc@v1.2.10
package benchpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative --connect-go_out=. --connect-go_opt=paths=source_relative,simple --go-drpc_out=. --go-drpc_opt=paths=source_relative,json=false --go-ttrpc_out=. --go-ttrpc_opt=paths=source_relative,prefix=TTRPC bench.proto
