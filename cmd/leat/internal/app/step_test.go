package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/webhook"
)

// narrowServer takes so many requests side by side, each for 10 ms, and answers 429 to more.
type narrowServer struct {
	room, busy, most   atomic.Int64
	asked, taken, over atomic.Int64
}

func (n *narrowServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	n.asked.Add(1)
	defer n.busy.Add(-1)
	if busy := n.busy.Add(1); busy > n.room.Load() {
		n.over.Add(1)
		w.WriteHeader(http.StatusTooManyRequests)
		return
	} else if busy > n.most.Load() {
		n.most.Store(busy)
	}
	<-time.After(10 * time.Millisecond)
	n.taken.Add(1)
	w.WriteHeader(http.StatusNoContent)
}

// TestRealServerFallsAndReturns: the concurrency that a server takes falls to a tenth and returns. Counts, not times:
// of the second half of each stretch few are refused, what it can take is found again, nothing is lost or given up.
// How soon and how well is measured by bench/flow, and in simulation by pipeline/flow.
func TestRealServerFallsAndReturns(t *testing.T) {
	t.Parallel()
	n := &narrowServer{}
	srv := httptest.NewServer(n)
	defer srv.Close()
	secret, err := webhook.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	sink, err := webhook.New(webhook.Options{URL: srv.URL, Secrets: []webhook.Secret{secret}, Timeout: 30 * time.Second, Source: "files",
		Permit:  func(a netip.Addr) bool { return a.IsLoopback() },
		Encoder: encode.JSON(encode.Options{Source: "files", PublicURL: "http://leat", Separator: ',', Form: pipetest.PGForm})})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	store, err := state.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log := pipetest.NewMemoryLog("log", 1000)
	sub, err := deliver.New(deliver.Config{Name: "a", Source: "files", Log: log, Cursors: store, Store: store, Sink: sink, Adaptive: true,
		Batch: deliver.Batch{Events: 1}, Exhausted: deliver.ExhaustedPark})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sub.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil && !strings.Contains(err.Error(), "context canceled") {
			t.Error(err)
		}
	}()

	files, sent, total := pipetest.FilesTable("files"), 0, int64(0)
	for _, x := range []struct{ room, events int64 }{{40, 3000}, {4, 600}, {40, 4000}} {
		n.room.Store(x.room)
		n.most.Store(0)
		var tx []pipetest.Change
		for range x.events {
			tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: files, After: pipetest.Row{strconv.Itoa(sent), "1", "/x"}})
			sent++
		}
		b := pipetest.Build(pipeline.Position{Counter: uint64(sent)}, time.Now(), tx)
		for i := range b.Events {
			b.Events[i].Hash = uint64(sent-i) * 0x9e3779b97f4a7c15
		}
		if _, err := log.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		until(t, "half of them", func() bool { return n.taken.Load() >= total+x.events/2 })
		asked, over := n.asked.Load(), n.over.Load()
		total += x.events
		until(t, "all of them", func() bool { return n.taken.Load() >= total })
		asked, over = n.asked.Load()-asked, n.over.Load()-over
		if over*10 > asked {
			t.Errorf("room for %d: %d of %d were refused", x.room, over, asked)
		}
		if most := n.most.Load(); most*4 < x.room {
			t.Errorf("room for %d: at most %d were sent side by side", x.room, most)
		}
		t.Logf("room for %d: %d of %d refused, at most %d at once; %s", x.room, over, asked, n.most.Load(), sub.Status().Flow)
	}
	until(t, "the last answer", func() bool { st := sub.Status(); return st.Low == st.Next })
	if st := sub.Status(); st.Dead != 0 || st.Parked != 0 || n.taken.Load() != total {
		t.Errorf("%+v; %d taken of %d", st, n.taken.Load(), total)
	}
}
