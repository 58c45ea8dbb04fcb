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
// A fixed pause is bistable. While the server's congestion window is small, few segments leave during a pause
// and the other rows gather behind them. Once it allows for all of a pause's rows, each leaves as a segment
// of its own, 200 bytes long, and the rate halves (seen with BBR, whose window follows how many segments a
// gulp acknowledges). So the window that counts is made ours: the receive buffer is fixed, and the pause is
// such that it is just full when it is read (additive-multiplicative control: a gulp that did not fill it
// makes the pause longer, one that did makes it a little shorter). What the buffer holds is learnt from the
// largest gulps: they differ by more than a tenth, which is enough (a twentieth is, in the model of
// gulp_test.go; without any the pause would shrink to the least). Rows then always gather behind a closed window. Measured, raw reader, quiet machine, MB/s in four runs each: no pause 18–23, fixed 600 µs 45–58,
// this 57–61. What did no good: TCP_WINDOW_CLAMP, bursts of reads without pauses, longer fixed pauses; a
// buffer of two loopback segments (128 KiB) stalls, as its window update is held back.
//
// It lies below TLS: there each row is a record of its own, and all records of a gulp are read with one
// call.
type gulps struct {
	net.Conn
	quiet func() // turns quick acknowledgements off, again after each read: the kernel turns them on
	pause time.Duration
	sleep func(time.Duration)

	// Owned by the reader.
	buf     []byte // what was read and not asked for yet
	r, w    int
	last    time.Time // end of the last read
	window  time.Time // begin of the span over which bytes are counted
	bytes   int
	behind  bool // the rate is above gulpRate
	deep    bool // it is above deepRate: a backlog is being read
	wait    time.Duration
	gulp    int  // bytes of this gulp so far
	open    bool // the gulp goes on: the last read filled its buffer
	largest int  // about the largest gulp of late: what the receive buffer holds
}

const (
	// gulpWindow is the span over which the rate is looked at.
	gulpWindow = 4 * time.Millisecond
	// gulpRate in bytes a second, above which the stream counts as behind: some 10,000 rows a second.
	gulpRate = 2 << 20
	// deepRate in bytes a second: more than rows that come singly reach, so that what is live never waits long.
	deepRate = 8 << 20
	// leastPause and mostPause bound the controlled pause.
	leastPause, mostPause = 200 * time.Microsecond, 16 * time.Millisecond
	// receiveBuffer is asked for; the kernel doubles it, and its window is about 0.9 of that.
	receiveBuffer = 512 << 10
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
		return &gulps{Conn: conn, quiet: tune(conn, pause > 0), pause: pause, sleep: sleep, wait: pause, last: now, window: now}, nil
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
	if g.behind && g.pause > 0 && !g.open {
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
		g.behind, g.deep = rate > gulpRate, rate > deepRate
		g.window, g.bytes = now, 0
	}
	return n, err
}

// control sets the next pause by the gulp that ended: long enough that the receive buffer fills.
func (g *gulps) control() {
	n := g.gulp
	g.gulp = 0
	switch {
	case !g.deep:
		g.wait, g.largest = g.pause, 0
		return
	case n > g.largest:
		g.largest = n
	}
	if n >= g.largest*9/10 {
		g.wait = max(leastPause, g.wait*98/100)
	} else {
		g.wait = min(mostPause, g.wait*11/10)
	}
	g.largest -= g.largest / 256 // forgets a size that is not reached any more
}
