package api

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// subscriberCheck holds each message of SubscriberService against the subscribe:NAME roles of its sender.
// A message that it does not know is refused.
type subscriberCheck struct{}

// WrapUnary checks Receive, Ack, Extend.
func (subscriberCheck) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		m, ok := r.Any().(interface{ GetSubscription() string })
		if !ok {
			return nil, errNoRole
		}
		if err := MaySubscribe(ctx, m.GetSubscription()); err != nil {
			return nil, err
		}
		return next(ctx, r)
	}
}

// WrapStreamingClient changes nothing: there are no clients here.
func (subscriberCheck) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler checks the Start of a Pull.
func (subscriberCheck) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if a := actorOf(ctx); a != nil && a.all {
			return next(ctx, conn)
		}
		c := &checkedConn{StreamingHandlerConn: conn, ctx: ctx}
		if err := next(ctx, c); err != nil || c.refused == nil {
			return err
		}
		return c.refused // a handler that takes every failed Receive for the end of the stream
	}
}

// checkedConn checks what is received. What is sent, which is most, goes past it.
type checkedConn struct {
	connect.StreamingHandlerConn
	ctx     context.Context // of the one call that it lives in
	started bool
	refused error
}

var errStart = connect.NewError(connect.CodeInvalidArgument, errors.New("the first message of a Pull must be a Start"))

// Receive passes a message on if its sender may send it.
func (c *checkedConn) Receive(m any) error {
	if err := c.StreamingHandlerConn.Receive(m); err != nil {
		return err
	}
	c.refused = c.check(m)
	return c.refused
}

func (c *checkedConn) check(m any) error {
	p, ok := m.(*leatv1.PullRequest)
	if !ok {
		return errNoRole
	}
	if s := p.GetStart(); s != nil {
		c.started = true
		return MaySubscribe(c.ctx, s.GetSubscription())
	}
	if !c.started {
		return errStart
	}
	return nil
}
