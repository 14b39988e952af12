module github.com/yonder-rpc/yonder/resilience

go 1.26.0

// github.com/yonder-rpc/yonder itself comes from go.work until it has a release: Go asks
// the network for any version that is required, even one that a workspace replaces.

require (
	github.com/failsafe-go/failsafe-go v0.9.8
	golang.org/x/time v0.16.0
)

require (
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/influxdata/tdigest v0.0.1 // indirect
	golang.org/x/exp v0.0.0-20240604190554-fc45aab8b7f8 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	gonum.org/v1/gonum v0.17.0 // indirect
	google.golang.org/grpc v1.85.0 // indirect
)
