package main

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// watcher pulls a subscription and keeps, of each row, a column: what a subscriber's table is.
type watcher struct {
	name   string
	column string // that is kept
	came   func(e *leatv1.Event, value int64)

	mu   sync.Mutex
	rows []int32 // by id: the column's value and 1, 0 = no row
	seen int64   // events
}

// httpClient returns one whose connections end with ctx.
func httpClient(ctx context.Context) *http.Client {
	t := &http.Transport{Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxReadFrameSize: 1 << 20}}
	t.DialContext = func(dial context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(dial, network, addr)
		if err == nil {
			context.AfterFunc(ctx, func() { _ = c.Close() }) // which says what is open there
		}
		return c, err
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: t}
}

// follow pulls until ctx ends, over all connections that are lost.
func (w *watcher) follow(ctx context.Context, addr string) {
	for ctx.Err() == nil {
		_ = w.pull(ctx, addr) // the server is not there yet, or no more
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (w *watcher) pull(ctx context.Context, addr string) error {
	h := httpClient(ctx)
	defer h.CloseIdleConnections()
	s := leatv1connect.NewSubscriberServiceClient(h, addr, connect.WithAcceptCompression("gzip", nil, nil)).Pull(ctx)
	const window = 20_000
	err := s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: w.name, Consumer: "bench"}}})
	if err == nil {
		err = s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: window}}})
	}
	tables := map[uint32][2]int{} // places of id and column
	for err == nil {
		var m *leatv1.PullResponse
		if m, err = s.Receive(); err != nil {
			return err
		}
		e := m.GetEvents()
		if e == nil {
			continue
		}
		for _, t := range e.Tables {
			place := func(name string) int {
				return slices.IndexFunc(t.Columns, func(c *leatv1.Column) bool { return c.Name == name })
			}
			tables[t.Id] = [2]int{place("id"), place(w.column)}
		}
		w.mu.Lock()
		for _, v := range e.Events {
			w.take(v, tables[v.Table])
		}
		w.mu.Unlock()
		if err = s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: e.Lease}}}); err == nil {
			err = s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: uint32(len(e.Events))}}})
		}
	}
	return err
}

func (w *watcher) take(e *leatv1.Event, at [2]int) {
	w.seen++
	row, value := e.After.GetValues(), int64(-1)
	if len(row) == 0 {
		row = e.Before.GetValues()
	} else if at[1] >= 0 {
		value = row[at[1]].GetInteger()
	}
	if w.came != nil {
		w.came(e, value)
		return
	}
	if at[0] < 0 || at[0] >= len(row) {
		return
	}
	id := int(row[at[0]].GetInteger())
	for id >= len(w.rows) {
		w.rows = append(w.rows, make([]int32, 1<<20)...)
	}
	w.rows[id] = int32(value + 1)
}
