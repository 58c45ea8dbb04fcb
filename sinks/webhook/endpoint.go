package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/webhook/hosts"
)

// resolveEvery is how often the addresses of a name are asked for again.
const resolveEvery = 30 * time.Second

// lookup returns the addresses of a name.
type lookup func(ctx context.Context, host string) ([]netip.Addr, error)

func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// endpoint is one URL.
type endpoint struct {
	url       *url.URL
	shown     string // without secrets
	id        string // shown, and told apart
	rank      int
	literal   bool // an address, not a name
	transport transport
	targets   []hosts.Host[*target] // as last resolved; under keeper.mu
	ask       bool                  // to be asked by OPTIONS first
	agreement agreement
}

// target is what a host of the pool is to us: the URL with an address in the place of the name. So the address
// that egress was asked about is the one that is dialed, by the proxy too.
type target struct {
	endpoint *endpoint
	url      *url.URL
}

// keeper resolves names and probes ejected hosts, in one goroutine that begins with the first Delivery.
type keeper struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	known  atomic.Bool // hosts are in the pool

	mu      sync.Mutex
	started bool
	err     error // of the last look-up without any host
	at      time.Time
}

func (s *Sink) add(e Endpoint) error {
	u, err := url.Parse(e.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("webhook url: want https://host/path") // url.Parse's error shows the URL
	}
	if s.proxy != nil && u.Scheme != "https" {
		return errors.New("webhook: through a proxy goes https only; plain http stays inside, where it needs none")
	}
	shown := u.Scheme + "://" + u.Host + u.EscapedPath()
	id := shown
	if slices.ContainsFunc(s.endpoints, func(e *endpoint) bool { return e.shown == shown }) {
		id = fmt.Sprintf("%s #%d", shown, len(s.endpoints)+1)
	}
	_, err = netip.ParseAddr(u.Hostname())
	n := &endpoint{url: u, shown: shown, id: id, rank: e.Rank, literal: err == nil, transport: s.o.transport, ask: e.Ask}
	if n.transport == nil {
		n.transport = s.newTransport(u)
	}
	s.endpoints = append(s.endpoints, n)
	return nil
}

// urls lists what may hold secrets.
func (s *Sink) urls() (list []*url.URL) {
	for _, e := range s.endpoints {
		list = append(list, e.url)
	}
	if s.proxy != nil {
		list = append(list, s.proxy)
	}
	return list
}

// Hosts lists the hosts; panicking: too many are ejected, so all are used.
func (s *Sink) Hosts() (list []hosts.State, panicking bool) { return s.pool.States() }

// ready sees to it that hosts are known.
func (s *Sink) ready(ctx context.Context) error {
	k := &s.keeper
	if k.known.Load() {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known.Load() {
		return nil
	}
	if k.err != nil && time.Since(k.at) < time.Second { // others waited for the same
		return k.err
	}
	limited, cancel := context.WithTimeout(ctx, min(s.o.Timeout, 10*time.Second))
	defer cancel()
	if err := s.resolve(limited); err != nil {
		if ctx.Err() != nil {
			k.err = nil // only this caller's
		}
		return err
	}
	if !k.started && (len(s.endpoints) > 1 || !s.endpoints[0].literal) {
		k.started = true
		k.wg.Go(s.keep)
	}
	return nil
}

// resolve asks for all addresses and tells the pool. An endpoint whose name cannot be resolved now keeps the
// addresses it has. Called with keeper.mu held.
func (s *Sink) resolve(ctx context.Context) error {
	var all []hosts.Host[*target]
	var first error
	for _, e := range s.endpoints {
		list, err := s.addresses(ctx, e)
		forbidden := (*ForbiddenError)(nil)
		if err == nil || errors.As(err, &forbidden) {
			e.targets = list
		}
		if first == nil {
			first = err
		}
		all = append(all, e.targets...)
	}
	s.pool.Set(all)
	k := &s.keeper
	k.known.Store(len(all) > 0)
	if k.err, k.at = nil, time.Now(); len(all) == 0 {
		k.err = first
	}
	return k.err
}

// addresses returns the hosts of one endpoint: those of its addresses that may be called.
func (s *Sink) addresses(ctx context.Context, e *endpoint) ([]hosts.Host[*target], error) {
	if s.proxy != nil && e.literal {
		a, _ := netip.ParseAddr(e.url.Hostname())
		if err := s.o.check(a, e.url.Scheme == "http"); err != nil {
			return nil, err
		}
	}
	if e.literal || s.proxy != nil && s.o.Proxy.Resolves {
		return []hosts.Host[*target]{{ID: e.id, Rank: e.rank, Target: &target{e, e.url}}}, nil
	}
	look := s.o.lookup
	if look == nil {
		look = systemLookup
	}
	addrs, err := look(ctx, e.url.Hostname())
	if err != nil {
		return nil, err
	}
	port := cmp.Or(e.url.Port(), map[string]string{"http": "80", "https": "443"}[e.url.Scheme])
	var list []hosts.Host[*target]
	for _, a := range addrs {
		a = a.Unmap()
		if refused := s.o.check(a, e.url.Scheme == "http"); refused != nil {
			err = refused
			continue
		}
		u := *e.url
		u.Host = net.JoinHostPort(a.String(), port)
		list = append(list, hosts.Host[*target]{ID: e.id + " " + a.String(), Rank: e.rank, Target: &target{e, &u}})
	}
	if len(list) > 0 {
		return list, nil
	}
	if err == nil {
		err = &net.DNSError{Err: "the name has no address", Name: e.url.Hostname(), IsNotFound: true}
	}
	return nil, err
}

// keep resolves and probes until Close.
func (s *Sink) keep() {
	every := cmp.Or(s.o.pool.Probe, 5*time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	resolved := time.Now()
	for {
		select {
		case <-s.keeper.ctx.Done():
			return
		case <-tick.C:
		}
		if now := time.Now(); now.Sub(resolved) >= resolveEvery {
			resolved = now
			ctx, cancel := context.WithTimeout(s.keeper.ctx, min(s.o.Timeout, 10*time.Second))
			s.keeper.mu.Lock()
			_ = s.resolve(ctx) // without any host the next Delivery asks, and says why
			s.keeper.mu.Unlock()
			cancel()
		}
		due, _ := s.pool.Probes(time.Now())
		for _, h := range due {
			s.keeper.wg.Go(func() { s.pool.Probed(h, time.Now(), s.probe(h.Target), s.o.Probe != "") })
		}
	}
}

// probe says why an ejected host does not answer as it should, empty when it does. A redirect is no answer: it is not
// followed, as everywhere.
func (s *Sink) probe(t *target) string {
	timeout := min(s.o.Timeout, 5*time.Second)
	ctx, cancel := context.WithTimeout(s.keeper.ctx, timeout)
	defer cancel()
	if s.o.Probe == "" {
		return s.connects(ctx, t, timeout)
	}
	u := *t.url
	u.Path, u.RawPath, u.RawQuery = "", "", ""
	if p, err := url.Parse(s.o.Probe); err == nil {
		u.Path, u.RawPath, u.RawQuery = p.Path, p.RawPath, p.RawQuery
	}
	req := (&http.Request{Method: http.MethodGet, URL: &u, Host: t.endpoint.url.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {"leat"}}}).WithContext(ctx)
	resp, err := t.endpoint.transport.RoundTrip(req)
	if err != nil {
		return pipeline.AsDeliveryError(s.failed(ctx, err, timeout)).Reason
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, replyBase)
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode <= 299:
		return ""
	case resp.StatusCode >= 300 && resp.StatusCode <= 399:
		return fmt.Sprintf("GET %s answers %d: redirects are never followed; set `probe:` to the final path", u.Path, resp.StatusCode)
	}
	return fmt.Sprintf("GET %s answers %d", u.Path, resp.StatusCode)
}

// connects says why the host takes no connection, empty when it does. What cannot be tried is left to the next request.
func (s *Sink) connects(ctx context.Context, t *target, timeout time.Duration) string {
	tr, ok := t.endpoint.transport.(*http.Transport)
	if !ok || s.proxy != nil {
		return ""
	}
	port := cmp.Or(t.url.Port(), map[string]string{"http": "80", "https": "443"}[t.url.Scheme])
	c, err := tr.DialContext(ctx, "tcp", net.JoinHostPort(t.url.Hostname(), port))
	if err != nil {
		return pipeline.AsDeliveryError(s.failed(ctx, err, timeout)).Reason
	}
	c.Close()
	return ""
}
