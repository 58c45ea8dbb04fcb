package views

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/pull"
)

// BenchmarkReaders has so many read the same 200,000 events of a log on disk in pages of 1,000, all from the same place
// or each from a bit further on, up to the bytes of the responses. cpu-ms is what all of them took together.
func BenchmarkReaders(b *testing.B) {
	const batches, per = 400, 500
	l, err := disklog.Open(disklog.Options{Dir: b.TempDir(), Source: "files", Memory: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	table := pipetest.FilesTable("files")
	var seq uint64
	for i := range batches {
		var changes []pipetest.Change
		for k := range per {
			n := i*per + k
			changes = append(changes, pipetest.Change{Op: pipeline.OpInsert, Table: table, After: pipetest.Row{fmt.Sprint(n), fmt.Sprint(n % 97),
				fmt.Sprintf("/home/user%d/projects/alpha/file-%08d-%064x.txt", n%31, n, n*7919)}})
		}
		if seq, err = l.Append(b.Context(), pipetest.Build(pipeline.Position{Counter: uint64(i + 1), Token: "t"}, time.Unix(1e9, 0), changes)); err != nil {
			b.Fatal(err)
		}
	}
	for done := uint64(0); done < seq; {
		s, err := l.Synced(b.Context(), done)
		if err != nil {
			b.Fatal(err)
		}
		done = s.Ticket
	}
	from, to := l.Bounds()
	sub := &config.Subscription{Source: "files"}
	for name, n := range map[string]struct{ readers, step int }{"one": {1, 0}, "fifty-together": {50, 0}, "fifty-apart": {50, 7}} {
		b.Run(name, func(b *testing.B) {
			var cpu time.Duration
			for b.Loop() {
				all := NewFetches(FetchOptions{Memory: 512 << 20, Log: func(string) (pipeline.Log, error) { return l, nil }, Form: pgtext.Form})
				hub := pull.NewHub()
				hub.Fetch = func(ctx context.Context, r *leatv1.FetchRequest) (f pull.Fetched, err error) {
					f, err = all.Fetch(ctx, sub, r)
					ctx.Value(answerKey{}).(*answer).found = f
					return f, err
				}
				path, h := hub.Handler()
				before := used()
				var wg sync.WaitGroup
				for i := range n.readers {
					wg.Go(func() { readAll(b, h, path+"Fetch", uint64(from)+uint64(i*n.step), uint64(to)) })
				}
				wg.Wait()
				cpu += used() - before
				all.Close()
			}
			b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms")
		})
	}
}

// answer counts what is written, and notes where the next page begins.
type answer struct {
	header http.Header
	bytes  int
	found  pull.Fetched
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(int)             {}
func (a *answer) Write(p []byte) (int, error) { a.bytes += len(p); return len(p), nil }

type answerKey struct{}

func readAll(b *testing.B, h http.Handler, path string, from, to uint64) {
	w := &answer{header: http.Header{}}
	for ; !w.found.End; from = w.found.Next {
		body, err := proto.Marshal(&leatv1.FetchRequest{Subscription: "a", From: from, To: to})
		if err != nil {
			b.Error(err)
			return
		}
		r := httptest.NewRequestWithContext(context.WithValue(b.Context(), answerKey{}, w), http.MethodPost, path, bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/proto")
		if h.ServeHTTP(w, r); w.found.Next <= from || w.bytes == 0 {
			b.Error("no answer")
			return
		}
	}
}

// used is the CPU time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
