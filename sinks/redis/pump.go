package redis

import (
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/leat-cdc/leat/pipeline"
)

// One pipeline takes the Deliveries that wait, up to so many commands and bytes.
const (
	pipelineEvents = 20_000
	pipelineBytes  = 8 << 20
)

// rounds is how often commands are sent that were refused because others write to the stream too.
const rounds = 5

func (s *Sink) enqueue(l *load) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return pipeline.ErrClosed
	}
	s.queue = append(s.queue, l)
	if !s.running {
		s.running = true
		s.wg.Go(s.pump)
	}
	return nil
}

// pump sends what is queued, pipeline by pipeline, until nothing is: one at a time, so that ids are given in the order in
// which they arrive.
func (s *Sink) pump() {
	for {
		loads := s.take()
		if len(loads) == 0 {
			return
		}
		err := s.send(loads)
		for _, l := range loads {
			if err != nil {
				l.end(err)
			}
		}
	}
}

// take takes the Deliveries of one pipeline from the queue.
func (s *Sink) take() (loads []*load) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != s.resumed {
		s.session, s.began = s.resumed, s.cursor
		clear(s.streams)
	}
	events, bytes := 0, 0
	for len(s.queue) > 0 {
		l := s.queue[0]
		if l.gone() {
			s.queue = s.queue[1:]
			continue
		}
		if len(loads) > 0 && (events+len(l.entries) > pipelineEvents || bytes+len(l.body) > pipelineBytes) {
			break
		}
		events, bytes = events+len(l.entries), bytes+len(l.body)
		loads = append(loads, l)
		s.queue[0] = nil
		s.queue = s.queue[1:]
	}
	s.running = len(loads) > 0
	return loads
}

// part is what one pipeline has for one stream.
type part struct {
	st  *stream
	err error
	// again: another one wrote there between; its entries are gone through once more.
	again bool
}

// send sends the loads and ends them. An error is of all that have not ended.
func (s *Sink) send(loads []*load) error {
	var busy *part
	for range rounds {
		parts, err := s.parts(loads, busy != nil)
		if err != nil {
			return err
		}
		busy = s.exchange(loads, parts)
		s.settle(loads, parts)
		if busy == nil {
			return nil
		}
	}
	return &pipeline.DeliveryError{Class: pipeline.Unavailable, Congested: true,
		Reason: fmt.Sprintf("others write to stream %s, with ids that go before ours: let one subscription alone write to a stream", busy.st.name)}
}

// parts finds the streams of what has not ended, and looks at those that are in doubt.
func (s *Sink) parts(loads []*load, rest bool) (map[string]*part, error) {
	parts := map[string]*part{}
	for _, l := range loads {
		if rest && l.settled() {
			continue
		}
		for i := range l.entries {
			name := l.entries[i].stream
			if parts[name] != nil {
				continue
			}
			st := s.streams[name]
			if st == nil {
				st = s.begin(name)
				s.streams[name] = st
			}
			if !st.read {
				if err := s.look(s.ctx, st); err != nil {
					return nil, err
				}
			}
			parts[name] = &part{st: st}
		}
	}
	return parts, nil
}

// exchange sends one pipeline and takes the answers. It returns a part that was refused, nil when there is none.
func (s *Sink) exchange(loads []*load, parts map[string]*part) (busy *part) {
	pipe := s.client.Pipeline()
	var sent []*part // by command
	var p *part
	for _, l := range loads {
		if l.settled() {
			continue
		}
		for i := range l.entries {
			e := &l.entries[i]
			if p == nil || p.st.name != e.stream {
				p = parts[e.stream]
			}
			var to id
			if l.copies {
				to = p.st.next(e.offset)
			} else if at, there := p.st.place(e); there {
				continue
			} else {
				to = at
			}
			_ = pipe.Process(s.ctx, s.command(l, i, to)) // it is only queued
			sent = append(sent, p)
		}
	}
	if len(sent) == 0 {
		return nil
	}
	cmds, _ := pipe.Exec(s.ctx) // each has its own error
	for i, c := range cmds {
		p, err := sent[i], c.Err()
		switch {
		case err == nil:
		case redis.HasErrorPrefix(err, "The ID specified in XADD is equal or smaller"):
			p.again, busy = true, p
		case p.err == nil:
			p.err = err
		}
	}
	return busy
}

// command appends entry i of l.
func (s *Sink) command(l *load, i int, at id) *redis.StringCmd {
	e := &l.entries[i]
	args := make([]any, 0, 16)
	args = append(args, "XADD", e.stream)
	if s.o.MaxLen > 0 {
		args = append(args, "MAXLEN", "~", s.o.MaxLen)
	}
	args = append(args, at.append(make([]byte, 0, 24)), fieldID, appendUint(append(make([]byte, 0, len(s.prefix)+20), s.prefix...), e.offset), fieldOp, e.op.String())
	key, event := l.parts(i)
	if e.keyed {
		args = append(args, fieldKey, key)
	}
	args = append(args, fieldEvent, event)
	if l.copies {
		args = append(args, fieldReplay, l.replay)
	}
	return redis.NewStringCmd(s.ctx, args...)
}

// settle ends the loads of which all is known.
func (s *Sink) settle(loads []*load, parts map[string]*part) {
	for _, l := range loads {
		if l.settled() {
			continue
		}
		var err error
		again := false
		for i := range l.entries {
			p := parts[l.entries[i].stream]
			again = again || p.again
			if p.err != nil && err == nil {
				err = fmt.Errorf("stream %s: %w", p.st.name, p.err)
			}
		}
		// What is not done comes again: what of it stands there is to be seen then.
		if err == nil && again || !l.end(err) || err != nil {
			for i := range l.entries {
				parts[l.entries[i].stream].st.doubt()
			}
		}
	}
	for _, p := range parts {
		switch {
		case p.err != nil || p.again:
			p.st.doubt()
		case p.st.read:
			p.st.sure = p.st.top
		}
	}
}
