package postgres

import (
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// wire is a connection on which rows arrive at a rate, as far as the receive buffer takes them: what stands
// behind a full one gathers with the server, at its full rate, and leaves in large segments when it is emptied. While it is not full each
// row is a segment, at the slow rate. Time is virtual, and nothing is by chance.
type wire struct {
	net.Conn
	bytes      bool // each byte is one more than the one before
	row        int
	rate, slow float64 // bytes a second that the server makes; 0: slow as rate
	window     int     // of the receive buffer
	filled     time.Time
	have       float64
	queue      float64 // gathered by the server
	segs       float64
	next       byte // of the bytes handed out, counted through

	arrived time.Time     // when the first byte of the last read was there
	late    time.Duration // the longest that a byte has waited
}

const sendBuffer, loopbackSegment = 1 << 20, 64 << 10

func (w *wire) fill() {
	now, slow := time.Now(), w.slow
	if slow == 0 {
		slow = w.rate
	}
	took := now.Sub(w.filled).Seconds()
	single := min(float64(w.window)-w.have, slow*took)
	w.have += single
	w.segs += single / float64(w.row)
	if rest := took - single/max(slow, 1); w.have >= float64(w.window) && rest > 0 {
		w.queue = min(sendBuffer, w.queue+w.rate*rest)
	}
	w.filled = now
}

// leave lets what has gathered leave, as far as there is room.
func (w *wire) leave() {
	n := min(w.queue, float64(w.window)-w.have)
	w.queue -= n
	w.have += n
	w.segs += n / loopbackSegment
}

func (w *wire) Read(p []byte) (int, error) {
	if w.rate == 0 && w.have < float64(w.row) {
		return 0, io.EOF
	}
	before, since := w.have, w.filled
	w.fill()
	if w.have < float64(w.row) {
		time.Sleep(time.Duration((float64(w.row) - w.have) / w.rate * 1e9))
		w.have, w.filled, w.segs = float64(w.row), time.Now(), w.segs+1
		w.arrived = w.filled
	} else {
		w.arrived = since
		if before < float64(w.row) {
			w.arrived = since.Add(time.Duration((float64(w.row) - before) / w.rate * 1e9))
		}
	}
	w.late = max(w.late, time.Since(w.arrived))
	n := min(len(p), int(w.have)/w.row*w.row)
	w.have -= float64(n)
	w.leave()
	for i := 0; w.bytes && i < n; i++ {
		p[i] = w.next
		w.next++
	}
	return n, nil
}

// controlled is a reader of w whose pauses are counted.
func controlled(w *wire) (g *gulps, slept *time.Duration) {
	slept = new(time.Duration)
	now := time.Now()
	w.filled = now
	segments := func() (uint32, int) { return uint32(w.segs), largeSegment }
	return &gulps{Conn: w, quiet: func() {}, segments: segments, pause: 600 * time.Microsecond, wait: 600 * time.Microsecond, last: now, window: now,
		sleep: func(d time.Duration) { *slept += d; time.Sleep(d) }}, slept
}

// during reads for d and returns the mean of the gulps and the rate reached.
func (g *gulps) during(t *testing.T, d time.Duration) (mean, rate float64) {
	t.Helper()
	buf := make([]byte, 1<<20)
	total, reads, from := 0, 0, time.Now()
	for time.Since(from) < d {
		n, err := g.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		total += n
		reads++
	}
	return float64(total) / float64(reads), float64(total) / time.Since(from).Seconds()
}

// TestGulpsOfALiveStream: rows that come singly are read at once, each, also from a server that is a little late.
func TestGulpsOfALiveStream(t *testing.T) {
	for _, rows := range []float64{10, 1000, 9000} {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{row: 200, rate: rows * 200, window: 460 << 10}
			g, slept := controlled(w)
			g.lag = backlog - time.Millisecond
			g.during(t, 3*time.Second)
			if *slept != 0 || w.late > time.Microsecond {
				t.Errorf("%.0f rows/s: paused for %v, a row waited for %v", rows, *slept, w.late)
			}
		})
	}
}

// TestGulpsLeaveTheSlowState: while there is a backlog, the rows leave in large segments, whatever the server's
// rates and the buffer's size, and soon again when they change; the rate is well above the slow state's.
func TestGulpsLeaveTheSlowState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{row: 200}
		g, _ := controlled(w)
		g.lag = time.Minute
		for _, c := range []struct {
			mb, slow float64
			window   int
		}{{60, 24, 230 << 10}, {20, 8, 230 << 10}, {12, 5, 230 << 10}, {200, 50, 230 << 10}, {60, 24, 460 << 10}, {25, 10, 460 << 10}, {60, 24, 100 << 10}} {
			w.rate, w.slow, w.window = c.mb*1e6, c.slow*1e6, c.window
			g.during(t, 2*time.Second) // it has time to find the pause
			segs := w.segs
			mean, rate := g.during(t, time.Second)
			if large := rate / (w.segs - segs); large < 3000 {
				t.Errorf("%+v: %.0f bytes a segment, %.0f KiB a gulp, pauses for %v", c, large, mean/1024, g.wait)
			}
			if rate < 1.5*w.slow {
				t.Errorf("%+v: %.0f MB/s are read, pauses for %v", c, rate/1e6, g.wait)
			}
		}
	})
}

// TestGulpsStayWithinBounds: segments that are never large, those that always are, and a backlog that ends.
func TestGulpsStayWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{row: 200, rate: 1e6, window: 64 << 20}
		g, _ := controlled(w)
		g.lag = time.Minute
		g.during(t, 2*time.Second)
		if g.wait != mostPause || w.late > mostPause+time.Millisecond {
			t.Errorf("pauses for %v, a row waited for %v", g.wait, w.late)
		}
		g.lag, w.late = backlog, 0
		g.during(t, time.Second)
		if g.wait > backlog/4 || w.late > mostPause+time.Millisecond {
			t.Errorf("pauses for %v with a lag of %v", g.wait, backlog)
		}
		// The backlog is read: no row waits any more.
		g.lag = 0
		g.during(t, 2*gulpWindow)
		w.late = 0
		g.during(t, time.Second)
		if w.late > time.Microsecond || g.behind || g.wait != g.pause {
			t.Errorf("live again: behind %v, a row waited for %v, would pause for %v", g.behind, w.late, g.wait)
		}
		g.lag = time.Minute
		w.row, w.rate, w.window = 32<<10, 60e6, 230<<10
		g.during(t, 2*time.Second)
		if g.wait != leastPause {
			t.Errorf("pauses for %v though each segment is large, want the least", g.wait)
		}
	})
}

// TestGulpsKeepTheBytes, asked for in any sizes, as TLS does.
func TestGulpsKeepTheBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(1, 2))
		w := &wire{row: 200, rate: 50e6, window: 460 << 10, bytes: true}
		g, _ := controlled(w)
		buf, want := make([]byte, 600<<10), byte(0)
		for total := 0; total < 5<<20; {
			size := 1 + rnd.IntN(1<<rnd.IntN(20))
			n, err := g.Read(buf[:size])
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			for _, b := range buf[:n] {
				if b != want {
					t.Fatalf("byte %d is %d, want %d", total, b, want)
				}
				want++
			}
			total += n
		}
		w.rate = 0 // the server is gone
		rest, err := io.ReadAll(g)
		if err != nil || len(rest)+int(w.have) > 460<<10 {
			t.Errorf("%d bytes and %v at the end", len(rest), err)
		}
		for _, b := range rest {
			if b != want {
				t.Fatal("bytes are lost at the end")
			}
			want++
		}
	})
}
