package webhook

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// ForbiddenError: the endpoint's name resolves to an address that may not be called.
type ForbiddenError struct {
	Addr netip.Addr
	// Plain: http without TLS, beyond loopback and private addresses.
	Plain bool
}

// Error names the address and the cure.
func (e *ForbiddenError) Error() string {
	if e.Plain {
		return fmt.Sprintf("the endpoint resolves to %s: plain http goes to loopback and private addresses only; use https", e.Addr)
	}
	return fmt.Sprintf("the endpoint resolves to %s, which egress forbids; add its network to egress.allow", e.Addr)
}

// check says whether addr may be dialed.
func (o *Options) check(addr netip.Addr, plain bool) error {
	addr = addr.Unmap().WithZone("")
	switch {
	case !addr.IsValid(), addr.IsUnspecified(), addr.IsMulticast(), addr.IsLinkLocalUnicast(), o.Permit == nil, !o.Permit(addr):
		return &ForbiddenError{Addr: addr}
	case plain && !addr.IsLoopback() && !addr.IsPrivate():
		return &ForbiddenError{Addr: addr, Plain: true}
	}
	return nil
}

// newTransport returns a pool of connections that asks o.Permit about each address it dials. A proxy from the
// environment is not used: it would dial for us, unasked.
func (s *Sink) newTransport(u *url.URL) *http.Transport {
	o := &s.o
	plain := u.Scheme == "http"
	name := u.Hostname()
	if _, err := netip.ParseAddr(name); err == nil {
		name = "" // net/http takes the address
	}
	// The address given to Control is the one that is dialed: no name stands between check and use.
	d := &net.Dialer{Timeout: min(o.Timeout, 10*time.Second), KeepAlive: 30 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return &ForbiddenError{}
			}
			if s.proxy != nil {
				return checkProxy(ap.Addr())
			}
			return o.check(ap.Addr(), plain)
		}}
	secure := s.tls.Clone()
	secure.ServerName = name
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := d.DialContext(ctx, network, address)
			if t, ok := c.(*net.TCPConn); ok && plain && s.proxy == nil {
				return &conn{t}, nil
			}
			return c, err
		},
		TLSClientConfig:        secure,
		TLSHandshakeTimeout:    min(o.Timeout, 10*time.Second),
		MaxIdleConns:           o.MaxInFlight,
		MaxIdleConnsPerHost:    o.MaxInFlight,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
	s.viaProxy(t)
	return t
}

// body is a request's body in pieces, shared with other requests: it is only read. net/http may still read
// it when the reply is there already; open counts the bodies that it has not closed.
type body struct {
	parts net.Buffers
	open  *sync.WaitGroup
	once  sync.Once
}

func newBody(parts [][]byte, open *sync.WaitGroup) *body {
	open.Add(1)
	return &body{parts: append(net.Buffers(nil), parts...), open: open}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	for len(b.parts) > 0 && n < len(p) {
		c := copy(p[n:], b.parts[0])
		n += c
		if b.parts[0] = b.parts[0][c:]; len(b.parts[0]) == 0 {
			b.parts = b.parts[1:]
		}
	}
	if n == 0 && len(b.parts) == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.once.Do(b.open.Done)
	return nil
}

// conn writes bodies in one gathering write, without copying them through a buffer.
type conn struct{ *net.TCPConn }

// ReadFrom implements io.ReaderFrom. net/http comes here with the body limited to its declared length,
// which is all of it.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if b, ok := l.R.(*body); ok {
			n, err := b.parts.WriteTo(c.TCPConn)
			l.N -= n
			return n, err
		}
	}
	return c.TCPConn.ReadFrom(r)
}
