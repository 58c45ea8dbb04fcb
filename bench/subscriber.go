package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/frames"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// roles of a child process.
var roles = map[string]func(args []string) error{"pull-subscribers": pullRole, "webhook-receiver": receiverRole, "binlog-floor": floorRole, "wal-floor": walRole}

// heard is what a child measured.
type heard struct {
	Addr     string    `json:",omitempty"` // of a receiver, in its first line
	First    time.Time `json:",omitzero"`  // of the first event
	Last     time.Time `json:",omitzero"`
	Events   int64
	Bytes    int64
	Requests int64  `json:",omitempty"`
	Beats    []beat `json:",omitempty"`
}

// client of Leat's API over HTTP/2 without TLS, on a connection of its own. It takes frames of a megabyte, as
// docs/subscribers.md advises.
func client(addr string, options ...connect.ClientOption) (leatv1connect.SubscriberServiceClient, *http.Client) {
	t := &http.Transport{Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxReadFrameSize: 1 << 20}}
	t.Protocols.SetUnencryptedHTTP2(true)
	h := &http.Client{Transport: t}
	return leatv1connect.NewSubscriberServiceClient(h, addr, options...), h
}

// pullRole takes events from one or more subscriptions until each has had so many, and discards them.
func pullRole(args []string) error {
	f := flag.NewFlagSet("pull-subscribers", flag.ContinueOnError)
	addr := f.String("addr", "", "URL of the API")
	subs := f.String("subscriptions", "", "names")
	stalled := f.String("stalled", "", "name of one that takes credit and then does nothing")
	events := f.Int64("events", 0, "how many each gets")
	beat := f.Bool("beat", false, "decode, and measure from the column `sent`")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := process.UntilParentEnds()
	defer cancel()
	if *stalled != "" {
		go stall(ctx, *addr, *stalled)
	}
	names := split(*subs)
	all, errs := make([]heard, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { all[i], errs[i] = pullOne(ctx, *addr, name, *events, *beat) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	sum := all[0]
	for _, h := range all[1:] {
		sum.Events, sum.Bytes = sum.Events+h.Events, sum.Bytes+h.Bytes
		if h.First.Before(sum.First) {
			sum.First = h.First
		}
		if h.Last.After(sum.Last) {
			sum.Last = h.Last
		}
	}
	return process.Print(sum)
}

type pullStream = connect.BidiStreamForClient[leatv1.PullRequest, leatv1.PullResponse]

// open begins a stream, and tries again while the server is not there yet.
func open(ctx context.Context, addr, name string, credit uint32, options ...connect.ClientOption) (*pullStream, error) {
	for {
		c, h := client(addr, options...)
		s := c.Pull(ctx)
		err := s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: name, Consumer: "bench"}}})
		if err == nil {
			err = s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: credit}}})
		}
		if err == nil {
			return s, nil
		}
		h.CloseIdleConnections()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// window of credit: how many events a subscriber lets stand. It acks an eighth of that at once, as docs/subscribers.md
// advises, and whatever is not a full batch: then nothing else may come for a while.
const (
	window    = 20_000
	ackEvery  = window / 8
	fullBatch = 500
)

func pullOne(ctx context.Context, addr, name string, want int64, beat bool) (h heard, err error) {
	options := []connect.ClientOption{connect.WithAcceptCompression("gzip", nil, nil)}
	if !beat {
		options = append(options, connect.WithCodec(frames.Codec{}))
	}
	var s *pullStream
	var m *leatv1.PullResponse
	for { // while a server starts it refuses the connection, or does not know the subscription yet
		if s, err = open(ctx, addr, name, window, options...); err != nil {
			return h, fmt.Errorf("pull %s: %w", name, err)
		}
		m, err = s.Receive()
		if code := connect.CodeOf(err); err == nil || ctx.Err() != nil || code != connect.CodeUnavailable && code != connect.CodeNotFound {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	h.First = time.Now()
	tables := map[uint32]int{} // table id → index of the column `sent`
	var unacked int64
	for ; err == nil; m, err = s.Receive() {
		e := m.GetEvents()
		if e == nil {
			continue
		}
		var n int64
		if beat {
			n = h.beats(e, tables, time.Now())
		} else {
			for raw := range frames.Raw(e) {
				n, h.Bytes = n+1, h.Bytes+int64(len(raw))
			}
			frames.Release(e)
		}
		h.Events += n
		h.Last = time.Now()
		unacked += n
		done := h.Events >= want
		if unacked < ackEvery && n >= fullBatch && !done {
			continue
		}
		if err := s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: e.Lease}}}); err != nil {
			return h, fmt.Errorf("ack %s: %w", name, err)
		}
		if done {
			return h, finish(s)
		}
		if err := s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: uint32(unacked)}}}); err != nil {
			return h, fmt.Errorf("credit %s: %w", name, err)
		}
		unacked = 0
	}
	return h, fmt.Errorf("pull %s after %d of %d events: %w", name, h.Events, want, err)
}

// finish says that nothing more will come and waits until the server has seen it, the last ack too.
func finish(s *pullStream) error {
	err := s.CloseRequest()
	for err == nil {
		_, err = s.Receive()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// beats takes when a message's events came.
func (h *heard) beats(e *leatv1.Events, tables map[uint32]int, now time.Time) (n int64) {
	for _, t := range e.Tables {
		tables[t.Id] = slices.IndexFunc(t.Columns, func(c *leatv1.Column) bool { return c.Name == "sent" })
	}
	for _, v := range e.Events {
		if i, ok := tables[v.Table]; ok && i >= 0 && v.Op == leatv1.Op_OP_INSERT && i < len(v.After.GetValues()) {
			h.Beats = append(h.Beats, beat{v.After.Values[i].GetInteger(), now.UnixMicro()})
			n++
		}
	}
	return n
}

// stall takes credit and never reads.
func stall(ctx context.Context, addr, name string) {
	s, err := open(ctx, addr, name, window)
	if err == nil {
		<-ctx.Done()
		_ = s.CloseRequest() // the process ends
	}
}

// receiverRole answers webhooks and discards them, until it is stopped.
func receiverRole(args []string) error {
	f := flag.NewFlagSet("webhook-receiver", flag.ContinueOnError)
	measure := f.Bool("beat", false, "measure from the column `sent`")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := process.UntilParentEnds()
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var first, last, bytes, requests atomic.Int64
	var mu sync.Mutex
	var beats []beat
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if *measure {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			now := time.Now().UnixMicro()
			mu.Lock()
			beats = sent(beats, body, now)
			mu.Unlock()
		} else {
			n, _ := io.Copy(io.Discard, r.Body) // a request that broke off is sent again
			bytes.Add(n)
		}
		now := time.Now().UnixNano()
		first.CompareAndSwap(0, now)
		last.Store(now)
		requests.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() {
		<-ctx.Done()
		_ = srv.Close() // Serve says how it ended
	}()
	if err := process.Print(heard{Addr: "http://" + l.Addr().String()}); err != nil {
		return err
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return process.Print(heard{First: time.Unix(0, first.Load()), Last: time.Unix(0, last.Load()), Bytes: bytes.Load(), Requests: requests.Load(),
		Events: int64(len(beats)), Beats: beats})
}

// sent finds the column in the JSON of one or several events, without decoding them: it is only a number.
func sent(dst []beat, body []byte, now int64) []beat {
	field := []byte(`"sent":`)
	for {
		at := bytes.Index(body, field)
		if at < 0 {
			return dst
		}
		body = body[at+len(field):]
		end := bytes.IndexAny(body, ",}")
		if end < 0 {
			return dst
		}
		if micros, err := strconv.ParseInt(strings.TrimSpace(string(body[:end])), 10, 64); err == nil {
			dst = append(dst, beat{micros, now})
		}
	}
}
