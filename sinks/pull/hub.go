// Package pull lets clients fetch events over the API: a stream with credits, or Receive, Ack, Extend.
//
// Each pull subscription is a Sink; one Hub serves them all. Events go out under leases; what is
// neither acked nor extended in time is tried again, and with it the later events of its keys.
// A client that disconnects loses nothing and costs no attempt: what it had not acked goes back to its
// place and is sent, in order, to whoever comes.
package pull

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// Hub serves all pull subscriptions.
type Hub struct {
	// Authorize, when set, says whether the caller may read the subscription; its error is returned to
	// the caller. The context is the request's, as interceptors left it.
	Authorize func(ctx context.Context, subscription string) error
	// Starting, when set, says whether a subscription that has no sink yet is about to have one: its clients
	// are told to come again instead of that it does not exist.
	Starting func(subscription string) bool
	// Fetch, when set, answers FetchRequests; it is called once the caller may read the subscription.
	Fetch func(ctx context.Context, r *leatv1.FetchRequest) (Fetched, error)

	mu    sync.Mutex
	sinks map[string]*Sink
	epoch uint64
	wg    sync.WaitGroup
}

// Fetched answers a FetchRequest. Several callers may have the same, so nobody writes to it.
type Fetched struct {
	// Events are entries of leat.v1.Events.events, as encode.Proto makes them.
	Events []byte
	// Source of the events, and the Tables that they are of.
	Source string
	Tables []*leatv1.Table
	// Next is where the next Fetch begins; End: all that was asked for was looked at.
	Next uint64
	End  bool
}

// NewHub returns a Hub without subscriptions.
func NewHub() *Hub { return &Hub{sinks: map[string]*Sink{}} }

// Sink makes the named subscription known; one of the same name is replaced, and its clients are to
// connect again.
func (h *Hub) Sink(name string, o Options) *Sink {
	if o.Lease <= 0 {
		o.Lease = 30 * time.Second
	}
	h.mu.Lock()
	h.epoch = max(h.epoch+1, uint64(time.Now().UnixMicro()))
	s := &Sink{name: name, o: o, hub: h, epoch: h.epoch, closing: make(chan struct{}), next: 1,
		early: map[uint64]*item{}, owners: map[*owner]struct{}{}, leases: map[uint64]*lease{}}
	old := h.sinks[name]
	h.sinks[name] = s
	h.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return s
}

func (h *Hub) remove(s *Sink) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sinks[s.name] == s {
		delete(h.sinks, s.name)
	}
}

// Handler returns the path and handler of leat.v1.SubscriberService. Streams need HTTP/2. Responses are
// never compressed: on a local network that costs more than it saves.
func (h *Hub) Handler(opts ...connect.HandlerOption) (string, http.Handler) {
	opts = append([]connect.HandlerOption{connect.WithCompressMinBytes(math.MaxInt)}, opts...)
	path, next := leatv1connect.NewSubscriberServiceHandler(&service{h}, opts...)
	return path, exposeWriter(next)
}

// Wait blocks until the goroutines of all streams are gone; call it when the HTTP server was closed.
func (h *Hub) Wait() { h.wg.Wait() }

// Fetch reads a stretch of the log, where the Hub can.
func (s *service) Fetch(ctx context.Context, r *connect.Request[leatv1.FetchRequest]) (*connect.Response[leatv1.FetchResponse], error) {
	name := r.Msg.GetSubscription()
	switch {
	case s.h.Fetch == nil:
		return nil, connect.NewError(connect.CodeUnimplemented, errors.New("this server fetches no stretches of the log"))
	case name == "":
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("no subscription named"))
	}
	if s.h.Authorize != nil {
		if err := s.h.Authorize(ctx, name); err != nil {
			return nil, err
		}
	}
	f, err := s.h.Fetch(ctx, r.Msg)
	if err != nil {
		return nil, err
	}
	m := &leatv1.FetchResponse{Events: &leatv1.Events{Source: f.Source, Tables: f.Tables}, Next: f.Next, End: f.End}
	if err := setEvents(m.Events, f.Events, strings.Contains(r.Header().Get("Content-Type"), "json")); err != nil {
		return nil, err
	}
	return connect.NewResponse(m), nil
}

// service implements the handler; apart from Hub so that its methods are not Hub's.
type service struct{ h *Hub }

// find returns the running sink of a subscription that the caller may read.
func (h *Hub) find(ctx context.Context, name string) (*Sink, error) {
	if name == "" {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("no subscription named"))
	}
	if h.Authorize != nil {
		if err := h.Authorize(ctx, name); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	s := h.sinks[name]
	h.mu.Unlock()
	if s == nil && h.Starting != nil && h.Starting(name) {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("pull subscription %q is being started: connect again", name))
	}
	if s == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no running pull subscription %q: see `leat status`", name))
	}
	return s, nil
}

var errClosed = connect.NewError(connect.CodeUnavailable, errors.New("the subscription was stopped or started again: connect again"))
