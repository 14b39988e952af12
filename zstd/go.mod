module github.com/yonder-rpc/yonder/zstd

go 1.26

// github.com/yonder-rpc/yonder itself comes from go.work until it has a release: Go asks
// the network for any version that is required, even one that a workspace replaces.

require (
	github.com/klauspost/compress v1.20.3
)

require (
	github.com/fxamacker/cbor/v2 v2.9.6 // indirect
	github.com/x448/float16 v0.8.4 // indirect
)
