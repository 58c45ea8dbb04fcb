package kafka

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/pipeline"
)

func wholeOptions(t testing.TB, at string) Options {
	o := options(t, at)
	o.Whole = Whole{On: true, Timeout: time.Minute}
	return o
}

// part is a Delivery of a part of a transaction, or of its last one.
func part(t testing.TB, from, to int, ends bool) *pipeline.Delivery {
	d := deliveryOf(t, pipeline.Offset(1000+from), inserts(from, to)...)
	d.Ends = ends
	return d
}

// groups are the offsets of ours that another client reads, by the transactions of Kafka that they stand in, in a topic of
// one partition: of committed ones until one ends with last.
func groups(t testing.TB, at, topic string, last pipeline.Offset) (all [][]pipeline.Offset) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(at), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var now []pipeline.Offset
	for ctx := testContext(t); ; {
		for _, r := range c.PollFetches(ctx).Records() {
			switch o, err := strconv.ParseUint(header(r, headerOffset), 10, 64); {
			case !r.Attrs.IsControl() && err == nil:
				now = append(now, pipeline.Offset(o))
			case r.Attrs.IsControl() && len(now) > 0:
				if all = append(all, now); now[len(now)-1] == last {
					return all
				}
				now = nil
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("%v, then %v, not %d", all, now, last)
		}
	}
}

func want(t testing.TB, got [][]pipeline.Offset, ranges ...[2]int) {
	t.Helper()
	var all [][]pipeline.Offset
	for _, r := range ranges {
		var one []pipeline.Offset
		for o := r[0]; o < r[1]; o++ {
			one = append(one, pipeline.Offset(1000+o))
		}
		all = append(all, one)
	}
	if !slices.EqualFunc(got, all, slices.Equal) {
		t.Errorf("%v", got)
	}
}

// A transaction over several Deliveries is one of Kafka's; what is committed without a Delivery is one as well.
func TestWhole(t *testing.T) {
	t.Parallel()
	at := broker(t)
	o := wholeOptions(t, at)
	s := newSink(t, o)
	deliver(t, s, part(t, 0, 3, true))
	for i := range 4 {
		deliver(t, s, part(t, 3+10*i, 13+10*i, i == 3))
	}
	deliver(t, s, part(t, 43, 45, false))
	if err := s.Resolve(testContext(t), 1043, epoch); err == nil {
		t.Error("told what is resolved within a transaction")
	}
	redrive := part(t, 900, 901, true)
	redrive.Aside, redrive.Reason = true, pipeline.ReasonRedrive
	if out := deliver(t, s, redrive); len(out) != 1 || out[0].Class != pipeline.Defer {
		t.Errorf("beside an open transaction: %v", out)
	}
	for range 2 { // the second has nothing to do
		if err := s.Commit(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	if out := deliver(t, s, redrive); out != nil {
		t.Error(out)
	}
	if err := s.Resolve(testContext(t), 1045, epoch); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, part(t, 45, 50, true))
	want(t, groups(t, at, o.ID, 1049), [2]int{0, 3}, [2]int{3, 43}, [2]int{43, 45}, [2]int{900, 901}, [2]int{45, 50})
}

// A Delivery beside the stream comes when Kafka has taken back half of a transaction: the stream is told all the same, by
// its next Delivery or its Commit.
func TestWholeLostBeside(t *testing.T) {
	t.Parallel()
	at := broker(t)
	for _, commits := range []bool{false, true} {
		t.Run(strconv.FormatBool(commits), func(t *testing.T) {
			t.Parallel()
			o := wholeOptions(t, at)
			s := newSink(t, o)
			deliver(t, s, part(t, 0, 5, false))
			s.producer.fail(errors.New("a request was not answered"))
			replay := part(t, 900, 901, true)
			replay.Aside, replay.Reason, replay.Replay = true, pipeline.ReasonReplay, "job"
			if out := deliver(t, s, replay); len(out) != 1 || out[0].Class != pipeline.Defer {
				t.Errorf("beside what was lost: %v", out)
			}
			if commits {
				if err := s.Commit(testContext(t)); err == nil {
					t.Error("committed what was lost")
				}
			} else if e := whole(t, s, part(t, 5, 10, true)); e.Class != pipeline.Undone {
				t.Error(e)
			}
			s.Resume(pipeline.Cursor{Log: "x", Low: 1000, High: 1000})
			if out := deliver(t, s, replay); out != nil {
				t.Error(out)
			}
			deliver(t, s, part(t, 0, 5, false))
			deliver(t, s, part(t, 5, 10, true))
			want(t, groups(t, at, o.ID, 1009), [2]int{900, 901}, [2]int{0, 10})
		})
	}
}

// What a process that is gone had committed does not come again, and what it had not comes; a process that was thought gone
// writes nothing.
func TestWholeGoesOn(t *testing.T) {
	t.Parallel()
	at := broker(t)
	o := wholeOptions(t, at)
	o.Create.Partitions = 1
	var before *Sink
	for i := range 3 {
		s := newSink(t, o)
		s.Resume(pipeline.Cursor{Log: "x", Low: 1000, High: 1000})
		for tx := 0; tx <= i; tx++ { // all again from the beginning, each in two parts
			deliver(t, s, part(t, 20*tx, 20*tx+10, false))
			if tx < i || i < 2 {
				deliver(t, s, part(t, 20*tx+10, 20*tx+20, true))
			}
		}
		if i == 2 {
			deliver(t, s, part(t, 50, 55, false)) // and that is all
			before = s
		} else {
			deliver(t, s, part(t, 20*i+20, 20*i+25, false)) // aborted by the next
		}
	}
	last := newSink(t, o)
	last.Resume(pipeline.Cursor{Log: "x", Low: 1010, High: 1010})
	deliver(t, last, part(t, 10, 60, true))
	if e := whole(t, before, part(t, 55, 60, true)); e.Class != pipeline.Gone || !strings.Contains(e.Reason, "another process") {
		t.Error(e)
	}
	if err := before.Commit(testContext(t)); err == nil {
		t.Error("a zombie commits")
	}
	deliver(t, last, part(t, 60, 61, true))
	want(t, groups(t, at, o.ID, 1060), [2]int{0, 20}, [2]int{20, 40}, [2]int{40, 60}, [2]int{60, 61})
}

// What one mode wrote the other one knows, without what was never committed.
func TestWholeAndBack(t *testing.T) {
	t.Parallel()
	at := broker(t)
	o := wholeOptions(t, at)
	plain := o
	plain.Whole = Whole{}
	cursor := pipeline.Cursor{Log: "x", Low: 1000, High: 1000}
	deliver(t, newSink(t, plain), part(t, 0, 10, false))
	for i, o := range []Options{o, plain, o, plain} {
		s := newSink(t, o)
		s.Resume(cursor)
		n := 10 * (i + 2)
		deliver(t, s, part(t, 0, n, true))
		deliver(t, s, part(t, 500+n, 510+n, false)) // of another subscription's place: only what is not committed is looked at
		if !o.Whole.On {
			continue
		}
		again := newSink(t, o)
		again.Resume(cursor)
		deliver(t, again, part(t, 0, n, true))
	}
	got := offsetsOf(t, read(t, o.ID, kgo.SeedBrokers(at), kgo.FetchIsolationLevel(kgo.ReadCommitted())).until(50+20))
	got = slices.DeleteFunc(got, func(o pipeline.Offset) bool { return o >= 1500 })
	for i, g := range got {
		if g != pipeline.Offset(1000+i) || len(got) != 50 {
			t.Fatalf("%v", got)
		}
	}
}

// An event that Kafka never takes holds its transaction, not those before it; or it is left out.
func TestWholeRefused(t *testing.T) {
	t.Parallel()
	at := broker(t)
	for _, skip := range []bool{false, true} {
		t.Run(strconv.FormatBool(skip), func(t *testing.T) {
			t.Parallel()
			o := wholeOptions(t, at)
			o.Whole.Skip, o.Compression, o.Create.Config = skip, None, map[string]string{"max.message.bytes": "3000"}
			s := newSink(t, o)
			first, second := part(t, 0, 5, true), inserts(5, 10)
			second[2].After[2] = noise(8000)
			bad := deliveryOf(t, 1005, second...)
			both := *first
			both.Runs, both.Events, both.Ends = append(slices.Clone(first.Runs), bad.Runs...), 10, true
			out := deliver(t, s, &both)
			for i, o := range out {
				class := pipeline.OK
				switch {
				case i == 7 && skip:
					class = pipeline.Fatal
				case i > 7 && skip:
					class = pipeline.Retry
				case i >= 5 && !skip:
					class = pipeline.Defer
				}
				if o.Class != class {
					t.Errorf("event %d: %v %s", i, o.Class, o.Reason)
				}
			}
			if skip {
				deliver(t, s, part(t, 8, 10, true))
				if got := groups(t, at, o.ID, 1009); len(got) != 1 || len(got[0]) != 9 {
					t.Errorf("%v", got)
				}
				return
			}
			bad.Ends = true
			if e := whole(t, s, bad); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, "event files-1007: record_too_large") || !strings.Contains(e.Reason, "exhausted: skip") {
				t.Error(e)
			}
			deliver(t, s, part(t, 5, 10, true)) // cured
			want(t, groups(t, at, o.ID, 1009), [2]int{0, 5}, [2]int{5, 10})
		})
	}
}

// A record that is found too large only when it is sent takes its transaction back; then it is known.
func TestWholeRefusedLate(t *testing.T) {
	t.Parallel()
	at := broker(t)
	o := wholeOptions(t, at)
	o.Whole.Skip, o.Compression, o.Create.Config = true, None, map[string]string{"max.message.bytes": "3000"}
	s := newSink(t, o)
	deliver(t, s, part(t, 0, 2, true))
	deliver(t, s, part(t, 2, 4, false))
	(*s.producer.topics.Load())[o.ID].maxBatch.Store(0) // as when it may not be asked for
	changes := inserts(4, 8)
	changes[1].After[2] = noise(8000)
	bad := deliveryOf(t, 1004, changes...)
	bad.Ends = true
	if e := whole(t, s, bad); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, "record_too_large") {
		t.Error(e)
	}
	if e := whole(t, s, bad); e.Class != pipeline.Undone {
		t.Error(e)
	}
	s.Resume(pipeline.Cursor{Log: "x", Low: 1002, High: 1002})
	deliver(t, s, part(t, 2, 4, false))
	if out := deliver(t, s, bad); len(out) != 4 || out[0].Class != pipeline.OK || out[1].Class != pipeline.Fatal || out[2].Class != pipeline.Retry {
		t.Errorf("%v", out)
	}
	deliver(t, s, part(t, 6, 8, true))
	if got := groups(t, at, o.ID, 1007); len(got) != 2 || len(got[1]) != 5 {
		t.Errorf("%v", got)
	}
}

// A transaction that is open for too long is Kafka's to end: it is brought again, and the second time a person is asked.
func TestWholeForTooLong(t *testing.T) {
	t.Parallel()
	at := broker(t)
	o := wholeOptions(t, at)
	o.Whole.Timeout = time.Second
	s := newSink(t, o)
	for _, class := range []pipeline.DeliveryClass{pipeline.Undone, pipeline.Gone} {
		var e *pipeline.DeliveryError
		for n := 0; e == nil; n++ {
			_, err := s.Deliver(testContext(t), part(t, 10*n, 10*n+10, false))
			if !errors.As(err, &e) && err != nil {
				t.Fatal(err)
			}
			if e == nil {
				pause(testContext(t), 300*time.Millisecond)
			}
		}
		if e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, "transaction_timeout") {
			t.Fatal(e)
		}
		if e := whole(t, s, part(t, 0, 10, false)); e.Class != class {
			t.Fatal(e)
		}
		s.Resume(pipeline.Cursor{Log: "x", Low: 1000, High: 1000})
	}
	s.Abort(testContext(t))
	o.Whole.Timeout = time.Minute
	deliver(t, newSink(t, o), part(t, 0, 10, true))
	want(t, groups(t, at, o.ID, 1009), [2]int{0, 10})
}

// Each request to Kafka hangs once: what is given up on comes again as a whole, not twice.
func TestWholeGivenUp(t *testing.T) {
	t.Parallel()
	at := broker(t)
	for name, share := range map[string]float64{"join": 0, "produce": 0.5, "commit": 0.999} { // of the bytes of a Delivery
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := wholeOptions(t, at)
			o.Compression = None
			h := &hanging{}
			o.dialer = h.dial
			s := newSink(t, o)
			deliver(t, s, part(t, 0, 1, true))
			bytes := 1 << 30
			for i := 1; i <= 3; i++ { // what the client asks for beside a Delivery, now and then, is not to count
				h.hang(1 << 30)
				deliver(t, s, part(t, i, i+1, true))
				bytes = min(bytes, 1<<30-h.left())
				h.letGo()
			}
			n := 4
			for again := false; !again; {
				some := h.hang(int(share * float64(bytes)))
				ctx, cancel := context.WithCancel(testContext(t))
				done := make(chan error, 1)
				go func() { done <- second(s.Deliver(ctx, part(t, n, n+1, true))) }()
				<-some
				cancel()
				if again = <-done != nil; !again {
					n++ // it was not the Delivery that hung
				}
				h.letGo()
			}
			deliver(t, s, part(t, n, n+1, true))
			deliver(t, s, part(t, n+1, n+2, true))
			var all [][2]int
			for i := range n + 2 {
				all = append(all, [2]int{i, i + 1})
			}
			want(t, groups(t, at, o.ID, 1000+pipeline.Offset(n+1)), all...)
		})
	}
}
