package deliver

import "context"

// reading is the loop's side of the reader's goroutine.
type reading struct {
	r     *reader
	ctx   context.Context // of the session
	stop  context.CancelFunc
	err   chan error
	ended bool // err was taken
}

func (v *reading) begin(ctx context.Context, r *reader) {
	v.r, v.ctx = r, ctx
	ctx, v.stop = context.WithCancel(ctx)
	v.err, v.ended = make(chan error, 1), false
	go func() { v.err <- r.run(ctx) }()
}

// join waits for the reader's end; what it sent last may still be in the channel.
func (v *reading) join() {
	if v.stop(); !v.ended {
		<-v.err
		v.ended = true
	}
}

// giveBack drops what was read ahead and was not scanned, and has it read again. A replay keeps what it has: it
// counts as it reads.
func (s *session) giveBack() {
	if s.cfg.window != nil || s.reading.ended || s.stopping {
		return
	}
	v := &s.reading
	v.stop()
	for !v.ended {
		select {
		case it := <-s.items:
			it.release(s.budget, false)
		case err := <-v.err:
			if v.ended = true; err != nil {
				s.end = err
			}
		}
	}
	for len(s.items) > 0 {
		(<-s.items).release(s.budget, false)
	}
	dropped := false
	for it := s.stream.drop(); it != nil; it = s.stream.drop() {
		s.live.remove(it)
		it.release(s.budget, false)
		dropped = true
	}
	if dropped {
		it, _ := s.stream.peek()
		s.front.Cut(it.next)
	}
	if s.end == nil {
		v.r.pos, v.r.pending = s.front.End(), s.start.Pending
		v.begin(v.ctx, v.r)
	}
}
