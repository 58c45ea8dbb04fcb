package webhook

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// site counts what it is asked and answers as it is told.
type site struct {
	*httptest.Server
	posts, gets, status atomic.Int64
	redirect            atomic.Pointer[string] // of a GET
	wait                chan struct{}
	most, now           atomic.Int64
}

func newSite(t testing.TB) *site {
	s := &site{}
	s.status.Store(204)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			s.gets.Add(1)
			if to := s.redirect.Load(); to != nil {
				http.Redirect(w, r, *to, http.StatusFound)
				return
			}
		} else {
			s.posts.Add(1)
			n := s.now.Add(1)
			defer s.now.Add(-1)
			for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
			}
			if s.wait != nil {
				<-s.wait
			}
		}
		w.WriteHeader(int(s.status.Load()))
	}))
	t.Cleanup(s.Close)
	return s
}

func several(ranks []int, sites ...*site) func(o *Options) {
	return func(o *Options) {
		for i, s := range sites {
			o.URLs = append(o.URLs, Endpoint{URL: s.URL + "/hook", Rank: ranks[i]})
		}
	}
}

// A host that only fails gets its five failures, one trial after its time, and less than a hundredth of the rest.
func TestABadHostIsLeftOut(t *testing.T) {
	good, bad, dead := newSite(t), newSite(t), newSite(t)
	bad.status.Store(500)
	s := newSink(t, "", several([]int{0, 0, 0, 0}, good, newSite(t), bad, dead))
	dead.Close()
	failures := 0
	for range 3000 {
		if _, err := s.Deliver(t.Context(), events(1, 1)); err != nil {
			failures++
		}
	}
	// A dead host costs no Delivery: another one is asked at once.
	if n := bad.posts.Load(); n != 5 || failures != 5 {
		t.Fatalf("the bad host got %d of 3000, %d failed", n, failures)
	}
	list, panicking := s.Hosts()
	if panicking || !list[2].Ejected || !list[3].Ejected || list[0].Ejected || !strings.Contains(list[2].Why, "500") {
		t.Fatalf("%+v", list)
	}
}

// The pool forgives: a probe of the health path brings a host back, a redirect of it does not, wherever it leads.
func TestProbePath(t *testing.T) {
	inside := newSite(t) // what the redirect leads to
	a, b := newSite(t), newSite(t)
	b.status.Store(503)
	to := inside.URL + "/latest/meta-data"
	b.redirect.Store(&to)
	s := newSink(t, "", func(o *Options) {
		several([]int{0, 0}, a, b)(o)
		o.Probe = "/health"
		o.pool.Probe = 5 * time.Millisecond
	})
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if _, err := s.Deliver(t.Context(), events(1, 1)); err != nil && !strings.Contains(err.Error(), "503") {
				t.Fatal(what, err)
			}
		}
	}
	out := func() bool { list, _ := s.Hosts(); return len(list) > 1 && list[1].Ejected }
	until("ejected", out)
	until("probed", func() bool { return b.gets.Load() > 3 })
	if !out() || inside.gets.Load()+inside.posts.Load() != 0 {
		t.Fatal("a redirect was taken for health, or followed")
	}
	if list, _ := s.Hosts(); !strings.Contains(list[1].Why, "503") || !strings.Contains(list[1].Why, "GET /health answers 302: redirects are never followed") {
		t.Errorf("the probe's redirect is not named: %q", list[1].Why)
	}
	posts := b.posts.Load()
	b.redirect.Store(nil)
	b.status.Store(204)
	until("back", func() bool { return !out() && b.posts.Load() > posts })
}

// All goes to the near zone, and to the next when it is gone.
func TestNearZoneFirst(t *testing.T) {
	near, far := newSite(t), newSite(t)
	s := newSink(t, "", several([]int{2, 0}, far, near))
	for i := range 200 {
		if i == 100 {
			near.Close()
			s.endpoints[1].transport.CloseIdleConnections()
		}
		if _, err := s.Deliver(t.Context(), events(1, 1)); err != nil {
			t.Fatal(i, err)
		}
	}
	if far.posts.Load() != 100 || near.posts.Load() != 100 {
		t.Fatal(far.posts.Load(), near.posts.Load())
	}
}

// flow.per_host holds, and who finds no room in time is deferred: nothing was sent.
func TestPerHost(t *testing.T) {
	a, b := newSite(t), newSite(t)
	a.wait, b.wait = make(chan struct{}), make(chan struct{})
	s := newSink(t, "", func(o *Options) {
		several([]int{0, 0}, a, b)(o)
		o.PerHost, o.Timeout = 2, time.Minute
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if out, err := s.Deliver(t.Context(), events(1, 1)); out != nil || err != nil {
				t.Error(out, err)
			}
		})
	}
	for a.now.Load()+b.now.Load() < 4 {
		time.Sleep(time.Millisecond)
	}
	d := events(2, 2)
	d.Deadline = time.Now().Add(20 * time.Millisecond)
	out, err := s.Deliver(t.Context(), d)
	if err != nil || len(out) != 2 || out[1].Class != pipeline.Defer || !strings.Contains(out[0].Reason, "per_host") {
		t.Fatal(out, err)
	}
	close(a.wait)
	close(b.wait)
	wg.Wait()
	if a.most.Load() != 2 || b.most.Load() != 2 || a.posts.Load()+b.posts.Load() != 8 {
		t.Fatal(a.most.Load(), b.most.Load())
	}
}

// resolver answers as it is told.
type resolver struct {
	mu    sync.Mutex
	addrs []netip.Addr
	err   error
	asked int
}

func (r *resolver) lookup(context.Context, string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return r.addrs, r.err
}

func (r *resolver) set(addrs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addrs = nil
	for _, a := range addrs {
		r.addrs = append(r.addrs, netip.MustParseAddr(a))
	}
}

func port(t *testing.T, url string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A name with several addresses is several hosts; those that egress forbids are none, and what a name resolves to
// later is asked about again.
func TestNameWithManyAddresses(t *testing.T) {
	var hostHeader atomic.Value
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hostHeader.Store(r.Host)
	})}}
	srv.Start()
	defer srv.Close()
	r := &resolver{}
	r.set("127.0.0.2", "127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.1") // nobody listens at the first
	name := "hook.test:" + port(t, srv.URL)
	s := newSink(t, "http://"+name+"/in", func(o *Options) { o.lookup = r.lookup })
	for range 50 {
		if _, err := s.Deliver(t.Context(), events(1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	list, _ := s.Hosts()
	if len(list) != 2 || !list[0].Ejected || list[1].Requests < 45 || hostHeader.Load() != name {
		t.Fatalf("%+v, host %v", list, hostHeader.Load())
	}
	if r.asked != 1 {
		t.Fatalf("asked %d times", r.asked)
	}
	resolve := func() {
		s.keeper.mu.Lock()
		defer s.keeper.mu.Unlock()
		_ = s.resolve(t.Context())
	}
	r.err = errors.New("no answer")
	resolve()
	if list, _ = s.Hosts(); len(list) != 2 || !list[0].Ejected {
		t.Fatal("a resolver that is away took the hosts away")
	}
	r.err = nil
	r.set("10.0.0.1") // rebound
	resolve()
	_, err = s.Deliver(t.Context(), events(1, 1))
	var d *pipeline.DeliveryError
	if !errors.As(err, &d) || d.Class != pipeline.Unavailable || !strings.Contains(d.Reason, "10.0.0.1, which egress forbids") {
		t.Fatal(err)
	}
	r.set("127.0.0.1")
	time.Sleep(time.Until(s.keeper.at.Add(time.Second))) // what was just asked is not asked again
	if _, err := s.Deliver(t.Context(), events(1, 1)); err != nil {
		t.Fatal(err)
	}
}

// What one of two hosts says: only what shows that it cannot have taken the events is asked of the other at once.
func TestAnotherHostIsAsked(t *testing.T) {
	for status, want := range map[int]bool{302: true, 308: true, 401: true, 403: true, 404: true,
		200: false, 204: false, 400: false, 408: false, 409: false, 410: false, 413: false, 422: false, 429: false, 500: false, 502: false, 503: false, 504: false} {
		near, far := newSite(t), newSite(t)
		near.status.Store(int64(status))
		s := newSink(t, "", several([]int{0, 2}, near, far))
		_, err := s.Deliver(t.Context(), events(1, 1))
		if asked := far.posts.Load() == 1; asked != want || near.posts.Load() != 1 || want && err != nil {
			t.Errorf("%d: the other was asked %v, want %v; %v", status, asked, want, err)
		}
		s.Close()
		near.Close()
		far.Close()
	}
}

// A statement about events never ejects a host, nor does one about the pace.
func TestWhatEjects(t *testing.T) {
	for status, want := range map[int]bool{302: true, 401: true, 404: true, 500: true, 503: true, 599: true, 204: false, 400: false, 410: false, 413: false, 422: false, 429: false} {
		site := newSite(t)
		site.status.Store(int64(status))
		s := newSink(t, "", several([]int{0, 2}, site, newSite(t)))
		for range 5 {
			_, _ = s.Deliver(t.Context(), events(1, 1))
		}
		if list, _ := s.Hosts(); list[0].Ejected != want {
			t.Errorf("%d: ejected %v, want %v", status, list[0].Ejected, want)
		}
	}
}
