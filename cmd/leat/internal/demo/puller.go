package demo

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// window is how many events a puller lets stand.
const window = 5000

// puller takes the events of a pull subscription and acknowledges what it has applied.
type puller struct {
	*replica
	name string
	why  atomic.Pointer[string] // why the last stream ended
}

// run pulls until ctx ends, and connects again when a stream breaks.
func (p *puller) run(ctx context.Context, addr string) {
	for ctx.Err() == nil {
		if err := p.stream(ctx, addr); err != nil && ctx.Err() == nil {
			why := err.Error()
			p.why.Store(&why)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (p *puller) stream(ctx context.Context, addr string) error {
	// A message is 100 KB and more: in frames of 16 KB, the default, it costs both ends more.
	t := &http.Transport{Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxReadFrameSize: 1 << 20}}
	t.Protocols.SetUnencryptedHTTP2(true) // credits and acks travel up while events come down
	defer t.CloseIdleConnections()
	s := leatv1connect.NewSubscriberServiceClient(&http.Client{Transport: t}, "http://"+addr).Pull(ctx)
	// Without this a stream that waits for our messages does not notice that ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = s.CloseRequest() })
	defer stop()
	defer s.CloseResponse()
	defer s.CloseRequest()
	send := func(m *leatv1.PullRequest) error {
		if err := s.Send(m); err != nil {
			return fmt.Errorf("pull %s: %w", p.name, err)
		}
		return nil
	}
	credit := func(n int) *leatv1.PullRequest {
		return &leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: uint32(n)}}}
	}
	start := &leatv1.Start{Subscription: p.name, Consumer: "leat demo"}
	if err := send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: start}}); err != nil {
		return err
	}
	if err := send(credit(window)); err != nil {
		return err
	}
	known := map[[2]uint32]*shape{}
	for {
		m, err := s.Receive()
		if err != nil {
			return fmt.Errorf("pull %s: %s: %w", p.name, connect.CodeOf(err), err)
		}
		e := m.GetEvents()
		if e == nil {
			continue
		}
		changes, err := translate(e, known)
		if err != nil {
			return err
		}
		p.take(changes)
		if err := send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: e.Lease, Epoch: e.Epoch}}}); err != nil {
			return err
		}
		if err := send(credit(len(e.Events))); err != nil {
			return err
		}
	}
}

// shape is a version of a table as the stream told it.
type shape struct {
	table   int
	columns []int // the stream's columns among the demo's; -1: not there
}

func translate(e *leatv1.Events, known map[[2]uint32]*shape) ([]change, error) {
	for _, t := range e.Tables {
		i, is := tableOf(t.Name)
		if !is || t.Schema != space {
			continue
		}
		sh := &shape{table: i}
		for _, c := range t.Columns {
			sh.columns = append(sh.columns, tables[i].column(c.Name))
		}
		known[[2]uint32{t.Id, t.Version}] = sh
	}
	var changes []change
	for _, v := range e.Events {
		sh := known[[2]uint32{v.Table, v.TableVersion}]
		if sh == nil || len(v.Key) == 0 {
			continue
		}
		c, err := sh.change(v)
		if err != nil {
			return nil, fmt.Errorf("event %s-%d: %w", e.Source, v.Offset, err)
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func (sh *shape) change(v *leatv1.Event) (c change, err error) {
	t := tables[sh.table]
	c = change{offset: v.Offset, table: sh.table, op: strings.ToLower(strings.TrimPrefix(v.Op.String(), "OP_")), commit: time.UnixMicro(v.TimeMicros)}
	if c.key, _, err = plain.fromProto(v.Key[0]); err != nil {
		return c, err
	}
	if v.KeyChange != nil {
		c.other = v.KeyChange.Offset
	}
	if v.After == nil || v.Op == leatv1.Op_OP_DELETE { // a delete of a key change may carry both images
		return c, nil
	}
	c.after = t.empty()
	for i, value := range v.After.Values {
		at := sh.columns[i]
		if at < 0 {
			continue
		}
		var absent bool
		if c.after[at], absent, err = t.columns[at].kind.fromProto(value); err != nil {
			return c, err
		}
		if absent {
			if c.absent == nil {
				c.absent = make([]bool, len(t.columns))
			}
			c.absent[at] = true
		}
	}
	return c, nil
}
