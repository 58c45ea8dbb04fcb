package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"golang.org/x/net/netutil"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// Server serves the API. Safe for concurrent use.
type Server struct {
	o       Options
	mux     *http.ServeMux
	guard   atomic.Pointer[guard]
	places  *places
	refusal *connect.ErrorWriter
	views   chan struct{}
	stop    context.Context // ends when the server begins to stop
	stopNow context.CancelFunc

	mu     sync.Mutex
	open   map[*liveCall]struct{}
	served bool
	closed bool
	calls  sync.WaitGroup
}

// New checks the options and returns a server that does not listen yet.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{o: o, mux: http.NewServeMux(), refusal: connect.NewErrorWriter(), views: make(chan struct{}, o.Limits.Views)}
	s.stop, s.stopNow = context.WithCancel(context.Background())
	g, err := newGuard(o.Tokens)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	s.guard.Store(g)
	rpc := s.services()
	for i := range routes {
		rt := &routes[i]
		var h http.Handler
		if rt.rpc {
			h = rpc[rt.path]
		} else {
			h = rt.serve(s)
		}
		if h != nil {
			s.mux.Handle(rt.path, s.wrap(rt, h))
		}
	}
	return s, nil
}

// SetTokens replaces the tokens for requests to come, and ends the streams whose token is gone or has lost
// a role; their clients come again with what they may. From some to none and back is refused: it decides
// where the server may listen.
func (s *Server) SetTokens(tokens []Token) error {
	g, err := newGuard(tokens)
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	if (len(g.tokens) == 0) != (len(s.guard.Load().tokens) == 0) {
		return Errorf(Precondition, "tokens can be changed while the server runs, but not switched on or off: restart it")
	}
	s.guard.Store(g)
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open {
		if !g.actor(st.header).covers(st.actor) {
			st.end()
		}
	}
	return nil
}

// liveCall is a call that lives on while tokens change.
type liveCall struct {
	header http.Header
	actor  *actor
	end    context.CancelFunc
}

// track notes a stream until done is called. It ends at once where the tokens were changed since it was let in.
func (s *Server) track(header http.Header, a *actor, end context.CancelFunc) (done func()) {
	st := &liveCall{header: header, actor: a, end: end}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*liveCall]struct{}{}
	}
	s.open[st] = struct{}{}
	if !s.guard.Load().actor(header).covers(a) {
		end()
	}
	return func() {
		s.mu.Lock()
		delete(s.open, st)
		s.mu.Unlock()
	}
}

// services returns the handler of each procedure.
func (s *Server) services() map[string]http.Handler {
	byPath := map[string]http.Handler{}
	add := func(prefix string, h http.Handler) {
		for i := range routes {
			if p := routes[i].path; routes[i].rpc && len(p) > len(prefix) && p[:len(prefix)] == prefix {
				byPath[p] = h
			}
		}
	}
	options := []connect.HandlerOption{
		connect.WithReadMaxBytes(s.o.Limits.MessageBytes),
		connect.WithCompressMinBytes(4 << 10),
		connect.WithRecover(recovered),
	}
	add(leatv1connect.NewAdminServiceHandler(&admin{b: s.o.Backend, write: s.o.Limits.Write},
		append([]connect.HandlerOption{connect.WithInterceptors(auditing(s.o.Backend))}, options...)...)) // outside of what recovers
	names := []string{leatv1connect.AdminServiceName}
	if s.o.Subscriber != nil {
		// Compressed requests are understood; events are never compressed, which would cost four fifths of
		// the rate and is what most clients ask for without meaning it.
		add(s.o.Subscriber(connect.WithReadMaxBytes(s.o.Limits.MessageBytes), connect.WithCompressMinBytes(math.MaxInt),
			connect.WithRecover(recovered), connect.WithInterceptors(subscriberCheck{}, &lateCompletions{b: s.o.Backend})))
		names = append(names, leatv1connect.SubscriberServiceName)
	}
	reflector := grpcreflect.NewStaticReflector(names...)
	add(grpcreflect.NewHandlerV1(reflector, options...))
	add(grpcreflect.NewHandlerV1Alpha(reflector, options...))
	return byPath
}

// recovered answers a call that panicked; the text of a panic may hold anything, so it is not sent.
func recovered(_ context.Context, spec connect.Spec, _ http.Header, _ any) error {
	return connect.NewError(connect.CodeInternal, fmt.Errorf("%s failed in a way that is a fault of Leat", spec.Procedure))
}

// Serve answers on l until ctx ends: then it takes no new calls, ends streams at once, gives calls in
// flight the grace and breaks them off after it. It closes l and returns nil when all calls have ended in time. A
// server serves once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	if err := s.begin(l.Addr()); err != nil {
		return err
	}
	srv := s.server()
	l = netutil.LimitListener(l, s.o.Limits.Connections)
	failed := make(chan error, 1)
	go func() {
		if s.o.TLS != nil {
			failed <- srv.ServeTLS(l, "", "")
		} else {
			failed <- srv.Serve(l)
		}
	}()
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.stopNow()
	grace, cancel := context.WithTimeout(context.Background(), s.o.Grace)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		// Ends the contexts of the calls that are left.
		err = errors.Join(err, srv.Close())
	}
	if ctx.Err() != nil {
		<-failed
	}
	return errors.Join(err, s.join())
}

// begin checks that the server may listen at a, and that it does so once.
func (s *Server) begin(a net.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served {
		return errors.New("api: a server serves once")
	}
	port := ""
	if tcp, ok := a.(*net.TCPAddr); ok {
		if len(s.guard.Load().tokens) == 0 && !tcp.IP.IsLoopback() {
			return fmt.Errorf("api: listening on %s, which is not loopback, needs tokens", a)
		}
		port = fmt.Sprint(tcp.Port)
	}
	s.places = newPlaces(s.o.Listen, port, s.o.PublicURL, s.o.TLS != nil)
	s.served = true
	return nil
}

func (s *Server) server() *http.Server {
	lim := s.o.Limits
	srv := &http.Server{
		Handler:           s.mux,
		TLSConfig:         s.o.TLS,
		ReadHeaderTimeout: lim.HeaderTime,
		IdleTimeout:       lim.Idle,
		MaxHeaderBytes:    lim.HeaderBytes,
		ErrorLog:          s.o.ErrorLog,
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: lim.ConcurrentStreams,
			// Requests are small (credits, acks); how fast events leave is a matter of the client's windows.
			MaxReadFrameSize:              64 << 10,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     256 << 10,
			// A client that vanished without a word gives its leases back.
			SendPingTimeout:  lim.Quiet,
			PingTimeout:      lim.Answer,
			WriteByteTimeout: lim.Quiet,
		},
	}
	if srv.ErrorLog == nil {
		srv.ErrorLog = log.New(io.Discard, "", 0)
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(s.o.TLS == nil)
	return srv
}

// enter counts a call; false when none is taken any more.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.calls.Add(1)
	return true
}

// join waits for the calls that were broken off.
func (s *Server) join() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.calls.Wait()
		close(done)
	}()
	t := time.NewTimer(s.o.Grace)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return errors.New("api: calls still run although they were told to end")
	}
}
