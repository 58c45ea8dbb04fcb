// Package rough is a TCP proxy for tests that does to connections what networks do: delays them, resets them
// in the middle of a message, or lets them stand for ever without a word.
package rough

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Trouble is what happens to one connection. The zero value is none.
type Trouble struct {
	// Delay holds each piece of the server's back.
	Delay time.Duration
	// Reset and Stall count the server's bytes, 0 is never: after so many the connection is reset; or nothing
	// passes any more in either direction while both ends stay open, and the server is not even told when the
	// client goes.
	Reset, Stall int64
}

// Proxy passes connections on to one server. Safe for concurrent use.
type Proxy struct {
	Addr string // HOST:PORT where it listens

	resets, stalls, connections atomic.Int32

	target string
	next   func(n int) Trouble
	l      net.Listener
	mu     sync.Mutex
	open   map[net.Conn]bool // nil once the test is over
	wg     sync.WaitGroup
}

// New begins to listen, until t ends. next says what is to happen to connection n, counted from 0; it is called for
// one at a time.
func New(t testing.TB, target string, next func(n int) Trouble) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, next: next, l: l, open: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for c := range p.open {
			_ = c.Close()
		}
		p.open = nil
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// Counts of what was done so far.
func (p *Proxy) Counts() (connections, resets, stalls int) {
	return int(p.connections.Load()), int(p.resets.Load()), int(p.stalls.Load())
}

func (p *Proxy) accept() {
	for n := 0; ; n++ {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.keep(client) || !p.keep(server) {
			return
		}
		p.connections.Add(1)
		stalled, trouble := make(chan struct{}), p.next(n)
		p.wg.Go(func() { p.up(client, server, stalled) })
		p.wg.Go(func() { p.down(client, server, trouble, stalled) })
	}
}

// keep notes an open connection; false when the test is over.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		_ = c.Close()
		return false
	}
	p.open[c] = true
	return true
}

func (p *Proxy) end(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.open, c)
		_ = c.Close()
	}
}

// up passes on what the client says, until it is swallowed.
func (p *Proxy) up(client, server net.Conn, stalled chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := client.Read(buf)
		select {
		case <-stalled:
			if err != nil {
				p.end(client)
				return
			}
			continue
		default:
		}
		if n > 0 {
			if _, werr := server.Write(buf[:n]); werr != nil {
				err = errors.Join(err, werr)
			}
		}
		if err != nil {
			p.end(client, server)
			return
		}
	}
}

func (p *Proxy) down(client, server net.Conn, trouble Trouble, stalled chan struct{}) {
	buf := make([]byte, 32<<10)
	var passed int64
	for {
		room := int64(len(buf))
		for _, limit := range []int64{trouble.Reset, trouble.Stall} {
			if limit > 0 {
				room = min(room, limit-passed)
			}
		}
		n, err := server.Read(buf[:room])
		time.Sleep(trouble.Delay)
		if n > 0 {
			if _, werr := client.Write(buf[:n]); werr != nil {
				err = errors.Join(err, werr)
			}
			passed += int64(n)
		}
		switch {
		case err != nil:
			p.end(client, server)
			return
		case trouble.Reset > 0 && passed >= trouble.Reset:
			p.resets.Add(1)
			for _, c := range []net.Conn{client, server} {
				if tcp, ok := c.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0) // Close resets then
				}
			}
			p.end(client, server)
			return
		case trouble.Stall > 0 && passed >= trouble.Stall:
			p.stalls.Add(1)
			close(stalled)
			return // the server's end stays until the test ends
		}
	}
}
