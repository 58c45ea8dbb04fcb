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
// behind a full one is sent when it is emptied. Time is virtual.
type wire struct {
	net.Conn
	rnd    *rand.Rand // each gulp's rate differs by some 10 %; nil: none does
	bytes  bool       // each byte is one more than the one before
	row    int
	rate   float64 // bytes a second that the server makes
	window int     // of the receive buffer
	filled time.Time
	have   float64
	next   byte // of the bytes handed out, counted through

	arrived time.Time     // when the first byte of the last read was there
	late    time.Duration // the longest that a byte has waited
}

func (w *wire) fill() {
	now, rate := time.Now(), w.rate
	if w.rnd != nil {
		rate *= max(0.2, 1+0.1*w.rnd.NormFloat64())
	}
	w.have = min(float64(w.window), w.have+rate*now.Sub(w.filled).Seconds())
	w.filled = now
}

func (w *wire) Read(p []byte) (int, error) {
	if w.rate == 0 && w.have < float64(w.row) {
		return 0, io.EOF
	}
	before, since := w.have, w.filled
	w.fill()
	if w.have < float64(w.row) {
		time.Sleep(time.Duration((float64(w.row) - w.have) / w.rate * 1e9))
		w.have, w.filled = float64(w.row), time.Now()
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
	return &gulps{Conn: w, quiet: func() {}, pause: 600 * time.Microsecond, wait: 600 * time.Microsecond, last: now, window: now,
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

// TestGulpsOfALiveStream: rows that come singly are read at once, each.
func TestGulpsOfALiveStream(t *testing.T) {
	for _, rows := range []float64{10, 1000, 9000} {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{row: 200, rate: rows * 200, window: 460 << 10}
			g, slept := controlled(w)
			g.during(t, 3*time.Second)
			if *slept != 0 || w.late > time.Microsecond {
				t.Errorf("%.0f rows/s: paused for %v, a row waited for %v", rows, *slept, w.late)
			}
		})
	}
}

// TestGulpsFillTheReceiveBuffer: while there is a backlog, the pause becomes what the buffer takes to fill, whatever the server's
// rate, and follows when rate or buffer change; what it costs of the rate is little.
func TestGulpsFillTheReceiveBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{row: 200, window: 460 << 10, rnd: rand.New(rand.NewPCG(7, 7))}
		g, _ := controlled(w)
		for _, c := range []struct {
			mb     float64
			window int
		}{{60, 460 << 10}, {40, 460 << 10}, {200, 460 << 10}, {60, 200 << 10}, {60, 460 << 10}} {
			w.rate, w.window = c.mb*1e6, c.window
			g.during(t, 4*time.Second) // it has time to find the pause
			mean, rate := g.during(t, time.Second)
			want := time.Duration(float64(c.window) / w.rate * 1e9)
			if mean < 0.85*float64(c.window) {
				t.Errorf("%.0f MB/s, %d KiB: a gulp has %.0f KiB", c.mb, c.window>>10, mean/1024)
			}
			if rate < 0.85*w.rate {
				t.Errorf("%.0f MB/s, %d KiB: %.0f MB/s are read", c.mb, c.window>>10, rate/1e6)
			}
			if g.wait < want*8/10 || g.wait > want*13/10 {
				t.Errorf("%.0f MB/s, %d KiB: pauses for %v, want about %v", c.mb, c.window>>10, g.wait, want)
			}
		}
	})
}

// TestGulpsStayWithinBounds: a server that never fills the buffer, and one that always has.
func TestGulpsStayWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{row: 200, rate: 12e6, window: 64 << 20, rnd: rand.New(rand.NewPCG(7, 8))}
		g, _ := controlled(w)
		g.during(t, 2*time.Second)
		if g.wait > mostPause || w.late > mostPause+time.Millisecond {
			t.Errorf("pauses for %v, a row waited for %v", g.wait, w.late)
		}
		w.rate, w.window = 20e9, 100<<10
		g.during(t, 2*time.Second)
		if g.wait != leastPause {
			t.Errorf("pauses for %v, want the least", g.wait)
		}
		// The backlog is read: from one look to the next no row waits any more.
		w.rate, w.window = 1e6, 460<<10
		g.during(t, 2*gulpWindow)
		w.late = 0
		g.during(t, time.Second)
		if w.late > time.Microsecond || g.behind || g.wait != g.pause {
			t.Errorf("live again: behind %v, a row waited for %v, would pause for %v", g.behind, w.late, g.wait)
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
