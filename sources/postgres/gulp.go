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
// Behind is told by the rate alone: the bytes of a read may be few just because the reader is quick.
//
// A pause alone is bistable. As long as the server's congestion window is small, few segments are sent during a
// pause and the other rows gather behind them (some 17 segments of 2,600 bytes a gulp). Once the window
// has grown to allow for all of a pause's rows, each goes on leaving as a segment of its own (110 of 210
// bytes), because a gulp is still acknowledged at once. Then longer pauses do some good. What did none: a small
// receive buffer or window clamp (the kernel's tuning undoes it, or rows are dropped), bursts of
// reads without pauses. The runtime's poller made it worse: see socket.
//
// It lies below TLS: there each row is a record of its own, and all records of a gulp are read with one
// call.
type gulps struct {
	net.Conn
	link  link
	pause time.Duration

	// Owned by the reader.
	buf     []byte // what was read and not asked for yet
	r, w    int
	last    time.Time // end of the last read
	window  time.Time // begin of the span over which bytes are counted
	bytes   int
	behind  bool
	probe   time.Time // when the segments were counted last
	seen    counted
	stretch int // the pause is doubled so often
}

// link is what the kernel does and knows about a connection.
type link struct {
	// quiet turns quick acknowledgements off, again after each read: the kernel turns them on.
	quiet func()
	// count returns what has arrived so far, and the mean size below which segments count as small.
	count func() (c counted, small int)
}

// counted are segments with data, and their bytes.
type counted struct{ segments, bytes uint64 }

func noLink() link {
	return link{quiet: func() {}, count: func() (counted, int) { return counted{}, 0 }}
}

const (
	// gulpProbe is how often the size of segments is looked at, by one getsockopt.
	gulpProbe = 25 * time.Millisecond
	// maxStretch bounds the pause: at most so many doublings.
	maxStretch = 3
	// gulpWindow is the span over which the rate is looked at.
	gulpWindow = 4 * time.Millisecond
	// gulpRate in bytes a second, above which the stream counts as behind: some 10,000 rows a second.
	gulpRate = 2 << 20
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
		return &gulps{Conn: conn, link: tune(conn), pause: pause, last: now, window: now}, nil
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
	if g.behind && g.pause > 0 {
		if rest := g.pause<<g.stretch - time.Since(g.last); rest > 0 {
			sleep(rest)
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
		g.link.quiet()
	}
	g.bytes += n
	if span := now.Sub(g.window); span >= gulpWindow {
		g.behind = float64(g.bytes) > gulpRate*span.Seconds()
		g.window, g.bytes = now, 0
	}
	if g.behind && g.pause > 0 && now.Sub(g.probe) >= gulpProbe {
		g.look(now)
	}
	return n, err
}

// look makes the pause longer while rows arrive in segments of their own, up to what the congestion window
// does not hold any more, and shorter again when they do not.
func (g *gulps) look(now time.Time) {
	since, was := now.Sub(g.probe), g.seen
	c, small := g.link.count()
	g.probe, g.seen = now, c
	segments := c.segments - was.segments
	if since > 4*gulpProbe || segments < 64 {
		return // too long ago, or too little to tell
	}
	if (c.bytes-was.bytes)/segments < uint64(small) {
		g.stretch = min(g.stretch+1, maxStretch)
	} else {
		g.stretch = max(g.stretch-1, 0)
	}
}
