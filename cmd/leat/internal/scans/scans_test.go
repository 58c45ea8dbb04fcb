package scans_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/cmd/leat/internal/scans"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// countingLog counts what is read from a log; each Next waits until slow is closed, if that is set.
type countingLog struct {
	pipeline.Log
	nexts, opens atomic.Int64
	slow         chan struct{}
	fail         atomic.Pointer[error]
	began        chan struct{} // gets a value when slow is waited for
	takes        time.Duration // of each Next, in virtual time
}

func (l *countingLog) Read(o pipeline.Offset) (pipeline.LogReader, error) {
	l.opens.Add(1)
	r, err := l.Log.Read(o)
	return &countingReader{r, l}, err
}

type countingReader struct {
	pipeline.LogReader
	l *countingLog
}

func (r *countingReader) Next(ctx context.Context) (*pipeline.Batch, error) {
	r.l.nexts.Add(1)
	if err := r.l.fail.Load(); err != nil {
		return nil, *err
	}
	if r.l.slow != nil {
		select {
		case r.l.began <- struct{}{}:
		default:
		}
		select {
		case <-r.l.slow:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	time.Sleep(r.l.takes)
	return r.LogReader.Next(ctx)
}

const perBatch = 10

// path makes a batch 40 KB large: 25 of them are a chunk.
var path = strings.Repeat("x", 4000)

// filled is a log of n batches.
func filled(t *testing.T, n int) *countingLog {
	t.Helper()
	l := pipetest.NewMemoryLog("log", 1000)
	table := pipetest.FilesTable("files")
	for i := range n {
		var changes []pipetest.Change
		for range perBatch {
			changes = append(changes, pipetest.Change{Op: pipeline.OpInsert, Table: table, After: pipetest.Row{"1", "2", path}})
		}
		if _, err := l.Append(t.Context(), pipetest.Build(pipeline.Position{Counter: uint64(i + 1), Token: "t"}, time.Unix(1e9, 0), changes)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { l.Close() })
	return &countingLog{Log: l}
}

// offsets reads [from, to) and checks that each offset comes once.
func offsets(ctx context.Context, s *scans.Scans, l pipeline.Log, from, to pipeline.Offset) error {
	want := from
	err := s.Each(ctx, l, from, to, func(b *pipeline.Batch) (bool, error) {
		for i := range b.Events {
			if o := b.Offset(i); o >= from && o < to {
				if o != want {
					return false, errors.New("an offset is missing or comes twice")
				}
				want++
			}
		}
		return true, nil
	})
	if _, next := l.Bounds(); err == nil && want != min(to, next) {
		return errors.New("it ended too early")
	}
	return err
}

// Fifty readers at once cost at most four times what one does, whether they want the same or overlapping parts.
func TestFiftyReadersCostLittle(t *testing.T) {
	const batches = 400
	one := filled(t, batches)
	s := scans.New(64<<20, 2)
	if err := offsets(t.Context(), s, one, 1000, 1000+batches*perBatch); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if n := one.nexts.Load(); n != batches {
		t.Fatalf("one reader reads %d batches of %d", n, batches)
	}
	for name, from := range map[string]func(i int) pipeline.Offset{
		"the same":     func(int) pipeline.Offset { return 1000 },
		"a bit later":  func(i int) pipeline.Offset { return 1000 + pipeline.Offset(i) },
		"half of it":   func(i int) pipeline.Offset { return 1000 + pipeline.Offset(i*batches*perBatch/100) },
		"from the end": func(i int) pipeline.Offset { return 1000 + pipeline.Offset((49-i)*batches*perBatch/100) },
	} {
		// Virtual time: reading takes its time, and who is ahead waits for those behind as long as they move, however slow
		// the machine.
		synctest.Test(t, func(t *testing.T) {
			l := filled(t, batches)
			l.takes = time.Millisecond
			s := scans.New(8<<20, 2) // half of the log
			var all sync.WaitGroup
			for i := range 50 {
				all.Go(func() {
					if err := offsets(t.Context(), s, l, from(i), 1000+batches*perBatch); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			all.Wait()
			s.Close()
			if n := l.nexts.Load(); n > 4*batches {
				t.Errorf("%s: 50 readers read %d batches, one reads %d", name, n, batches)
			} else {
				t.Logf("%s: %d batches, %d opens", name, n, l.opens.Load())
			}
		})
	}
}

// A reader that goes away while it reads for others takes nobody with it.
func TestWhoReadsMayGo(t *testing.T) {
	l := filled(t, 20)
	l.slow, l.began = make(chan struct{}), make(chan struct{}, 1)
	s := scans.New(1<<20, 1)
	defer s.Close()
	ctx, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- offsets(ctx, s, l, 1000, 1200) }()
	<-l.began
	second := make(chan error, 1)
	go func() { second <- offsets(t.Context(), s, l, 1005, 1200) }()
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(l.slow)
	if err := <-second; err != nil {
		t.Fatal(err)
	}
}

// Errors of the log reach everybody and are not kept.
func TestErrorsPass(t *testing.T) {
	l := filled(t, 5)
	s := scans.New(1<<20, 1)
	defer s.Close()
	broken := errors.New("broken")
	l.fail.Store(&broken)
	if err := offsets(t.Context(), s, l, 1000, 1050); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	l.fail.Store(nil)
	if err := offsets(t.Context(), s, l, 1000, 1050); err != nil {
		t.Fatal(err)
	}
}

// Any readers, any bound: each gets what it asked for.
func TestRandomReaders(t *testing.T) {
	l := filled(t, 60)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := scans.New(int64(r.IntN(4<<20)), 1+r.IntN(4))
		var all sync.WaitGroup
		for range 30 {
			from := 1000 + pipeline.Offset(r.IntN(600))
			to := from + pipeline.Offset(r.IntN(700))
			ctx, cancel := context.WithCancel(t.Context())
			if r.IntN(5) == 0 {
				cancel()
			}
			all.Go(func() {
				defer cancel()
				if err := offsets(ctx, s, l, from, to); err != nil && !errors.Is(err, context.Canceled) && to <= 1600 {
					t.Errorf("seed %d, [%d, %d): %v", seed, from, to, err)
				}
			})
		}
		all.Wait()
		s.Close()
	}
}
