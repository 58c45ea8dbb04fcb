package postgres

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/leat-cdc/leat/sources/postgres/pgoutput"
)

// status owns the writing half of the connection: it tells the server where we stand, also while nobody
// reads. The walsender takes a slower path per message, and ends the connection, when it hears nothing.
type status struct {
	conn     net.Conn
	interval time.Duration
	// received is the highest place that has arrived, confirmed what our log has fsynced.
	received, confirmed atomic.Uint64
	// asked is set while the server waits to hear of a place above confirmed (it is shutting down).
	asked  atomic.Bool
	now    chan struct{} // answer at once
	moved  chan struct{} // confirmed moved
	stop   chan struct{}
	once   sync.Once
	done   chan struct{}
	failed atomic.Pointer[error]
}

// hold is the least time between two reports that nobody asked for.
const hold = time.Second

func newStatus(conn net.Conn, interval time.Duration, at pglogrepl.LSN) *status {
	w := &status{
		conn: conn, interval: interval, now: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	w.received.Store(uint64(at))
	w.confirmed.Store(uint64(at))
	go w.run()
	return w
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reply answers the server at once.
func (w *status) reply() { nudge(w.now) }

// confirm takes note of a place that is durable in our log.
func (w *status) confirm(lsn pglogrepl.LSN) {
	for {
		was := w.confirmed.Load()
		if uint64(lsn) <= was {
			return
		}
		if w.confirmed.CompareAndSwap(was, uint64(lsn)) {
			break
		}
	}
	if w.asked.Swap(false) {
		nudge(w.now)
		return
	}
	nudge(w.moved)
}

func (w *status) run() {
	defer close(w.done)
	last := time.Now()
	timer := time.NewTimer(w.interval)
	defer timer.Stop()
	for {
		ask := false
		select {
		case <-w.stop:
			_ = w.send(time.Second, false) // the last word; the connection ends anyway
			return
		case <-w.now:
		case <-timer.C:
			ask = true
		case <-w.moved:
			if rest := min(hold, w.interval) - time.Since(last); rest > 0 {
				timer.Reset(rest)
				continue
			}
		}
		if err := w.send(w.interval+10*time.Second, ask); err != nil {
			w.failed.Store(&err)
			_ = w.conn.Close() // wakes the reader, which finds the error in failed
			<-w.stop
			return
		}
		last = time.Now()
		timer.Reset(w.interval)
	}
}

// send writes a standby status update: write is what we received, flush and apply what is durable here.
// https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-STANDBY-STATUS-UPDATE
// ask wants an answer, so that a connection that is dead without a word shows as such.
func (w *status) send(within time.Duration, ask bool) error {
	confirmed := w.confirmed.Load()
	received := max(w.received.Load(), confirmed)
	var m [39]byte
	m[0] = 'd'
	binary.BigEndian.PutUint32(m[1:], 38)
	m[5] = 'r'
	binary.BigEndian.PutUint64(m[6:], received)
	binary.BigEndian.PutUint64(m[14:], confirmed)
	binary.BigEndian.PutUint64(m[22:], confirmed)
	binary.BigEndian.PutUint64(m[30:], uint64(time.Now().UnixMicro()-pgoutput.EpochMicros))
	if ask {
		m[38] = 1
	}
	if err := w.conn.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	_, err := w.conn.Write(m[:])
	return err
}

// close sends the last report and joins.
func (w *status) close() {
	w.once.Do(func() { close(w.stop) })
	<-w.done
}
