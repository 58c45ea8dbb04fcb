package nats

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/leat-cdc/leat/pipeline"
)

// tail is what is known of the stream's end. The sink's mu guards it.
type tail struct {
	// looked: the stream was asked for over this connection. read: nothing is in doubt.
	looked, read bool
	// all: what an earlier process delivered is in doubt; else what unsure has.
	all    bool
	unsure map[uint64]struct{} // offsets of Deliveries that ended without all their answers
	doubts int                 // how often read became false
	// from is the sequence in the stream from which what is in doubt may stand; 0: it is not known, see since.
	from  uint64
	since time.Time // before which nothing that is in doubt was published; zero: not known
	// top is the highest sequence that was seen.
	top uint64
	// known are events in doubt that were found, by offset, with where they stand.
	known map[uint64]uint64
	most  uint64 // the highest of them
	// last is the latest event of a key, of keys that may have such events: the next has to stand behind it.
	last map[uint64]placed
}

// placed is an event that stands in the stream.
type placed struct{ offset, sequence uint64 }

// skew is how far the server's clock may be from ours.
const skew = time.Minute

// farthest is how many messages are looked at where it is not known since when.
const farthest = 1 << 20

// begin is the stream as a session finds it.
func (t *tail) begin(c pipeline.Cursor) {
	*t = tail{all: true, unsure: map[uint64]struct{}{}, doubts: t.doubts + 1, since: c.Worked, known: map[uint64]uint64{}, last: map[uint64]placed{}}
}

// floor is the sequence above which what is published from now on will stand.
func (s *Sink) floor() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tail.top
}

// doubt has the stream looked at before the next Delivery: of l not all that was sent is known to be there, or not.
func (s *Sink) doubt(l *load, floor uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.tail
	if t.read {
		t.from = floor + 1
	} else if t.from > 0 {
		t.from = min(t.from, floor+1)
	}
	t.read = false
	t.doubts++
	for i := range l.entries {
		t.unsure[l.entries[i].offset] = struct{}{}
	}
}

// settle forgets what was in doubt of a Delivery that is known to be there.
func (s *Sink) settle(l *load) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.tail
	for i := 0; i < len(l.entries) && len(t.unsure)+len(t.known) > 0; i++ {
		delete(t.unsure, l.entries[i].offset)
		delete(t.known, l.entries[i].offset)
	}
}

// place reports whether the event need not go, since it stands behind what went before of its key; again: it stands before
// that, as the stream had lost it.
func (s *Sink) place(e *entry) (there, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.tail
	at, found := t.known[e.offset]
	if !found {
		return false, false
	}
	last := t.last[e.hash]
	if last.offset < e.offset && last.sequence > at {
		return false, true
	}
	t.last[e.hash] = placed{e.offset, at}
	return true, false
}

// stands notes where an event was put.
func (s *Sink) stands(e *entry, at uint64, isCopy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.tail
	t.top = max(t.top, at)
	if !isCopy && e.offset <= t.most {
		t.last[e.hash] = placed{e.offset, at}
	}
}

// look asks for the stream and reads what is in doubt of it. Called with the turn.
func (s *Sink) look(ctx context.Context, c *connection) error {
	stream, err := s.stream(ctx, c)
	if err != nil {
		return fmt.Errorf("stream %s: %w", s.o.Stream, err)
	}
	info := stream.CachedInfo()
	s.mu.Lock()
	t := &s.tail
	doubts, end := t.doubts, info.State.LastSeq
	if end < t.top { // it was made anew
		t.from, t.top = min(t.from, 1), 0
		clear(t.known)
		clear(t.last)
	}
	reading := jetstream.OrderedConsumerConfig{HeadersOnly: true, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: t.from, InactiveThreshold: 30 * time.Second}
	switch {
	case t.from > 0:
	case t.since.IsZero():
		reading.OptStartSeq = max(end, farthest) - farthest + 1
	default:
		since := t.since.Add(-s.o.Timeout - skew)
		reading.DeliverPolicy, reading.OptStartSeq, reading.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &since
	}
	// What consumers take away the stream cannot tell of.
	need := !t.read && reading.OptStartSeq <= end && info.State.Msgs > 0 && info.Config.Retention == jetstream.LimitsPolicy
	s.mu.Unlock()
	if need {
		if err := s.read(ctx, stream, reading, end, doubts); err != nil {
			return fmt.Errorf("read the end of stream %s: %w", s.o.Stream, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.looked, t.top = true, max(t.top, end)
	if t.doubts == doubts {
		t.read, t.all, t.from = true, false, end+1
	}
	return nil
}

// read notes what stands in the stream, up to end.
func (s *Sink) read(ctx context.Context, stream jetstream.Stream, reading jetstream.OrderedConsumerConfig, end uint64, doubts int) error {
	consumer, err := stream.OrderedConsumer(ctx, reading)
	if err != nil {
		return err
	}
	if consumer.CachedInfo().NumPending == 0 {
		return nil
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		at, err := m.Metadata()
		if err != nil {
			return err
		}
		s.found(m.Headers().Get(jetstream.MsgIDHeader), at.Sequence.Stream, doubts)
		if at.NumPending == 0 || at.Sequence.Stream >= end {
			return nil
		}
	}
}

// found notes a message of the stream.
func (s *Sink) found(id string, at uint64, doubts int) {
	offset, ours := s.offset(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.tail
	if t.doubts == doubts {
		t.from = at + 1 // where the next one reads on, if this ends before
	}
	if _, unsure := t.unsure[offset]; ours && (t.all || unsure) {
		t.known[offset], t.most = max(t.known[offset], at), max(t.most, offset)
	}
}

// offset is that of the event that a message of this id holds, unless it is another's or a copy.
func (s *Sink) offset(id string) (offset uint64, ours bool) {
	text, ours := strings.CutPrefix(id, s.own)
	if !ours {
		return 0, false
	}
	digits, rest, _ := strings.Cut(text, "/")
	if rest != "" && rest != "again" {
		return 0, false
	}
	offset, err := strconv.ParseUint(digits, 10, 64)
	return offset, err == nil
}
