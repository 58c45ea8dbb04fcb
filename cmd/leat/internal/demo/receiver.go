package demo

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// receiver is the endpoint of a webhook, on loopback. It believes nothing that is not signed.
type receiver struct {
	*replica
	secret   []byte
	delay    time.Duration // of each request: to be slow
	sick     atomic.Bool   // answers 503
	refused  atomic.Int64  // requests answered 503
	forged   atomic.Int64  // requests whose signature did not fit
	url      string
	server   *http.Server
	finished chan error
}

func listen(path string, secret []byte, delay time.Duration, to *replica) (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open a port on loopback for a webhook: %w", err)
	}
	r := &receiver{replica: to, secret: secret, delay: delay, url: "http://" + l.Addr().String() + path, finished: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, r.handle)
	r.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { r.finished <- r.server.Serve(l) }()
	return r, nil
}

func (r *receiver) close(ctx context.Context) error {
	err := r.server.Shutdown(ctx)
	if served := <-r.finished; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// mostBody is more than any request of the demo has.
const mostBody = 64 << 20

func (r *receiver) handle(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(io.LimitReader(q.Body, mostBody))
	if err != nil {
		return // it broke off and comes again
	}
	if !signed(r.secret, q.Header, body) {
		r.forged.Add(1)
		http.Error(w, "the signature does not fit", http.StatusUnauthorized)
		return
	}
	if r.delay > 0 {
		select {
		case <-time.After(r.delay):
		case <-q.Context().Done():
			return
		}
	}
	if r.sick.Load() {
		r.refused.Add(1)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "out of order for some seconds", http.StatusServiceUnavailable)
		return
	}
	events, err := decode(q.Header.Get("Content-Type"), body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.take(events)
	w.WriteHeader(http.StatusNoContent)
}

// signed verifies as Standard Webhooks describe it, without the code that signs.
// https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
func signed(secret []byte, h http.Header, body []byte) bool {
	at, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.", h.Get("webhook-id"), h.Get("webhook-timestamp"))
	mac.Write(body)
	want := mac.Sum(nil)
	for _, s := range strings.Fields(h.Get("webhook-signature")) {
		text, is := strings.CutPrefix(s, "v1,")
		got, err := base64.StdEncoding.DecodeString(text)
		if is && err == nil && hmac.Equal(got, want) {
			return true
		}
	}
	return false
}

// cloudEvent is what the demo reads of an event.
type cloudEvent struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	Data struct {
		Op        string                     `json:"op"`
		Table     string                     `json:"table"`
		Key       map[string]json.RawMessage `json:"key"`
		After     map[string]json.RawMessage `json:"after"`
		Absent    []string                   `json:"absent"`
		KeyChange bool                       `json:"key_change"`
		Other     struct {
			ID string `json:"id"`
		} `json:"other"`
	} `json:"data"`
}

func decode(contentType string, body []byte) ([]change, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, err
	}
	var events []cloudEvent
	switch kind {
	case "application/cloudevents+json":
		events = make([]cloudEvent, 1)
		err = json.Unmarshal(body, &events[0])
	case "application/cloudevents-batch+json":
		err = json.Unmarshal(body, &events)
	default:
		err = fmt.Errorf("content type %s", kind)
	}
	if err != nil {
		return nil, err
	}
	changes := make([]change, 0, len(events))
	for i := range events {
		c, is, err := events[i].change()
		if err != nil {
			return nil, fmt.Errorf("event %s: %w", events[i].ID, err)
		}
		if is {
			changes = append(changes, c)
		}
	}
	return changes, nil
}

// change translates an event about a row of the demo's tables; is is false for others.
func (e *cloudEvent) change() (c change, is bool, err error) {
	_, name, _ := strings.Cut(e.Data.Table, ".")
	c.table, is = tableOf(name)
	if !is || e.Data.Key == nil {
		return c, false, nil
	}
	t := tables[c.table]
	c.op, c.commit = e.Data.Op, e.Time
	if c.offset, err = offsetOf(e.ID); err != nil {
		return c, false, err
	}
	if c.key, err = plain.fromJSON(e.Data.Key[t.columns[0].name]); err != nil {
		return c, false, err
	}
	if e.Data.KeyChange {
		if c.other, err = offsetOf(e.Data.Other.ID); err != nil {
			return c, false, err
		}
	}
	if e.Data.After == nil {
		return c, true, nil
	}
	c.after = t.empty()
	for i := range t.columns {
		raw, there := e.Data.After[t.columns[i].name]
		if !there {
			continue
		}
		if c.after[i], err = t.columns[i].kind.fromJSON(raw); err != nil {
			return c, false, err
		}
	}
	for _, name := range e.Data.Absent {
		if i := t.column(name); i >= 0 {
			if c.absent == nil {
				c.absent = make([]bool, len(t.columns))
			}
			c.absent[i] = true
		}
	}
	return c, true, nil
}

// offsetOf an event's id: what stands behind the last hyphen.
func offsetOf(id string) (uint64, error) {
	return strconv.ParseUint(id[strings.LastIndexByte(id, '-')+1:], 10, 64)
}
