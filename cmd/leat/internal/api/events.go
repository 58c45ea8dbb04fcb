package api

import (
	"bytes"
	"context"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// sseChunk is how many bytes are gathered before they are sent.
const sseChunk = 64 << 10

// events is the view of a subscription as server-sent events. Last-Event-ID (or ?after=, for a first
// connection) is the id of an event or a bare offset.
// https://html.spec.whatwg.org/multipage/server-sent-events.html
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	q := EventsRequest{Subscription: r.PathValue("name")}
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = r.URL.Query().Get("after")
	}
	if last != "" {
		var err error
		if q.After, q.Source, err = parsePlace(last); err != nil {
			plain(w, http.StatusBadRequest, err.Error()+"\n")
			return
		}
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	ctx, end := context.WithCancel(r.Context())
	defer end()
	out := &sse{w: w, c: controllerOf(ctx), limit: s.o.Limits.Write, end: end}
	var beats sync.WaitGroup
	err := s.o.Backend.Events(ctx, q, func(events []Event) error {
		if !out.open {
			if err := out.start(); err != nil {
				return err
			}
			beats.Go(func() { out.beat(ctx, s.o.Limits.Heartbeat) })
		}
		return out.send(events)
	})
	end()
	beats.Wait()
	switch {
	case err == nil || r.Context().Err() != nil || out.broken:
	case !out.open:
		plain(w, kinds[kindOf(err)].status, err.Error()+"\n")
	default:
		out.fail(err)
	}
}

// parsePlace reads an event id or a bare offset.
func parsePlace(s string) (after *uint64, source string, err error) {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil && n < math.MaxUint64 { // the place after it has to be a number too
		return &n, "", nil
	}
	source, o, err := pipeline.ParseEventID(s)
	if err != nil {
		return nil, "", err
	}
	n := uint64(o)
	return &n, source, nil
}

// sse writes one stream. The only buffers are its chunk and the connection's: who takes nothing for as
// long as limit is disconnected.
type sse struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	limit time.Duration
	end   context.CancelFunc
	open  bool // of the goroutine of Events

	mu     sync.Mutex
	buf    []byte
	broken bool
}

func (o *sse) start() error {
	o.open = true
	h := o.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	o.w.WriteHeader(http.StatusOK)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, "retry: 2000\n\n"...)
	return o.flush()
}

func (o *sse) send(events []Event) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range events {
		o.buf = appendSSE(o.buf, &events[i])
		if len(o.buf) >= sseChunk {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	if len(o.buf) == 0 {
		return nil
	}
	return o.flush()
}

func appendSSE(b []byte, e *Event) []byte {
	if e.ID != "" {
		b = append(append(append(b, "id: "...), e.ID...), '\n')
	}
	for line := range bytes.Lines(e.JSON) {
		b = append(append(append(b, "data: "...), bytes.TrimRight(line, "\r\n")...), '\n')
	}
	return append(b, '\n')
}

// flush sends the buffer; under mu.
func (o *sse) flush() error {
	err := o.c.SetWriteDeadline(time.Now().Add(o.limit))
	if err == nil {
		_, err = o.w.Write(o.buf)
	}
	if err == nil {
		err = o.c.Flush()
	}
	o.buf = o.buf[:0]
	if err != nil {
		o.broken = true
		o.end()
	}
	return err
}

// beat sends a comment now and then, so that proxies keep the connection and a dead client is noticed.
func (o *sse) beat(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		o.mu.Lock()
		o.buf = append(o.buf, ":\n\n"...)
		err := o.flush()
		o.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// fail tells why the stream ends.
func (o *sse) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, "event: leat.error\n"...)
	o.buf = appendSSE(o.buf, &Event{JSON: []byte(err.Error())})
	// The stream ends either way.
	_ = o.flush()
}
