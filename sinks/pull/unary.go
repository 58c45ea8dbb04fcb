package pull

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

const (
	defaultWait  = 20 * time.Second
	longestWait  = 60 * time.Second
	defaultBatch = 100
	largestBatch = 10_000
)

// Receive implements leatv1connect.SubscriberServiceHandler.
func (v *service) Receive(ctx context.Context, req *connect.Request[leatv1.ReceiveRequest]) (*connect.Response[leatv1.ReceiveResponse], error) {
	m := req.Msg
	s, err := v.h.find(ctx, m.Subscription)
	if err != nil {
		return nil, err
	}
	c := newOwner(m.Consumer, true)
	c.events = int64(min(max(m.MaxEvents, 0), largestBatch))
	if c.events == 0 {
		c.events = defaultBatch
	}
	if m.MaxBytes > 0 {
		c.bounded, c.bytes = true, int64(min(m.MaxBytes, 1<<40))
	}
	wait := defaultWait
	if m.Wait != nil {
		wait = min(m.Wait.AsDuration(), longestWait)
	}
	var g grant
	raw, ok, err := s.receive(ctx, c, &g, wait)
	if err != nil {
		return nil, err
	}
	out := &leatv1.ReceiveResponse{}
	if ok {
		out.Events = &leatv1.Events{Epoch: s.epoch, Source: s.o.Source}
		out.Lease = token(s.epoch, g.lease)
		if err := s.fill(out.Events, &g, raw, strings.Contains(req.Header().Get("Content-Type"), "json")); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(out), nil
}

// receive waits for events; without any the owner is gone when it returns.
func (s *Sink) receive(ctx context.Context, c *owner, g *grant, wait time.Duration) (raw []byte, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, errClosed
	}
	s.join(c)
	defer func() {
		if !ok {
			s.leave(c, "is done")
		}
	}()
	var timer <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	for !s.take(c, g) {
		if wait <= 0 {
			return nil, false, nil
		}
		s.mu.Unlock()
		select {
		case <-c.wakes:
		case <-timer:
			wait = 0
		case <-s.closing:
			err = errClosed
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		if err != nil {
			return nil, false, err
		}
	}
	return g.copyTo(nil), true, nil
}

// token names a lease across restarts: one of an older epoch is known to be old.
func token(epoch, lease uint64) string {
	return strconv.FormatUint(epoch, 36) + "-" + strconv.FormatUint(lease, 36)
}

func parseToken(name string) (epoch, lease uint64, ok bool) {
	before, after, found := strings.Cut(name, "-")
	epoch, err1 := strconv.ParseUint(before, 36, 64)
	lease, err2 := strconv.ParseUint(after, 36, 64)
	return epoch, lease, found && err1 == nil && err2 == nil
}

// leaseNamed returns the lease of a token, nil when it has ended. Called with mu held.
func (s *Sink) leaseNamed(name string) (*lease, error) {
	e, l, ok := parseToken(name)
	if !ok {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("lease: want the name that Receive returned"))
	}
	if e != s.epoch {
		return nil, nil
	}
	if found := s.leases[l]; found != nil && found.owner.once {
		return found, nil
	}
	return nil, nil
}

// Ack implements leatv1connect.SubscriberServiceHandler.
func (v *service) Ack(ctx context.Context, req *connect.Request[leatv1.AckRequest]) (*connect.Response[leatv1.AckResponse], error) {
	m := req.Msg
	s, err := v.h.find(ctx, m.Subscription)
	if err != nil {
		return nil, err
	}
	if !m.All && len(m.Offsets) == 0 && len(m.Nacks) == 0 {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("name offsets or nacks, or set all"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.leaseNamed(m.Lease)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New(s.tooLate(m.Lease)))
	}
	out := &leatv1.AckResponse{}
	// Nacks go first: they revoke the later events of their keys, also those acked in the same breath.
	for _, n := range m.Nacks {
		if !s.nack(l, n.Offset, verdict(n.Verdict, n.Delay.AsDuration(), n.Reason)) {
			out.Refused = append(out.Refused, n.Offset)
		}
	}
	if len(m.Offsets) > 0 {
		out.Refused = append(out.Refused, s.ack(l, m.Offsets)...)
	}
	if m.All {
		s.ack(l, nil)
	}
	s.settled()
	return connect.NewResponse(out), nil
}

// Extend implements leatv1connect.SubscriberServiceHandler.
func (v *service) Extend(ctx context.Context, req *connect.Request[leatv1.ExtendRequest]) (*connect.Response[leatv1.ExtendResponse], error) {
	s, err := v.h.find(ctx, req.Msg.Subscription)
	if err != nil {
		return nil, err
	}
	if len(req.Msg.Leases) == 0 { // a deadline would tell a misspelt request that all is well
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("name the leases to extend"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	deadline := time.Now().Add(s.o.Lease)
	out := &leatv1.ExtendResponse{Deadline: timestamp(deadline)}
	for _, name := range req.Msg.Leases {
		l, err := s.leaseNamed(name)
		if err != nil {
			return nil, err
		}
		if l == nil {
			out.Refused = append(out.Refused, name)
			continue
		}
		l.deadline = deadline
	}
	return connect.NewResponse(out), nil
}
