package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// numbers is a log of events 1 to last; views of it wait at the end.
func numbers(oldest, last uint64) func(context.Context, EventsRequest, func([]Event) error) error {
	return func(ctx context.Context, r EventsRequest, send func([]Event) error) error {
		if r.Subscription != "search" {
			return Errorf(NotFound, "subscription %q is not known", r.Subscription)
		}
		if r.Source != "" && r.Source != "files" {
			return Errorf(Invalid, "the id is of source %q", r.Source)
		}
		from := last + 1
		if r.After != nil {
			from = *r.After + 1
		}
		if from < oldest {
			return Errorf(Gone, "offset %d is older than the log keeps (oldest %d)", from, oldest)
		}
		if err := send(nil); err != nil {
			return err
		}
		for ; from <= last; from++ {
			e := Event{Offset: from, ID: fmt.Sprint("files-", from), JSON: fmt.Appendf(nil, `{"id":"files-%d"}`, from)}
			if err := send([]Event{e}); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// listen opens a stream; lines of it come from the reader.
func (x *served) listen(c *http.Client, path, last string) (*http.Response, *bufio.Reader) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	x.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", x.url+path, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	p, err := c.Do(r)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { p.Body.Close() })
	return p, bufio.NewReader(p.Body)
}

func line(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	got, err := r.ReadString('\n')
	if err != nil || strings.TrimSuffix(got, "\n") != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}

const searchEvents = "/v1/subscriptions/search/events"

func TestEvents(t *testing.T) {
	x := serve(t, Options{Backend: &backend{events: numbers(3, 9)}, Limits: Limits{Heartbeat: 20 * time.Millisecond}}, nil)
	for _, h2 := range []bool{false, true} {
		c := x.client(h2, "")
		for _, last := range []string{"files-7", "7"} {
			p, r := x.listen(c, searchEvents, last)
			if p.StatusCode != 200 || p.Header.Get("Content-Type") != "text/event-stream" {
				t.Fatalf("%d %v", p.StatusCode, p.Header)
			}
			for _, want := range []string{"retry: 2000", "", "id: files-8", `data: {"id":"files-8"}`, "", "id: files-9", `data: {"id":"files-9"}`, "", ":", "", ":", ""} {
				line(t, r, want)
			}
			p.Body.Close()
		}
		_, r := x.listen(c, searchEvents+"?after=8", "")
		line(t, r, "retry: 2000")
		line(t, r, "")
		line(t, r, "id: files-9")
		_, r = x.listen(c, searchEvents, "") // from now on
		for _, want := range []string{"retry: 2000", "", ":"} {
			line(t, r, want)
		}
		for path, want := range map[string]int{searchEvents + "?after=1": 410, searchEvents + "?after=orders-7": 400, searchEvents + "?after=x": 400,
			searchEvents + "?after=18446744073709551616": 400, searchEvents + "?after=18446744073709551615": 400,
			searchEvents + "?after=files-18446744073709551615": 400, "/v1/subscriptions/other/events": 404} {
			p, r := x.listen(c, path, "")
			text, _ := r.ReadString('\n')
			if p.StatusCode != want || text == "" {
				t.Errorf("%s: %d %q, want %d", path, p.StatusCode, text, want)
			}
		}
	}
}

// TestEventsEnd: a stream that fails on its way says why.
func TestEventsEnd(t *testing.T) {
	x := serve(t, Options{Backend: &backend{events: func(_ context.Context, _ EventsRequest, send func([]Event) error) error {
		if err := send([]Event{{ID: "files-1", JSON: []byte("{\n}")}, {JSON: []byte("{}")}}); err != nil {
			return err
		}
		return Errorf(Gone, "retention\novertook it")
	}}}, nil)
	_, r := x.listen(x.client(true, ""), searchEvents, "")
	all, err := io.ReadAll(r)
	want := "retry: 2000\n\nid: files-1\ndata: {\ndata: }\n\ndata: {}\n\nevent: leat.error\ndata: retention\ndata: overtook it\n\n"
	if err != nil || string(all) != want {
		t.Errorf("%q (%v)", all, err)
	}
}

// TestSlowClient: who takes nothing is disconnected, over both protocols, and nothing piles up for it.
func TestSlowClient(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		ended := make(chan error, 1)
		x := serve(t, Options{Limits: Limits{Write: 100 * time.Millisecond, Heartbeat: time.Minute}, Backend: &backend{
			events: func(_ context.Context, _ EventsRequest, send func([]Event) error) error {
				e := []Event{{ID: "files-1", JSON: bytes.Repeat([]byte("x"), 32<<10)}}
				for {
					if err := send(e); err != nil {
						ended <- err
						return err
					}
				}
			}}}, nil)
		if h2 {
			x.listen(x.client(true, ""), searchEvents, "") // reads until its window is full
		} else {
			c, err := net.Dial("tcp", x.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", searchEvents, x.addr)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Error("no error")
			}
		case <-time.After(time.Minute):
			t.Fatalf("h2 %v: the slow client still holds its stream", h2)
		}
	}
}

func TestTail(t *testing.T) {
	b := &backend{tail: func(_ context.Context, send func([][]byte) error) error {
		for i := range 3 {
			if err := send([][]byte{fmt.Appendf(nil, "%d", i)}); err != nil {
				return err
			}
		}
		return Errorf(Precondition, "enough")
	}}
	x := serve(t, Options{Backend: b}, nil)
	for _, h2 := range []bool{false, true} {
		a := leatv1connect.NewAdminServiceClient(x.client(h2, ""), x.url)
		st, err := a.Tail(t.Context(), connect.NewRequest(&leatv1.TailRequest{Name: "files"}))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for st.Receive() {
			for _, e := range st.Msg().GetEvents() {
				got = append(got, string(e))
			}
		}
		if fmt.Sprint(got) != "[0 1 2]" || code(st.Err()) != connect.CodeFailedPrecondition {
			t.Errorf("%v %v", got, st.Err())
		}
		st.Close()
	}
}

func TestViewsAreCounted(t *testing.T) {
	x := serve(t, Options{Backend: &backend{events: numbers(1, 1)}, Limits: Limits{Views: 2}}, nil)
	c := x.client(true, "")
	p, _ := x.listen(c, searchEvents, "")
	x.listen(c, searchEvents, "")
	if q, _ := x.listen(c, searchEvents, ""); q.StatusCode != 503 || q.Header.Get("Retry-After") == "" {
		t.Errorf("third view: %d", q.StatusCode)
	}
	a := leatv1connect.NewAdminServiceClient(c, x.url)
	st, err := a.Tail(t.Context(), connect.NewRequest(&leatv1.TailRequest{Name: "files"}))
	if err == nil {
		for st.Receive() {
		}
		err = st.Err()
		st.Close()
	}
	if code(err) != connect.CodeUnavailable {
		t.Errorf("tail as third view: %v", err)
	}
	p.Body.Close() // its place is free again
	until(t, func() bool { q, _ := x.listen(c, searchEvents, ""); return q.StatusCode == 200 })
}

// until polls; the deadline is for broken code only.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not come to pass")
		}
	}
}

// TestStop: streams end at once, a call in flight may finish, one that does not is broken off.
func TestStop(t *testing.T) {
	waiting := make(chan struct{}, 1)
	in, release := make(chan struct{}), make(chan struct{})
	b := &backend{events: numbers(1, 1), tail: func(ctx context.Context, _ func([][]byte) error) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	slow := &slowApply{backend: b, in: in, release: release}
	x := serve(t, Options{Backend: slow}, &subscriber{waiting: waiting})
	c := x.client(true, "")
	_, r := x.listen(x.client(false, ""), searchEvents, "")
	a := leatv1connect.NewAdminServiceClient(c, x.url)
	pull := leatv1connect.NewSubscriberServiceClient(c, x.url).Pull(context.Background())
	for _, m := range []*leatv1.PullRequest{{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: "a"}}}, {Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: 1}}}} {
		if err := pull.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	<-waiting
	applied := make(chan error, 1)
	go func() {
		_, err := a.Apply(context.Background(), connect.NewRequest(&leatv1.ApplyRequest{}))
		applied <- err
	}()
	<-in
	stopped := make(chan error, 1)
	go func() { stopped <- x.stop() }()
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("events: %v", err)
	}
	for {
		if _, err := pull.Receive(); err != nil {
			break
		}
	}
	pull.CloseRequest()
	pull.CloseResponse()
	close(release) // only now: the streams ended before
	if err := <-applied; err != nil {
		t.Errorf("the call in flight was not finished: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := x.s.Serve(t.Context(), nothing{}); err == nil {
		t.Error("served twice")
	}
}

// TestStopBreaksOff: a call that goes on beyond the grace sees its context end.
func TestStopBreaksOff(t *testing.T) {
	in := make(chan struct{})
	x := serve(t, Options{Backend: &slowApply{backend: &backend{}, in: in}, Grace: 50 * time.Millisecond}, nil)
	a := leatv1connect.NewAdminServiceClient(x.client(true, ""), x.url)
	applied := make(chan error, 1)
	go func() {
		_, err := a.Apply(context.Background(), connect.NewRequest(&leatv1.ApplyRequest{}))
		applied <- err
	}()
	<-in
	if err := x.stop(); err != nil {
		t.Error(err)
	}
	if err := <-applied; err == nil {
		t.Error("applied")
	}
}

type slowApply struct {
	*backend
	in, release chan struct{}
}

func (s *slowApply) Apply(ctx context.Context, _ *leatv1.ApplyRequest) (*leatv1.ApplyResponse, error) {
	s.in <- struct{}{}
	select {
	case <-s.release:
		return &leatv1.ApplyResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type nothing struct{}

func (nothing) Accept() (net.Conn, error) { return nil, errors.New("nothing") }
func (nothing) Close() error              { return nil }
func (nothing) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
