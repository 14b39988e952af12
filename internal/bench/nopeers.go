//go:build linux && !peers

package main

const (
	buildTags = ""
	heavyHint = "; with go run -tags peers also rpcx, kitex"
)

// heavyEntrants are there with -tags peers: they bring 80 modules with them.
func heavyEntrants() []entrant { return nil }
