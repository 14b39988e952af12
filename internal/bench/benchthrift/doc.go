// Package benchthrift is what Kitex makes of bench.thrift.
//
// To make it again, have these in PATH:
//
//	go install github.com/cloudwego/kitex/tool/cmd/kitex@v0.16.0
//	go install github.com/cloudwego/thriftgo@v0.4.3
package benchthrift

//go:generate sh -c "cd .. && kitex -module github.com/yonder-rpc/yonder/internal/bench -gen-path . benchthrift/bench.thrift"
//go:generate sh -c "grep -rL --include=*.go --exclude=doc.go go:build . | xargs -r sed -i '1i //go:build peers\\n'"
