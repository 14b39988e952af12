//go:build linux && peers

package main

const (
	// buildTags is what the go command is to be told of that there are the heavy entrants.
	buildTags = "-tags peers "
	heavyHint = ""
)

// heavyEntrants are those that bring so many modules with them that they are there only when asked for.
func heavyEntrants() []entrant {
	return []entrant{
		{name: "rpcx", peer: true, can: everything &^ streams, serve: serveRPCX, dial: dialRPCX, hello: "./internal/bench/hello/rpcx",
			about: "MessagePack, its default"},
		{name: "kitex", peer: true, can: everything &^ (streams | numbered), serve: serveKitex, dial: dialKitex, hello: "./internal/bench/hello/kitex",
			about: "generated code, Thrift; tuned: one connection for all calls"},
	}
}
