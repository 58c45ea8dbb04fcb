package views

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const first, perBatch = 1000, 300

// filled is a log of n batches, whose rows take turns between two tables.
func filled(t testing.TB, n int) pipeline.Log {
	t.Helper()
	l := pipetest.NewMemoryLog("log", first)
	files, users := pipetest.FilesTable("files"), pipetest.FilesTable("users")
	users.ID = 2
	for i := range n {
		var changes []pipetest.Change
		for k := range perBatch {
			table := files
			if k/7%2 == 1 {
				table = users
			}
			id := fmt.Sprint(i*perBatch + k)
			changes = append(changes, pipetest.Change{Op: pipeline.OpInsert, Table: table, After: pipetest.Row{id, "2", strings.Repeat("x", 1+k%200)}})
		}
		if _, err := l.Append(t.Context(), pipetest.Build(pipeline.Position{Counter: uint64(i + 1), Token: "t"}, time.Unix(1e9, 0), changes)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// fetches counts the rows that are looked into, which is done once for each that is encoded.
func fetches(l pipeline.Log, walked *atomic.Int64) *Fetches {
	return NewFetches(FetchOptions{Memory: 512 << 20, Log: func(string) (pipeline.Log, error) { return l, nil }, Form: func(t *schemas.Table) *cell.Form {
		f := pipetest.PGForm(t)
		walk := f.Walk
		f.Walk = func(p []byte, refs []cell.Ref, upTo int) ([]cell.Ref, error) {
			walked.Add(1)
			return walk(p, refs, upTo)
		}
		return f
	}})
}

// alone encodes what a subscription sees of [from, to), one event after the other; ends is where each ends.
func alone(t *testing.T, l pipeline.Log, table string, from, to pipeline.Offset) (text []byte, ends map[pipeline.Offset]int) {
	t.Helper()
	enc := encode.Proto(encode.Options{Source: "files", Form: pipetest.PGForm})
	ends = map[pipeline.Offset]int{}
	r, err := l.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for at := from; at < to; {
		b, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Events {
			if o := b.Offset(i); o >= from && o < to && (table == "" || b.TableOf(i).Name == table) {
				if text, err = enc.Append(text, b, i, pipeline.OpNone); err != nil {
					t.Fatal(err)
				}
				ends[o] = len(text)
			}
		}
		at = b.Next()
		b.Release()
	}
	return text, ends
}

// pages fetches until the end, and returns what came together.
func pages(ctx context.Context, all *Fetches, sub *config.Subscription, r *leatv1.FetchRequest) (text []byte, n int, err error) {
	for {
		n++
		f, err := all.Fetch(ctx, sub, r)
		if err != nil {
			return nil, n, err
		}
		if text = append(text, f.Events...); f.End {
			return text, n, nil
		}
		if f.Next <= r.From {
			return nil, n, fmt.Errorf("page %d ends at %d, where it began or before", n, f.Next)
		}
		r.From = f.Next
	}
}

// Whatever is asked for at once, each gets what it would get alone, page by page.
func TestRandomFetches(t *testing.T) {
	end := pipeline.Offset(first + 12*perBatch)
	for seed := range uint64(4) {
		l := filled(t, 12)
		rnd := rand.New(rand.NewPCG(seed, 2))
		var walked atomic.Int64
		all := fetches(l, &walked)
		everything, some := &config.Subscription{Source: "files"}, &config.Subscription{Source: "files", Tables: []string{"public.users"}}
		var wg sync.WaitGroup
		for range 12 {
			from := first + pipeline.Offset(rnd.IntN(12*perBatch))
			to := from + 1 + pipeline.Offset(rnd.IntN(int(end-from)))
			r := &leatv1.FetchRequest{Subscription: "all", From: uint64(from), To: uint64(to), Limit: uint32(rnd.IntN(500)), MaxBytes: uint64(rnd.IntN(50_000))}
			sub, table := everything, ""
			switch rnd.IntN(3) {
			case 0:
				r.Subscription, sub, table = "some", some, "users"
			case 1:
				r.Tables, table = []string{"public.files"}, "files"
			}
			most := int(r.Limit)
			if most == 0 {
				most = fetchEvents
			}
			wg.Go(func() {
				want, ends := alone(t, l, table, from, to)
				got, n, err := pages(t.Context(), all, sub, r)
				if err != nil || string(got) != string(want) || n < len(ends)/most {
					t.Errorf("seed %d: [%d, %d) of %q: %d bytes in %d pages for %d bytes of %d events: %v", seed, from, to, table, len(got), n, len(want), len(ends), err)
				}
			})
		}
		wg.Wait()
		all.Close()
	}
}

// Fifty who read the same stretch, in pages that begin and end elsewhere, encode it hardly more often than one does.
func TestFiftyEncodeOnce(t *testing.T) {
	const batches = 40
	synctest.Test(t, func(t *testing.T) { // virtual time: nothing is forgotten because the machine is slow
		l := filled(t, batches)
		var walked atomic.Int64
		all := fetches(l, &walked)
		defer all.Close()
		sub := &config.Subscription{Source: "files"}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				r := &leatv1.FetchRequest{Subscription: "a", From: first + uint64(i), To: first + batches*perBatch, Limit: uint32(300 + 13*i)}
				if _, _, err := pages(t.Context(), all, sub, r); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := walked.Load(); n > 2*batches*perBatch {
			t.Errorf("50 readers of %d events encoded %d", batches*perBatch, n)
		} else {
			t.Logf("%d events, %d encoded", batches*perBatch, n)
		}
	})
}

// An answer is kept for equal questions, but not where there may be more by then, nor for a subscription that changed.
func TestAnswersAreKept(t *testing.T) {
	l := filled(t, 2)
	var walked atomic.Int64
	all := fetches(l, &walked)
	defer all.Close()
	sub, other := &config.Subscription{Source: "files"}, &config.Subscription{Source: "files", Columns: map[string][]string{"public.files": {"id"}}}
	ask := func(sub *config.Subscription, r *leatv1.FetchRequest) int {
		t.Helper()
		r.Subscription = "a"
		f, err := all.Fetch(t.Context(), sub, r)
		if err != nil {
			t.Fatal(err)
		}
		return len(f.Events)
	}
	page := &leatv1.FetchRequest{From: first, To: first + 200}
	whole := ask(sub, page)
	if n := ask(other, page); n >= whole {
		t.Errorf("a changed subscription gets %d bytes, the old one got %d", n, whole)
	}
	before := walked.Load()
	if n := ask(other, page); n >= whole || walked.Load() != before {
		t.Errorf("the same again: %d bytes, %d rows encoded", n, walked.Load()-before)
	}
	rest := &leatv1.FetchRequest{From: first + 2*perBatch}
	if n := ask(sub, rest); n != 0 {
		t.Errorf("%d bytes behind the end", n)
	}
	tail := &leatv1.FetchRequest{From: first + 2*perBatch - 10}
	end := ask(sub, tail)
	change := pipetest.Change{Op: pipeline.OpInsert, Table: pipetest.FilesTable("files"), After: pipetest.Row{"1", "2", "x"}}
	if _, err := l.Append(t.Context(), pipetest.Build(pipeline.Position{Counter: 3, Token: "t"}, time.Unix(1e9, 0), []pipetest.Change{change})); err != nil {
		t.Fatal(err)
	}
	if n := ask(sub, tail); n <= end {
		t.Errorf("%d bytes at the tail, %d before there was more", n, end)
	}
	if ask(sub, rest) == 0 {
		t.Error("nothing behind the old end")
	}
}
