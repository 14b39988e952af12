// Package benchcapnp is what capnp makes of bench.capnp.
//
// To make it again, have capnp (Debian: capnproto) and this in PATH, and the folder std of the
// module capnproto.org/go/capnp/v3 as CAPNP_STD:
//
//	go install capnproto.org/go/capnp/v3/capnpc-go@v3.1.0-alpha.2
package benchcapnp

//go:generate capnp compile -I$CAPNP_STD -ogo bench.capnp
