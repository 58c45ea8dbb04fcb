package mysql

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// stream is one connection's worth of changes. Two goroutines: pump reads packets, run turns them into
// batches. A batch is handed over as soon as Next waits for it, and grows until then.
type stream struct {
	src    *Source
	conn   *conn
	server *server
	out    chan *pipeline.Batch
	done   chan struct{} // closed by Close
	over   chan struct{} // closed by run when it ends, after err was set
	err    error
	wg     sync.WaitGroup

	close sync.Once
	abort func() // ends a look at the catalogue that is under way

	mu        sync.Mutex
	confirmed pipeline.Position // guarded by mu; the server is not told: binlogs are kept by age
}

var errClosed = errors.New("the stream was closed")

func newStream(s *Source, c *conn, v *server, p *plan, counter uint64) (*stream, error) {
	st := &stream{src: s, conn: c, server: v, out: make(chan *pipeline.Batch), done: make(chan struct{}), over: make(chan struct{})}
	r, err := newReader(s, v, p, counter, st.hand)
	if err != nil {
		return nil, err
	}
	st.abort = r.look.cancel
	chunks, free := make(chan chunk, 2), make(chan []byte, 3)
	for range cap(free) {
		free <- make([]byte, 0, gulp)
	}
	st.wg.Go(func() { pump(c.raw, c.silence, chunks, free, st.done) })
	s.at.opened(1)
	s.awaited.streams(true)
	st.wg.Go(func() {
		defer close(st.over)
		defer s.at.opened(-1)
		defer s.awaited.streams(false)
		defer r.close()
		if st.err = st.giveUp(p.given); st.err == nil {
			st.err = st.run(r, chunks, free, s.cfg.StatusInterval)
		}
	})
	return st, nil
}

// hand gives a batch to Next, waiting for it.
func (st *stream) hand(b *pipeline.Batch) error {
	select {
	case st.out <- b:
		return nil
	case <-st.done:
		b.Release()
		return errClosed
	}
}

// giveUp has the log drop the chunks of prepared transactions.
func (st *stream) giveUp(all []waitingXA) error {
	for _, x := range all {
		if x.open == "" {
			continue
		}
		b := pipeline.NewBatch()
		b.Kind, b.Open = pipeline.BatchAbort, x.open
		if err := st.hand(b); err != nil {
			return err
		}
	}
	return nil
}

// run reads chunks into batches. What it holds is handed over when Next waits for it and no
// transaction is open.
func (st *stream) run(r *reader, chunks <-chan chunk, free chan<- []byte, status time.Duration) error {
	tick := time.NewTicker(status)
	defer tick.Stop()
	due := r.fresh
	for {
		var out chan<- *pipeline.Batch
		ready := r.ready(due)
		if ready != nil {
			out = st.out
		}
		select {
		case out <- ready:
			r.handed()
			due = false
		case ch, ok := <-chunks:
			if !ok {
				return r.failed(errClosed)
			}
			err := r.chunk(ch)
			if err != nil {
				return r.failed(err)
			}
			if r.empty() {
				r.stands()
			}
			if cap(ch.buf) > keepGulp {
				ch.buf = make([]byte, 0, gulp)
			}
			free <- ch.buf
		case <-r.src.awaited.wake:
			r.surface()
		case <-tick.C:
			due = true
			r.tick()
		case <-st.done:
			return errClosed
		}
	}
}

// chunk reads the events of one read of the connection.
func (r *reader) chunk(ch chunk) error {
	if r.b.Read.IsZero() {
		r.b.Read = ch.read
	}
	r.read = ch.read
	for b := ch.buf; len(b) > 0; {
		event, rest, err := r.packets.next(b)
		if errors.Is(err, io.EOF) {
			err = transient("disconnected", "the server ended the stream", nil)
		}
		if err != nil {
			return err
		}
		b = rest
		if event == nil {
			continue
		}
		if err := r.outer(event); err != nil {
			return err
		}
	}
	if ch.err != nil {
		return readError(ch.err, r.src.cfg.Silence)
	}
	return nil
}

// Next implements [pipeline.Stream].
func (st *stream) Next(ctx context.Context) (*pipeline.Batch, error) {
	select {
	case b := <-st.out:
		return b, nil
	case <-st.over:
		return nil, st.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Confirm implements [pipeline.Stream]. Nothing goes to the server: it keeps its binlogs by age and
// size, not by what its replicas have read.
func (st *stream) Confirm(p pipeline.Position) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if p.Counter > st.confirmed.Counter {
		st.confirmed = p
	}
}

// Confirmed is the last position that Confirm was told.
func (st *stream) Confirmed() pipeline.Position {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.confirmed
}

// Close implements [pipeline.Stream].
func (st *stream) Close() error {
	st.close.Do(func() {
		served := true
		select {
		case <-st.over:
			served = false
		default:
		}
		close(st.done)
		st.abort()
		_ = st.conn.raw.Close() // ends a blocked read; an error of it changes nothing
		if served {
			st.src.leave(st.conn.GetConnectionID(), st.server, st.conn.raw.LocalAddr())
		}
	})
	st.wg.Wait()
	return nil
}

// farewell bounds how long Close waits for the server.
const farewell = time.Second

// leave ends a dump on its server, which notices only when it has something to send that nobody listens any more; and
// when the next dump of the same id begins: then it ends the old one first, and sleeps 100 ms over that before it
// sends anything. Whatever goes wrong here, that is how it goes then.
func (s *Source) leave(id uint32, v *server, from net.Addr) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	c, err := s.connect(ctx)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	// Behind a proxy this may be another server, on which the id is somebody else's.
	now, _, err := c.inspect(ctx)
	if err != nil || now.uuid != v.uuid || now.id != v.id {
		return
	}
	all, err := c.rows(ctx, "SHOW PROCESSLIST") // Id, User, Host, db, Command
	if err != nil {
		return
	}
	for _, row := range all {
		if v.mariadb && len(row) > 2 && !listsAs(row[2], from) { // no two MySQL servers have the same UUID
			continue
		}
		if len(row) > 4 && row[0] == strconv.FormatUint(uint64(id), 10) && strings.HasPrefix(row[4], "Binlog Dump") {
			_, _ = c.exec(ctx, "KILL "+row[0])
		}
	}
}

// listsAs reports whether a server that lists a connection's host so may mean the one from that address: they have the
// same port, or both none. The server's name for the host may be another than ours.
func listsAs(host string, from net.Addr) bool {
	_, ours, _ := net.SplitHostPort(from.String())
	_, theirs, _ := net.SplitHostPort(host)
	return ours == theirs
}
