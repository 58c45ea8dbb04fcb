package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

type pullStream = connect.BidiStream[leatv1.PullRequest, leatv1.PullResponse]

func newOwner(name string, once bool) *owner {
	return &owner{name: name, since: time.Now(), once: once, wakes: make(chan struct{}, 1), known: map[*schemas.Table]struct{}{}}
}

// Pull implements leatv1connect.SubscriberServiceHandler.
func (v *service) Pull(ctx context.Context, stream *pullStream) error {
	req, err := stream.Receive()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	start := req.GetStart()
	if start == nil {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the first message of a Pull must be a Start"))
	}
	s, err := v.h.find(ctx, start.Subscription)
	if err != nil {
		return err
	}
	c := newOwner(start.Consumer, false)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed
	}
	s.join(c)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.leave(c, "disconnected")
		s.mu.Unlock()
	}()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v.h.wg.Go(func() { cancel(s.listen(stream, c)) }) // ends when the handler returns, at the latest
	return s.sendLoop(ctx, stream, c)
}

// errDone ends a stream whose client said that it sends nothing more.
var errDone = errors.New("done")

// listen takes the client's messages until there are no more; it returns why.
func (s *Sink) listen(stream *pullStream, c *owner) error {
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return errDone
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		err = s.request(c, req)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// request carries out one message. Called with mu held.
func (s *Sink) request(c *owner, req *leatv1.PullRequest) error {
	if s.closed {
		return errClosed
	}
	switch m := req.Message.(type) {
	case *leatv1.PullRequest_Credit:
		const most = 1 << 40 // more would only overflow
		c.events = min(c.events+int64(m.Credit.Events), most)
		if m.Credit.Bytes > 0 {
			c.bounded = true
			c.bytes = min(c.bytes+int64(min(m.Credit.Bytes, most)), most)
		}
		c.signal()
	case *leatv1.PullRequest_Ack:
		s.streamAck(c, m.Ack)
	case *leatv1.PullRequest_Nack:
		n := m.Nack
		l := s.leaseOf(c, n.Lease, n.Epoch)
		if l == nil || !s.nack(l, n.Offset, verdict(n.Verdict, n.Delay.AsDuration(), n.Reason)) {
			c.refuse(n.Lease, []uint64{n.Offset})
		}
		s.settled()
	case *leatv1.PullRequest_Extend:
		s.streamExtend(c, m.Extend.Leases)
	default:
		return connect.NewError(connect.CodeInvalidArgument, errors.New("a message of a Pull must be one of credit, ack, nack, extend"))
	}
	return nil
}

// settled finishes Deliveries of which nothing is open, and sends on.
func (s *Sink) settled() {
	if !s.sweep() {
		s.wake()
	}
}

func (s *Sink) leaseOf(c *owner, id, epoch uint64) *lease {
	if epoch != 0 && epoch != s.epoch {
		return nil
	}
	if l := s.leases[id]; l != nil && l.owner == c {
		return l
	}
	return nil
}

func (s *Sink) streamAck(c *owner, a *leatv1.Ack) {
	if a.Epoch != 0 && a.Epoch != s.epoch {
		c.refuse(max(a.Lease, a.UpToLease), a.Offsets)
		return
	}
	for a.UpToLease > 0 && len(c.leases) > 0 && c.leases[0].id <= a.UpToLease {
		l := c.leases[0]
		s.ack(l, nil)
		s.endLease(l)
	}
	if a.Lease > 0 {
		if l := s.leaseOf(c, a.Lease, 0); l == nil {
			c.refuse(a.Lease, a.Offsets)
		} else if refused := s.ack(l, a.Offsets); len(refused) > 0 {
			c.refuse(a.Lease, refused)
		}
	}
	s.settled()
}

func (s *Sink) streamExtend(c *owner, ids []uint64) {
	deadline := time.Now().Add(s.o.Lease)
	out := &leatv1.Extended{Deadline: timestamp(deadline)}
	if len(ids) == 0 {
		for _, l := range c.leases {
			l.deadline = deadline
			out.Leases = append(out.Leases, l.id)
		}
	}
	for _, id := range ids {
		if l := s.leaseOf(c, id, 0); l != nil {
			l.deadline = deadline
			out.Leases = append(out.Leases, id)
		} else {
			c.refuse(id, nil)
		}
	}
	c.notices = append(c.notices, &leatv1.PullResponse{Message: &leatv1.PullResponse_Extended{Extended: out}})
	c.signal()
}

// refuse tells the client that a completion had no effect.
func (c *owner) refuse(lease uint64, offsets []uint64) {
	c.notices = append(c.notices, &leatv1.PullResponse{Message: &leatv1.PullResponse_Refused{Refused: &leatv1.Refused{
		Lease: lease, Offsets: slices.Clone(offsets), Reason: reasonEnded}}})
	c.signal()
}

const reasonEnded = "the lease ended, or never held these events"

// maxReason bounds what a client may have us keep.
const maxReason = 500

func verdict(v leatv1.Verdict, delay time.Duration, reason string) pipeline.Outcome {
	o := pipeline.Outcome{Class: pipeline.Retry, Delay: max(delay, 0), Reason: "nack"}
	switch v {
	case leatv1.Verdict_VERDICT_FATAL:
		o.Class = pipeline.Fatal
	case leatv1.Verdict_VERDICT_DEFER:
		o.Class = pipeline.Defer
	}
	if reason != "" {
		if len(reason) > maxReason {
			reason = strings.ToValidUTF8(reason[:maxReason], "")
		}
		o.Reason = "nack: " + reason
	}
	return o
}

// sendLoop sends what there is until the client goes or the subscription ends.
func (s *Sink) sendLoop(ctx context.Context, stream *pullStream, c *owner) error {
	w := s.writer(ctx, stream)
	for {
		s.mu.Lock()
		notices := c.pending()
		for !w.full() && s.take(c, &w.g) {
			w.add()
		}
		s.mu.Unlock()
		for _, n := range notices {
			if err := stream.Send(n); err != nil {
				return err
			}
		}
		sent, err := w.send()
		if err != nil {
			return err
		}
		if sent {
			continue
		}
		select {
		case <-c.wakes:
		case <-s.closing:
			return errClosed
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errDone) {
				return err
			}
			return nil
		}
	}
}

// pending returns what the client is to be told beside events. What is revoked comes before the answers: a client that
// extends a lease behind a Nack knows by the answer that it was told all that the Nack revoked.
func (c *owner) pending() []*leatv1.PullResponse {
	var out []*leatv1.PullResponse
	for reason, offsets := range c.revoked {
		out = append(out, &leatv1.PullResponse{Message: &leatv1.PullResponse_Revoked{Revoked: &leatv1.Revoked{Offsets: offsets, Reason: reason}}})
	}
	clear(c.revoked)
	out = append(out, c.notices...)
	c.notices = nil
	if c.resolved != nil {
		out = append(out, &leatv1.PullResponse{Message: &leatv1.PullResponse_Resolved{Resolved: c.resolved}})
		c.resolved = nil
	}
	return out
}

// fill makes the message.
func (s *Sink) fill(m *leatv1.Events, g *grant, raw []byte, asJSON bool) error {
	s.head(m, g)
	return setEvents(m, raw, asJSON)
}

// setEvents sets m's events, which are bytes already: protobuf takes them as they are (they stand among the fields
// that it does not know, and it writes those too); JSON needs them decoded.
func setEvents(m *leatv1.Events, raw []byte, asJSON bool) error {
	if !asJSON {
		m.ProtoReflect().SetUnknown(raw)
		return nil
	}
	var decoded leatv1.Events
	if err := proto.Unmarshal(raw, &decoded); err != nil {
		return connect.NewError(connect.CodeInternal, fmt.Errorf("decode events for JSON: %w", err))
	}
	m.Events = decoded.Events
	return nil
}

// head sets everything but the events.
func (s *Sink) head(m *leatv1.Events, g *grant) {
	m.Lease, m.Deadline, m.Tables, m.Events = g.lease, timestamp(g.deadline), m.Tables[:0], nil
	for _, t := range g.tables {
		m.Tables = append(m.Tables, s.o.Encoder.Table(t))
	}
}
