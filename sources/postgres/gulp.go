package postgres

import (
	"net"
	"time"
)

// gulps decides when to read. The walsender sends each row as a message of its own and flushes each: a reader
// that takes what is there at once sees two or three rows a read and makes the server pay a TCP segment
// and a wake-up for each. One that pauses lets rows gather in the server's send queue, and the server
// then sends two to three times as many rows a second. So while the stream is behind, a pause stands
// between two reads; a stream that keeps up is read at once and pays no latency.
//
// Behind is told by the rate alone: the bytes of a read may be few just because the reader is quick.
type gulps struct {
	conn  net.Conn
	quiet func() // turns quick acknowledgements off, again after each read: the kernel turns them on
	pause time.Duration

	last   time.Time // end of the last read
	window time.Time // begin of the span over which bytes are counted
	bytes  int
	behind bool
}

const (
	// gulpWindow is the span over which the rate is looked at.
	gulpWindow = 4 * time.Millisecond
	// gulpRate in bytes a second, above which the stream counts as behind: some 10,000 rows a second.
	gulpRate = 2 << 20
)

func newGulps(conn net.Conn, pause time.Duration) *gulps {
	now := time.Now()
	return &gulps{conn: conn, quiet: quickAckOff(conn), pause: pause, last: now, window: now}
}

// read reads into p what is there, after the pause that is due.
func (g *gulps) read(p []byte) (int, error) {
	if g.behind && g.pause > 0 {
		if rest := g.pause - time.Since(g.last); rest > 0 {
			sleep(rest)
		}
	}
	n, err := g.conn.Read(p)
	now := time.Now()
	g.last = now
	if n > 0 {
		g.quiet()
	}
	g.bytes += n
	if span := now.Sub(g.window); span >= gulpWindow {
		g.behind = float64(g.bytes) > gulpRate*span.Seconds()
		g.window, g.bytes = now, 0
	}
	return n, err
}
