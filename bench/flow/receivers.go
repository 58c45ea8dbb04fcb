package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/bench/process"
)

// behaviour is how a receiver answers.
type behaviour struct {
	// Kind: "" takes everything, "stalled" never answers, "refusing" answers 503 with Retry-After, "slow" takes
	// Each for an event, "flapping" is well and refusing by turns of Each, "poison" answers 500 to requests
	// that hold an event of a key that is a multiple of Every, "capacity" takes Rate events a second, with a
	// queue of Queue requests, and answers 429 beyond.
	Kind  string        `json:",omitempty"`
	Each  time.Duration `json:",omitempty"`
	Every int64         `json:",omitempty"`
	Rate  float64       `json:",omitempty"`
	Queue int           `json:",omitempty"`
	// Reset forgets what was seen; a key's first event then is its first.
	Reset bool `json:",omitempty"`
}

// tally is what a receiver has seen.
type tally struct {
	Events   int64 // distinct, by each key's counter
	Repeats  int64
	Gaps     int64 // a key's counter jumped: an event is missing, or came out of order
	Requests int64
	Refused  int64
	InFlight int
	First    time.Time `json:",omitzero"`
	Last     time.Time `json:",omitzero"`
	Keys     int
	Sum      int64   // of the keys' counters
	Micros   []int64 `json:",omitempty"` // latencies since the last question, sorted; of healthy keys
	Sequence uint64  // of each key's counters in order, hashed and added up
}

// receiver is one webhook endpoint.
type receiver struct {
	mu    sync.Mutex
	how   behaviour
	since time.Time
	t     tally
	keys  map[int64]int64
	free  time.Time // capacity: when the server has done what it took
	queue int
	woken chan struct{} // closed when how changes
}

// receiversRole hosts -n receivers at /0, /1, … of one address, and is told and asked at /control and /tally.
func receiversRole(args []string) error {
	f := flag.NewFlagSet("receivers", flag.ContinueOnError)
	n := f.Int("n", 1, "how many")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := process.UntilParentEnds()
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	all := make([]*receiver, *n)
	mux := http.NewServeMux()
	for i := range all {
		all[i] = &receiver{keys: map[int64]int64{}, woken: make(chan struct{})}
		mux.Handle(fmt.Sprintf("POST /%d", i), all[i])
	}
	mux.HandleFunc("POST /control", func(w http.ResponseWriter, r *http.Request) {
		var how map[int]behaviour
		if err := json.NewDecoder(r.Body).Decode(&how); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for i, h := range how {
			all[i].become(h)
		}
	})
	mux.HandleFunc("GET /tally", func(w http.ResponseWriter, r *http.Request) {
		out := make([]tally, len(all))
		for i, x := range all {
			out[i] = x.tally(r.URL.Query().Has("latencies"))
		}
		_ = json.NewEncoder(w).Encode(out) // the asker sees it
	})
	srv := &http.Server{Handler: mux}
	go func() {
		<-ctx.Done()
		_ = srv.Close() // Serve says how it ended
	}()
	if err := process.Print(map[string]string{"Addr": "http://" + l.Addr().String()}); err != nil {
		return err
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (x *receiver) become(how behaviour) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.how, x.since, x.free = how, time.Now(), time.Time{}
	if how.Reset {
		x.t, x.keys = tally{InFlight: x.t.InFlight}, map[int64]int64{}
	}
	close(x.woken)
	x.woken = make(chan struct{})
}

func (x *receiver) tally(latencies bool) tally {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.t
	t.Keys = len(x.keys)
	for _, n := range x.keys {
		t.Sum += n
	}
	t.Micros = nil
	if latencies {
		slices.Sort(x.t.Micros)
		t.Micros, x.t.Micros = x.t.Micros, nil
	}
	return t
}

func (x *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it broke off and comes again
	}
	x.mu.Lock()
	x.t.InFlight++
	x.t.Requests++
	x.mu.Unlock()
	status := x.answer(r.Context(), body)
	x.mu.Lock()
	x.t.InFlight--
	if status >= 300 || status == 0 {
		x.t.Refused++
	} else {
		x.take(body)
	}
	x.mu.Unlock()
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	if status != 0 {
		w.WriteHeader(status)
	}
}

// answer waits as the behaviour does, and returns the status; 0: the caller went away.
func (x *receiver) answer(ctx context.Context, body []byte) int {
	x.mu.Lock()
	how, since, woken := x.how, x.since, x.woken
	x.mu.Unlock()
	switch how.Kind {
	case "stalled":
		select {
		case <-ctx.Done():
			return 0
		case <-woken:
			return x.answer(ctx, body)
		}
	case "refusing":
		return http.StatusServiceUnavailable
	case "slow":
		return pause(ctx, woken, how.Each*time.Duration(bytes.Count(body, marker)))
	case "flapping":
		if time.Since(since)/how.Each%2 == 1 {
			return http.StatusServiceUnavailable
		}
	case "poison":
		for id := range rows(body) {
			if id%how.Every == 0 {
				return http.StatusInternalServerError
			}
		}
	case "capacity":
		return x.serve(ctx, how, woken, bytes.Count(body, marker))
	}
	return http.StatusNoContent
}

// serve is a server with one queue.
func (x *receiver) serve(ctx context.Context, how behaviour, woken chan struct{}, events int) int {
	x.mu.Lock()
	if x.queue >= how.Queue {
		x.mu.Unlock()
		return http.StatusTooManyRequests
	}
	x.queue++
	now := time.Now()
	if x.free.Before(now) {
		x.free = now
	}
	took := time.Duration(float64(events) / how.Rate * (0.9 + 0.2*rand.Float64()) * float64(time.Second))
	x.free = x.free.Add(took)
	wait := x.free.Sub(now)
	x.mu.Unlock()
	status := pause(ctx, woken, wait)
	x.mu.Lock()
	x.queue--
	x.mu.Unlock()
	return status
}

func pause(ctx context.Context, woken chan struct{}, d time.Duration) int {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return 0
	case <-woken:
	case <-t.C:
	}
	return http.StatusNoContent
}

// take counts a request's events. x.mu is held.
func (x *receiver) take(body []byte) {
	now := time.Now()
	if x.t.First.IsZero() {
		x.t.First = now
	}
	x.t.Last = now
	micros := now.UnixMicro()
	for id, row := range rows(body) {
		last := x.keys[id]
		switch {
		case row.n <= last:
			x.t.Repeats++
			continue
		case row.n > last+1 && last > 0:
			x.t.Gaps++
		}
		x.keys[id] = row.n
		x.t.Events++
		x.t.Sequence += uint64(id)*0x9e3779b97f4a7c15 ^ uint64(row.n)*0xc2b2ae3d27d4eb4f
		if row.sent > 0 && len(x.t.Micros) < 1<<20 {
			x.t.Micros = append(x.t.Micros, micros-row.sent)
		}
	}
}

// marker begins a row's image in an event of the table beat.
var marker = []byte(`"after":{"id":`)

// row of the table beat: n counts a key's changes from 1, sent is in microseconds, 0 where it is no matter.
type row struct{ n, sent int64 }

// rows finds the rows in the JSON of one or several events, without decoding it: they are only numbers.
func rows(body []byte) func(yield func(int64, row) bool) {
	return func(yield func(int64, row) bool) {
		for {
			at := bytes.Index(body, marker)
			if at < 0 {
				return
			}
			body = body[at+len(marker):]
			end := bytes.IndexByte(body, '}')
			if end < 0 {
				return
			}
			parts := strings.SplitN(string(body[:end]), ",", 3)
			var v [3]int64
			for i, p := range parts {
				_, digits, named := strings.Cut(p, ":")
				if !named {
					digits = p
				}
				v[i], _ = strconv.ParseInt(digits, 10, 64) // what is no number is 0, and a gap
			}
			if !yield(v[0], row{v[1], v[2]}) {
				return
			}
		}
	}
}
