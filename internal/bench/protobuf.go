//go:build linux

package main

import (
	"context"
	"errors"
	"io"

	"github.com/yonder-rpc/yonder/internal/bench/benchpb"
)

// What the entrants with code made by protoc have in common.

// pbEcho is the service, but for its streams.
type pbEcho struct{ made blobs }

func (e *pbEcho) Small(_ context.Context, it *benchpb.Item) (*benchpb.Item, error) {
	return it, nil
}

func (e *pbEcho) Bytes(_ context.Context, d *benchpb.Data) (*benchpb.Data, error) {
	return d, nil
}

func (e *pbEcho) Blob(_ context.Context, n *benchpb.Size) (*benchpb.Data, error) {
	return &benchpb.Data{Data: e.made.get(int(n.Size))}, nil
}

// sendItems sends n items.
func sendItems(n int, send func(*benchpb.Item) error) error {
	it := pbItem()
	for range n {
		if err := send(it); err != nil {
			return err
		}
	}
	return nil
}

// receiveItems returns how many items come before io.EOF.
func receiveItems(receive func() (*benchpb.Item, error)) (int, error) {
	for n := 0; ; n++ {
		it, err := receive()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err := checkPBItem(it, err); err != nil {
			return n, err
		}
	}
}

func pbItem() *benchpb.Item {
	it := anItem()
	return &benchpb.Item{Id: it.ID, Name: it.Name, Tags: it.Tags, Score: it.Score}
}

func checkPBItem(it *benchpb.Item, err error) error {
	if err == nil && (it.Id != 1<<40 || len(it.Name) != 16 || len(it.Tags) != 2 || it.Score != 0.25) {
		return errDiffers
	}
	return err
}

// A pbClient calls the service through what protoc has made.
type pbClient struct {
	item      *benchpb.Item
	callSmall func(context.Context, *benchpb.Item) (*benchpb.Item, error)
	callBytes func(context.Context, *benchpb.Data) (*benchpb.Data, error)
	callBlob  func(context.Context, *benchpb.Size) (*benchpb.Data, error)
	openUp    func(context.Context) (upStream, error)
	openDown  func(context.Context, *benchpb.Size) (downStream, error)
	shut      func() error
}

type upStream interface {
	Send(*benchpb.Item) error
	CloseAndRecv() (*benchpb.Size, error)
}

type downStream interface {
	Recv() (*benchpb.Item, error)
}

func (p *pbClient) small(ctx context.Context) error {
	return checkPBItem(p.callSmall(ctx, p.item))
}

func (p *pbClient) bytes(ctx context.Context, b []byte) error {
	d, err := p.callBytes(ctx, &benchpb.Data{Data: b})
	return checkBytes(d.GetData(), b, err)
}

func (p *pbClient) blob(ctx context.Context, n int) error {
	d, err := p.callBlob(ctx, &benchpb.Size{Size: int64(n)})
	return checkBlob(d.GetData(), n, err)
}

func (p *pbClient) up(ctx context.Context, n int) error {
	s, err := p.openUp(ctx)
	if err != nil {
		return err
	}
	if err := sendItems(n, s.Send); err != nil {
		return err
	}
	got, err := s.CloseAndRecv()
	return checkCount(int(got.GetSize()), n, err)
}

func (p *pbClient) down(ctx context.Context, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // some need it to let go of the stream
	s, err := p.openDown(ctx, &benchpb.Size{Size: int64(n)})
	if err != nil {
		return err
	}
	got, err := receiveItems(s.Recv)
	return checkCount(got, n, err)
}

func (p *pbClient) close() error { return p.shut() }
