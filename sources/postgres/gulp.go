package postgres

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// gulps is a connection that decides when to read. The walsender sends each row as a message of its own and
// flushes each: a reader that takes what is there at once sees two or three rows a read and makes the
// server pay a TCP segment and a wake-up for each. One that pauses lets rows gather in the server's send
// queue, and the server then sends two to three times as many rows a second. So while the stream is
// behind, a pause stands between two reads; a stream that keeps up is read at once and pays no latency.
//
// Behind is told by the rate and by the lag: how much later than its commit the server sent the last transaction, both by the
// server's clock. By the rate (gulpRate) the pause is a fixed, short one. By the lag a backlog is read, and the pause is controlled:
// the rate says nothing there, for on cores that others use the slow state of one row a segment has the rate of a live stream.
//
// A fixed pause is bistable. While the server's window is closed for most of a pause, the rows gather behind it and
// leave as large segments, which close it again. While it stays open, each row leaves as a segment of its own, the rate is a half
// or less, and so the window stays open. So the receive buffer is fixed, and the rule is: a gulp whose segments were small on
// average (largeSegment) makes the pause longer by a half, the first after it whose segments were large makes it shorter by three fifths (to
// close the window takes longer than to keep it closed), each later one by a hundredth. That needs neither the buffer's size nor the
// server's speed. A pause is never longer than mostPause or a quarter of the lag:
// so no row waits for gathering much longer than it has waited anyway.
//
// Tried, and worse: what the buffer holds learnt from the largest gulp (too short a pause makes small gulps, which are then taken
// for full ones); SO_RCVLOWAT (the kernel caps it at half of the buffer, so the window never closes); TCP_WINDOW_CLAMP; bursts of reads
// without pauses; buffers of 512 KiB (on a full machine a pause is too short to fill them).
//
// It lies below TLS: there each row is a record of its own, and all records of a gulp are read with one
// call.
type gulps struct {
	net.Conn
	quiet func() // turns quick acknowledgements off, again after each read: the kernel turns them on
	// segments counts those received and says of how many bytes each is large on this path; nil: not known.
	segments func() (seen uint32, large int)
	pause    time.Duration
	sleep    func(time.Duration)

	// Owned by the reader.
	buf    []byte // what was read and not asked for yet
	r, w   int
	last   time.Time // end of the last read
	window time.Time // begin of the span over which bytes are counted
	bytes  int
	behind bool // the rate is above gulpRate
	lag    time.Duration
	wait   time.Duration
	gulp   int  // bytes of this gulp so far
	open   bool // the gulp goes on: the last read filled its buffer
	seen   uint32
	slow   bool // the last gulp came in small segments
}

const (
	// gulpWindow is the span over which the rate is looked at.
	gulpWindow = 4 * time.Millisecond
	// gulpRate in bytes a second, above which the stream counts as behind: some 10,000 rows a second.
	gulpRate = 2 << 20
	// backlog is the lag from which the pause is controlled: more than a live stream has on a busy machine.
	backlog = 40 * time.Millisecond
	// leastPause and mostPause bound the controlled pause.
	leastPause, mostPause = 200 * time.Microsecond, 50 * time.Millisecond
	// receiveBuffer is asked for; the kernel doubles it.
	receiveBuffer = 256 << 10
	// largeSegment is large on a path whose segments may be as large: loopback.
	largeSegment = 16 << 10
	// gulpBuffer is read at once for a caller who asks for less.
	gulpBuffer = 256 << 10
)

// dialer wraps what dial connects.
func dialer(dial pgconn.DialFunc, pause time.Duration) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if conn, err = direct(conn); err != nil {
			return nil, err
		}
		now := time.Now()
		quiet, segments := tune(conn, pause > 0)
		return &gulps{Conn: conn, quiet: quiet, segments: segments, pause: pause, sleep: sleep, wait: pause, last: now, window: now}, nil
	}
}

// gulpsOf finds the gulps below conn.
func gulpsOf(conn net.Conn) *gulps {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	g, _ := conn.(*gulps)
	return g
}

// more reports whether reading goes on without waiting.
func (g *gulps) more() bool { return g.r < g.w }

// Read reads into p what is there, after the pause that is due.
func (g *gulps) Read(p []byte) (int, error) {
	if g.r < g.w {
		n := copy(p, g.buf[g.r:g.w])
		g.r += n
		return n, nil
	}
	if (g.behind || g.lag >= backlog) && g.pause > 0 && !g.open {
		if rest := g.wait - time.Since(g.last); rest > 0 {
			g.sleep(rest)
		}
	}
	if len(p) >= gulpBuffer/4 {
		return g.take(p)
	}
	if g.buf == nil {
		g.buf = make([]byte, gulpBuffer)
	}
	n, err := g.take(g.buf)
	g.w = n
	g.r = copy(p, g.buf[:n])
	return g.r, err
}

func (g *gulps) take(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	now := time.Now()
	g.last = now
	if n > 0 {
		g.quiet()
	}
	g.gulp += n
	if g.open = n == len(p); !g.open {
		g.control()
	}
	g.bytes += n
	if span := now.Sub(g.window); span >= gulpWindow {
		rate := float64(g.bytes) / span.Seconds()
		g.behind = rate > gulpRate
		g.window, g.bytes = now, 0
	}
	return n, err
}

// control sets the next pause by the gulp that ended.
func (g *gulps) control() {
	n := g.gulp
	g.gulp = 0
	if g.segments == nil || g.lag < backlog {
		g.wait = g.pause
		return
	}
	seen, large := g.segments()
	segments := int(seen - g.seen)
	g.seen = seen
	switch slow := n < segments*large; {
	case slow:
		g.wait, g.slow = g.wait*3/2, true
	case g.slow: // what closed the window is more than what keeps it closed
		g.wait, g.slow = g.wait*2/5, false
	default:
		g.wait = g.wait * 99 / 100
	}
	g.wait = max(leastPause, min(g.wait, mostPause, g.lag/4))
}
