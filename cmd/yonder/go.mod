module github.com/yonder-rpc/yonder/cmd/yonder

go 1.26

// github.com/yonder-rpc/yonder itself comes from go.work until it has a release: Go asks
// the network for any version that is required, even one that a workspace replaces.
require (
	github.com/rogpeppe/go-internal v1.16.0
	github.com/spf13/cobra v1.10.2
)

require (
	github.com/fxamacker/cbor/v2 v2.9.6 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	golang.org/x/sys v0.26.0 // indirect
	golang.org/x/tools v0.26.0 // indirect
)
