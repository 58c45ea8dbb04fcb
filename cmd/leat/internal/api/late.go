package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// lateCompletions tells the audit log who acked what was no longer leased to him: that his lease is too short, or his
// client hangs, shows there. Of one subscription one in a while, with how many there were since: a client that is
// always late must not push everything else out of the log.
type lateCompletions struct {
	b Backend

	mu   sync.Mutex
	told map[string]lateCount
}

type lateCount struct {
	at    time.Time
	since int
}

// lateEvery is the least time between two entries of one subscription.
const lateEvery = time.Minute

// WrapUnary looks at refused Acks. It stands inside of what checks roles.
func (l *lateCompletions) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, r)
		a, ok := r.Any().(*leatv1.AckRequest)
		if ce := new(connect.Error); ok && errors.As(err, &ce) && ce.Code() == connect.CodeFailedPrecondition {
			l.tell(ctx, a.GetSubscription(), map[string]any{"lease": a.GetLease()}, ce.Message())
		}
		return resp, err
	}
}

// WrapStreamingClient changes nothing: there are no clients here.
func (l *lateCompletions) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler looks at what a Pull answers to acks.
func (l *lateCompletions) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, &lateConn{StreamingHandlerConn: conn, ctx: ctx, l: l})
	}
}

type lateConn struct {
	connect.StreamingHandlerConn
	ctx          context.Context // of the one call that it lives in
	l            *lateCompletions
	mu           sync.Mutex // Send and Receive go at once
	subscription string
}

// Receive notes what the stream is of.
func (c *lateConn) Receive(m any) error {
	err := c.StreamingHandlerConn.Receive(m)
	if p, ok := m.(*leatv1.PullRequest); ok && err == nil && p.GetStart() != nil {
		c.mu.Lock()
		c.subscription = p.GetStart().GetSubscription()
		c.mu.Unlock()
	}
	return err
}

// Send tells of a refusal that it sends.
func (c *lateConn) Send(m any) error {
	if p, ok := m.(*leatv1.PullResponse); ok && p.GetRefused() != nil {
		c.mu.Lock()
		name := c.subscription
		c.mu.Unlock()
		c.l.tell(c.ctx, name, map[string]any{"lease": p.GetRefused().GetLease()}, p.GetRefused().GetReason())
	}
	return c.StreamingHandlerConn.Send(m)
}

func (l *lateCompletions) tell(ctx context.Context, subscription string, args map[string]any, why string) {
	now := time.Now()
	l.mu.Lock()
	n := l.told[subscription]
	if n.since++; !n.at.IsZero() && now.Sub(n.at) < lateEvery {
		l.told[subscription] = n
		l.mu.Unlock()
		return
	}
	if l.told == nil {
		l.told = map[string]lateCount{}
	}
	l.told[subscription] = lateCount{at: now}
	l.mu.Unlock()
	if n.since > 1 {
		why += fmt.Sprintf(" (%d completions of this subscription came too late since the last entry)", n.since)
	}
	text, err := json.Marshal(args)
	if err != nil {
		text = []byte("{}")
	}
	l.b.Audit(context.WithoutCancel(ctx), Change{Action: "ack", Target: subscription, Arguments: string(text), Err: errors.New(why), Refused: true})
}
