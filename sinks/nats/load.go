package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// load is one Delivery, encoded.
type load struct {
	replay   string
	copies   bool // of what was delivered before: sent whatever is there
	events   int
	entries  []entry
	waves    [][]int32 // entries that go side by side: the first of each key, the second of each, …
	body     []byte    // keys and events, one behind the other
	outcomes pipeline.Outcomes
	failed   map[uint64]bool // hashes of keys of which an event is not to be delivered now
}

// entry is an event that goes to a subject.
type entry struct {
	subject      string
	n            int // in the Delivery
	offset, hash uint64
	op           pipeline.Op
	key, end     uint32 // where key and event end in the body
	keyed        bool
}

func newLoad(d *pipeline.Delivery) *load {
	return &load{replay: d.Replay, copies: d.Replay != "" || d.Reason == pipeline.ReasonReplay, events: d.Events, failed: map[uint64]bool{},
		entries: make([]entry, 0, d.Events), body: make([]byte, 0, d.Bytes+400*d.Events)}
}

// parts are key and event of entry i.
func (l *load) parts(i int) (key, event []byte) {
	start := uint32(0)
	if i > 0 {
		start = l.entries[i-1].end
	}
	e := &l.entries[i]
	return l.body[start:e.key], l.body[e.key:e.end]
}

const reasonSuffix = "an earlier event of the key failed"

// set settles event n; the later ones of its key do not go.
func (l *load) set(n int, hash uint64, class pipeline.Class, reason string) {
	if l.outcomes == nil {
		l.outcomes = make(pipeline.Outcomes, l.events)
	}
	l.outcomes[n], l.failed[hash] = pipeline.Outcome{Class: class, Reason: reason}, true
}

// pack encodes the Delivery. What cannot be encoded is settled, with the later events of its key. An error is about the
// Delivery as a whole.
func (s *Sink) pack(ctx context.Context, l *load, d *pipeline.Delivery) error {
	w := s.o.Encoder.Writer(ctx, d.Replay)
	defer w.Close()
	depth := make(map[uint64]int, d.Events)
	var table *schemas.Table
	var topic *records.Topic
	var subject string
	return d.Each(func(n int, b *pipeline.Batch, i int, as pipeline.Op) error {
		ev := &b.Events[i]
		if l.failed[ev.Hash] {
			l.set(n, ev.Hash, pipeline.Retry, reasonSuffix)
			return nil
		}
		if t := b.TableOf(i); topic == nil || t != table {
			table, subject = t, s.subject(t)
			topic = s.o.Encoder.Topic(subject)
		}
		start := len(l.body)
		body, rec, err := w.Append(l.body, topic, b, i, as)
		if ee := (*encode.EventError)(nil); errors.As(err, &ee) {
			l.body = l.body[:start]
			l.set(n, ev.Hash, pipeline.Fatal, err.Error())
			return nil
		}
		if err != nil {
			return err
		}
		l.body = body
		op := ev.Op
		if as != pipeline.OpNone {
			op = as
		}
		wave := depth[ev.Hash]
		depth[ev.Hash]++
		if wave == len(l.waves) {
			l.waves = append(l.waves, nil)
		}
		l.waves[wave] = append(l.waves[wave], int32(len(l.entries)))
		l.entries = append(l.entries, entry{subject: subject, n: n, offset: uint64(b.Offset(i)), hash: ev.Hash, op: op,
			key: uint32(start + max(rec.Key, 0)), end: uint32(len(l.body)), keyed: rec.Key >= 0})
		return nil
	})
}

// send publishes the load, wave by wave. After an error it is not known what of it stands in the stream.
func (s *Sink) send(ctx context.Context, c *connection, l *load) error {
	clear(l.failed) // what goes stands before what pack has settled
	floor := s.floor()
	for _, wave := range l.waves {
		if err := s.wave(ctx, c, l, wave); err != nil {
			s.doubt(l, floor)
			return err
		}
	}
	s.settle(l)
	return nil
}

// sent is a message that is on its way.
type sent struct {
	entry  int32
	future jetstream.PubAckFuture
}

// wave publishes entries of different keys and waits for what becomes of them.
func (s *Sink) wave(ctx context.Context, c *connection, l *load, wave []int32) error {
	flying := make([]sent, 0, len(wave))
	for _, i := range wave {
		e := &l.entries[i]
		if l.failed[e.hash] {
			l.set(e.n, e.hash, pipeline.Retry, reasonSuffix)
			continue
		}
		again := false
		if !l.copies {
			var there bool
			if there, again = s.place(e); there {
				continue
			}
		}
		m := s.message(l, int(i), again)
		if size, most := int64(m.Size()), c.nc.MaxPayload(); size > most {
			l.set(e.n, e.hash, pipeline.Fatal, fmt.Sprintf("the message has %d bytes with its headers, the server takes %d: raise its max_payload, or leave columns out", size, most))
			continue
		}
		f, err := c.js.PublishMsgAsync(m, jetstream.WithStallWait(stall))
		if err != nil {
			return fmt.Errorf("subject %s: %w", e.subject, err)
		}
		flying = append(flying, sent{i, f})
	}
	for _, p := range flying {
		e := &l.entries[p.entry]
		select {
		case ack := <-p.future.Ok():
			s.stands(e, ack.Sequence, l.copies)
		case err := <-p.future.Err():
			if !tooLarge(err) {
				return fmt.Errorf("subject %s: %w", e.subject, err)
			}
			l.set(e.n, e.hash, pipeline.Fatal, fmt.Sprintf("the message is larger than stream %s takes: raise its max_msg_size, or leave columns out", s.o.Stream))
		case <-c.closed:
			return fmt.Errorf("subject %s: %w", e.subject, cmp.Or(c.nc.LastError(), nats.ErrConnectionClosed))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// message is entry i as it goes out; again: it stands in the stream, at the wrong place.
func (s *Sink) message(l *load, i int, again bool) *nats.Msg {
	e := &l.entries[i]
	key, event := l.parts(i)
	offset := strconv.FormatUint(e.offset, 10)
	h := make(nats.Header, 6)
	h[headerID] = []string{s.prefix + offset}
	h[headerOp] = []string{e.op.String()}
	h[jetstream.ExpectedStreamHeader] = []string{s.o.Stream}
	if e.keyed {
		h[headerKey] = []string{string(key)}
	}
	switch {
	case l.replay != "":
		h[headerReplay] = []string{l.replay}
		h[jetstream.MsgIDHeader] = []string{s.own + offset + "/" + l.replay}
	case l.copies: // wanted again, however often
	case again:
		h[jetstream.MsgIDHeader] = []string{s.own + offset + "/again"}
	default:
		h[jetstream.MsgIDHeader] = []string{s.own + offset}
	}
	return &nats.Msg{Subject: e.subject, Header: h, Data: event}
}
