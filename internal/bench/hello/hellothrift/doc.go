// Package hellothrift is what Kitex makes of hello.thrift. See package benchthrift for what it takes.
package hellothrift

//go:generate sh -c "cd .. && kitex -module github.com/yonder-rpc/yonder/internal/bench -gen-path . hellothrift/hello.thrift"
//go:generate sh -c "grep -rL --include=*.go --exclude=doc.go go:build . | xargs -r sed -i '1i //go:build peers\\n'"
