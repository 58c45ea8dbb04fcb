package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// script answers Deliveries one after another; when it is at its end, all succeed.
type answer func(d *pipeline.Delivery) (pipeline.Outcomes, error)

type scene struct {
	t    *testing.T
	l    *pipetest.MemoryLog
	m    *memory
	sink *pipetest.RecordingSink
	run  *run
	mu   sync.Mutex
	at   []time.Duration // when each Delivery came
	got  []string        // offsets of each
}

// seen returns what came so far and when.
func (s *scene) seen() (got []string, at []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got), slices.Clone(s.at)
}

// times are when the first n Deliveries came; all, when n is 0.
func (s *scene) times(n int) string {
	_, at := s.seen()
	if n > 0 {
		at = at[:n]
	}
	return fmt.Sprint(at)
}

// play runs a subscription whose sink answers by script, in virtual time.
func play(t *testing.T, edit func(*Config), script ...answer) *scene {
	s := &scene{t: t, l: pipetest.NewMemoryLog("log", first), m: newMemory(), sink: pipetest.NewRecordingSink()}
	began := time.Now()
	s.sink.Answer = func(_ context.Context, d *pipeline.Delivery, events []pipetest.Delivered) (pipeline.Outcomes, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.at = append(s.at, time.Since(began).Round(100*time.Millisecond))
		text := ""
		for _, e := range events {
			text += fmt.Sprintf("%d ", e.Offset-first)
		}
		s.got = append(s.got, strings.TrimSpace(text))
		if n := len(s.got); n <= len(script) {
			return script[n-1](d)
		}
		return nil, nil
	}
	c := config(s.l, s.m, s.sink)
	c.MaxInFlight, c.Rand = 1, func() float64 { return 0.5 }
	if edit != nil {
		edit(&c)
	}
	s.run = start(t, c)
	return s
}

func (s *scene) after(d time.Duration) Status {
	time.Sleep(d)
	synctest.Wait()
	return s.run.Status()
}

func (s *scene) want(got ...string) {
	s.t.Helper()
	if seen, _ := s.seen(); fmt.Sprint(seen) != fmt.Sprint(got) {
		s.t.Fatalf("delivered %q, want %q", seen, got)
	}
}

func whole(class pipeline.DeliveryClass, after time.Duration) answer {
	return func(*pipeline.Delivery) (pipeline.Outcomes, error) {
		return nil, &pipeline.DeliveryError{Class: class, RetryAfter: after, Reason: "said no"}
	}
}

func each(classes ...pipeline.Class) answer {
	return func(*pipeline.Delivery) (pipeline.Outcomes, error) {
		out := make(pipeline.Outcomes, len(classes))
		for i, c := range classes {
			out[i] = pipeline.Outcome{Class: c, Reason: "said so"}
		}
		return out, nil
	}
}

func scenes(t *testing.T, all map[string]func(t *testing.T)) {
	for name, f := range all {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
}

func TestEveryClassOfReply(t *testing.T) {
	scenes(t, map[string]func(t *testing.T){
		"partial: the suffix of the key comes again, neighbours do not": func(t *testing.T) {
			s := play(t, nil, each(pipeline.OK, pipeline.Retry, pipeline.OK, pipeline.OK))
			appendTo(t, s.l, keys(1, 2, 1, 2)...) // offsets 1 and 3 are key 2
			s.after(2 * time.Second)
			s.want("0 1 2 3", "1 3")
			s.run.end()
		},
		"fatal: dead letter, and the key goes on": func(t *testing.T) {
			s := play(t, nil, each(pipeline.Fatal, pipeline.OK, pipeline.OK))
			appendTo(t, s.l, keys(1, 2, 1)...)
			s.after(time.Second)
			s.want("0 1 2", "2")
			d := s.m.dead[first]
			if d.ID != "files-1000" || d.Reason != "said so" || len(d.Attempts) != 1 || string(d.Event) != `{"offset":1000}` || d.KeyJSON != "key-1" || d.Table != "public.files" {
				t.Fatalf("%+v", d)
			}
			s.run.end()
		},
		"malformed outcomes: all again": func(t *testing.T) {
			s := play(t, nil, each(pipeline.OK))
			appendTo(t, s.l, keys(1, 2)...)
			s.after(2 * time.Second)
			s.want("0 1", "0 1")
			s.run.end()
		},
		"an unknown error is retriable": func(t *testing.T) {
			s := play(t, nil, func(*pipeline.Delivery) (pipeline.Outcomes, error) { return nil, errors.New("reset") })
			appendTo(t, s.l, keys(1)...)
			if st := s.after(500 * time.Millisecond); st.State != StateRetrying || !strings.Contains(st.Reason, "files-1000: reset") || st.Until.IsZero() {
				t.Fatalf("%+v", st)
			}
			s.after(time.Second)
			s.want("0", "0")
			s.run.end()
		},
		"whole: once more, then bisected by key; the poison alone spends attempts": func(t *testing.T) {
			poison := func(d *pipeline.Delivery) (pipeline.Outcomes, error) {
				err := d.Each(func(_ int, b *pipeline.Batch, i int, _ pipeline.Op) error {
					if b.Offset(i) == first+2 {
						return errors.New("500")
					}
					return nil
				})
				return nil, err
			}
			var script []answer
			for range 50 {
				script = append(script, poison)
			}
			s := play(t, func(c *Config) { c.Retry.Attempts, c.Exhausted = 2, ExhaustedSkip }, script...)
			appendTo(t, s.l, keys(1, 2, 3, 4)...)
			s.after(time.Minute)
			s.want("0 1 2 3", "0 1 2 3", "0 1", "2 3", "2", "3", "2")
			if len(s.m.dead) != 1 || len(s.m.dead[first+2].Attempts) != 5 {
				t.Fatalf("%+v", s.m.dead)
			}
			s.run.end()
		},
		"unavailable: waits and probes, spends nothing, says why": func(t *testing.T) {
			var script []answer
			for range 20 {
				script = append(script, whole(pipeline.Unavailable, 0))
			}
			s := play(t, func(c *Config) { c.MaxInFlight, c.Retry.Attempts, c.Retry.Age = 8, 1, time.Second }, script...)
			appendTo(t, s.l, keys(1, 2)...)
			if st := s.after(100 * time.Second); st.State != StateWaiting || !strings.Contains(st.Reason, "unavailable: said no") || st.Until.IsZero() {
				t.Fatalf("%+v", st)
			}
			if s.times(0) != "[0s 1s 3s 7s 15s 31s 1m3s]" {
				t.Fatalf("probed at %v", s.times(0))
			}
			if st := s.after(time.Hour); st.State != StateRunning || st.Low != first+2 || len(s.m.dead) != 0 {
				t.Fatalf("%+v, dead %d", st, len(s.m.dead))
			}
			s.run.end()
		},
		"unavailable: Retry-After is honoured to 15 minutes": func(t *testing.T) {
			s := play(t, func(c *Config) { c.Rand = func() float64 { return 0 } }, whole(pipeline.Unavailable, 90*time.Second), whole(pipeline.Unavailable, 24*time.Hour))
			appendTo(t, s.l, keys(1)...)
			s.after(time.Hour)
			if s.times(0) != "[0s 1m30s 16m30s]" {
				t.Fatalf("at %v", s.times(0))
			}
			s.run.end()
		},
		"defer: after its delay, spending nothing": func(t *testing.T) {
			later := func(*pipeline.Delivery) (pipeline.Outcomes, error) {
				return pipeline.Outcomes{{Class: pipeline.Defer, Delay: 5 * time.Second}}, nil
			}
			s := play(t, func(c *Config) { c.Retry.Attempts, c.Exhausted = 1, ExhaustedSkip }, later, later)
			appendTo(t, s.l, keys(1)...)
			s.after(time.Minute)
			if s.times(0) != "[0s 5s 10s]" || len(s.m.dead) > 0 {
				t.Fatalf("at %v, dead %v", s.times(0), s.m.dead)
			}
			s.run.end()
		},
		"too large: halved and remembered; a single event is a dead letter": func(t *testing.T) {
			most := 0
			small := func(d *pipeline.Delivery) (pipeline.Outcomes, error) {
				most = max(most, d.Events)
				bad := d.Each(func(_ int, b *pipeline.Batch, i int, _ pipeline.Op) error {
					if d.Events > 2 || b.Offset(i) == first+3 {
						return &pipeline.DeliveryError{Class: pipeline.TooLarge}
					}
					return nil
				})
				return nil, bad
			}
			var script []answer
			for range 20 {
				script = append(script, small)
			}
			s := play(t, nil, script...)
			appendTo(t, s.l, keys(1, 2, 3, 4)...)
			s.after(0)
			s.want("0 1 2 3", "0 1", "2 3", "2", "3")
			if len(s.m.dead) != 1 || !strings.Contains(s.m.dead[first+3].Reason, "too large") {
				t.Fatalf("%+v", s.m.dead)
			}
			most = 0
			appendTo(t, s.l, keys(1, 2, 3, 5, 6, 7)...)
			s.after(0)
			if most > 2 {
				t.Fatalf("a Delivery of %d after it was told that it is too large", most)
			}
			s.run.end()
		},
		"gone: paused, events kept, over a restart": func(t *testing.T) {
			s := play(t, nil, whole(pipeline.Gone, 0))
			appendTo(t, s.l, keys(1)...)
			if st := s.after(time.Hour); st.State != StatePaused || !strings.Contains(st.Reason, "asked to stop") || len(s.got) != 1 {
				t.Fatalf("%+v %q", st, s.got)
			}
			c := s.run.cfg
			s.run.end()
			s.run = start(t, c)
			if st := s.after(time.Hour); st.State != StatePaused || len(s.got) != 1 {
				t.Fatalf("%+v", st)
			}
			if err := s.run.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.after(0)
			s.want("0", "0")
			s.run.end()
		},
		"poison: one of several does not take its neighbours along": func(t *testing.T) {
			s := play(t, nil, whole(pipeline.Poison, 0), whole(pipeline.Poison, 0))
			appendTo(t, s.l, keys(1, 2)...)
			s.after(0)
			s.want("0 1", "0", "1")
			if len(s.m.dead) != 1 {
				t.Fatalf("%v", s.m.dead)
			}
			s.run.end()
		},
		"block: nothing else goes, until it is taken": func(t *testing.T) {
			var script []answer
			for range 5 {
				script = append(script, each(pipeline.Retry))
			}
			s := play(t, func(c *Config) { c.Retry = Retry{Initial: time.Second, Max: 8 * time.Second, Attempts: 3} }, script...)
			appendTo(t, s.l, keys(1)...)
			s.after(4 * time.Second)
			appendTo(t, s.l, keys(2)...)
			if st := s.after(time.Second); st.State != StateBlocked || !strings.Contains(st.Reason, "files-1000") || !strings.Contains(st.Reason, "leat seek sub --to 1001") || st.Until.IsZero() {
				t.Fatalf("%+v", st)
			}
			if st := s.after(time.Minute); st.State != StateRunning || st.Low != first+2 || len(s.m.dead) > 0 {
				t.Fatalf("%+v", st)
			}
			s.want("0", "0", "0", "0", "0", "0", "1")
			if s.times(6) != "[0s 1s 3s 11s 19s 27s]" {
				t.Fatalf("at %v", s.times(0))
			}
			s.run.end()
		},
		"skip: dead letter after the attempts, then the key goes on": func(t *testing.T) {
			s := play(t, func(c *Config) { c.Retry.Attempts, c.Exhausted = 2, ExhaustedSkip }, each(pipeline.Retry, pipeline.OK), each(pipeline.Retry, pipeline.OK))
			appendTo(t, s.l, keys(1, 1)...)
			s.after(time.Minute)
			s.want("0 1", "0 1", "1")
			if d := s.m.dead[first]; len(d.Attempts) != 2 || !strings.Contains(d.Reason, "given up after 2 attempts") {
				t.Fatalf("%+v", d)
			}
			s.run.end()
		},
	})
}

func TestStateTroubleLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var script []answer
		for range 100 {
			script = append(script, func(d *pipeline.Delivery) (pipeline.Outcomes, error) {
				out := make(pipeline.Outcomes, d.Events)
				if d.Runs[0].Batch.Offset(int(d.Runs[0].From)) == first {
					out[0].Class = pipeline.Fatal
				}
				return out, nil
			})
		}
		s := play(t, func(c *Config) { c.Resolved = time.Second }, script...)
		told := atomic.Uint64{}
		s.run.end()
		c := s.run.cfg
		c.Sink = resolving{s.sink, &told}
		s.run = start(t, c)
		s.m.setFail(errors.New("disk full"))
		appendTo(t, s.l, keys(1)...)
		if st := s.after(3 * time.Second); st.Low != first || st.Dead != 0 {
			t.Fatalf("passed an event whose dead letter is not stored: %+v", st)
		}
		appendTo(t, s.l, keys(2)...)
		if st := s.after(3 * time.Second); st.SaveError == "" || st.Persisted != first || told.Load() != 0 {
			t.Fatalf("resolved %d told, %+v", told.Load(), st)
		}
		s.m.setFail(nil)
		if st := s.after(time.Minute); st.Low != first+2 || st.SaveError != "" || len(s.m.dead) != 1 || told.Load() != uint64(first+2) {
			t.Fatalf("resolved %d told, %+v", told.Load(), st)
		}
		s.run.end()
	})
}

type resolving struct {
	pipeline.Sink
	told *atomic.Uint64
}

func (r resolving) Resolve(_ context.Context, o pipeline.Offset, _ time.Time) error {
	r.told.Store(uint64(o))
	return nil
}

func TestSeekPauseAndRefusals(t *testing.T) {
	scenes(t, map[string]func(t *testing.T){
		"seek past a blocked event lists it": func(t *testing.T) {
			hang := whole(pipeline.Retriable, 0)
			s := play(t, func(c *Config) { c.Retry.Attempts = 1 }, hang)
			appendTo(t, s.l, keys(1, 1, 2)...)
			s.after(0)
			if err := s.run.Seek(t.Context(), Start{Offset: first + 1}, "poison"); err != nil {
				t.Fatal(err)
			}
			s.after(0)
			s.want("0 1 2", "1 2")
			if len(s.m.skips) != 1 || s.m.skips[0].Ranges[0] != (pipeline.OffsetRange{From: first, To: first + 1}) || s.m.skips[0].Reason != "poison" {
				t.Fatalf("%+v", s.m.skips)
			}
			if err := s.run.Seek(t.Context(), Start{Offset: first}, ""); err == nil || !strings.Contains(err.Error(), "replay") {
				t.Fatalf("went back: %v", err)
			}
			s.run.end()
		},
		"a cursor of another log, and one beyond the end, are refused with the cure": func(t *testing.T) {
			for _, c := range []pipeline.Cursor{{Log: "other", Low: 5, High: 5}, {Log: "log", Low: first + 50, High: first + 50}} {
				s := play(t, nil)
				s.run.end()
				s.m.cursors["sub"] = c
				appendTo(t, s.l, keys(1)...)
				s.run = start(t, s.run.cfg)
				if st := s.after(0); st.State != StateStopped || !strings.Contains(st.Reason, "leat seek sub --to") || len(s.got) > 0 {
					t.Fatalf("%+v", st)
				}
				if err := s.run.Seek(t.Context(), Start{}, "restored"); err != nil {
					t.Fatal(err)
				}
				s.after(0)
				s.want("0")
				s.run.end()
			}
		},
		"retention: what is gone is listed and said": func(t *testing.T) {
			s := play(t, nil)
			s.run.end()
			appendTo(t, s.l, keys(1, 2)...)
			appendTo(t, s.l, keys(3)...)
			s.l.Truncate(first + 2)
			warned := ""
			c := s.run.cfg
			c.Observer.Warned = func(_, what, _ string) { warned = what }
			s.run = start(t, c)
			s.after(0)
			s.want("2")
			if len(s.m.skips) != 1 || s.m.skips[0].Ranges[0] != (pipeline.OffsetRange{From: first, To: first + 2}) || warned == "" {
				t.Fatalf("%+v %q", s.m.skips, warned)
			}
			s.run.end()
		},
		"pause drops buffers and keeps events": func(t *testing.T) {
			s := play(t, nil)
			if err := s.run.Pause(t.Context(), "rebuild"); err != nil {
				t.Fatal(err)
			}
			appendTo(t, s.l, keys(1, 2)...)
			if st := s.after(time.Minute); st.State != StatePaused || st.Reason != "rebuild" || len(s.got) > 0 || st.Buffered != 0 {
				t.Fatalf("%+v", st)
			}
			if err := s.run.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.after(0)
			s.want("0 1")
			s.run.end()
			if err := s.run.Pause(t.Context(), ""); !errors.Is(err, ErrNotRunning) {
				t.Fatal(err)
			}
		},
		"from": func(t *testing.T) {
			for from, want := range map[Start]string{{}: "0 1 2", {Latest: true}: "", {Offset: first + 1}: "1 2"} {
				s := play(t, nil)
				s.run.end()
				delete(s.m.cursors, "sub")
				appendTo(t, s.l, keys(1, 2, 3)...)
				c := s.run.cfg
				c.From = from
				s.run = start(t, c)
				s.after(0)
				if got := strings.Join(s.got, " "); got != want {
					t.Fatalf("from %+v: %q", from, got)
				}
				s.run.end()
			}
		},
	})
}

func TestBatchWaitFillsDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, func(c *Config) { c.Batch = Batch{Events: 3, Wait: time.Second} })
		appendTo(t, s.l, keys(1)...)
		s.after(500 * time.Millisecond)
		s.want()
		appendTo(t, s.l, keys(2)...)
		s.after(600 * time.Millisecond)
		s.want("0 1")
		appendTo(t, s.l, keys(1, 2, 3)...)
		s.after(0)
		s.want("0 1", "2 3 4")
		s.run.end()
	})
}

// TestAHungSubscriberMovesNobody: memory of the hung one is bounded by its budget, another one goes on.
func TestAHungSubscriberMovesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, func(c *Config) { c.Budget, c.Grace = 4096, time.Second; c.MaxInFlight = 4 })
		s.sink.Answer = func(ctx context.Context, _ *pipeline.Delivery, _ []pipetest.Delivered) (pipeline.Outcomes, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		other := pipetest.NewRecordingSink()
		c := config(s.l, newMemory(), other)
		healthy := start(t, c)
		largest := int64(0)
		for range 200 {
			b := batchOf(time.Now(), keys(1, 2, 3, 4, 5)...)
			largest = max(largest, int64(b.Size()))
			if _, err := s.l.Append(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if st := s.run.Status(); st.Buffered > 4096+largest || st.Low != first {
			t.Fatalf("%+v", st)
		}
		if st := healthy.Status(); st.Low != first+1000 || len(other.All()) != 1000 {
			t.Fatalf("%+v", st)
		}
		healthy.end()
		s.run.end()
	})
}
