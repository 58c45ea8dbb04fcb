package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/postgres/pgoutput"
)

// Stream is one replication connection.
type Stream struct {
	s       *Source
	conn    net.Conn
	catalog *catalog
	gulps   *gulps
	status  *status
	watch   *watcher
	frames  frames
	dec     *pgoutput.Decoder
	ctx     context.Context // of the Next that runs, for look-ups in the catalogue

	// A position without events is handed out when due has come, at once when prompt is set.
	due    time.Time
	shown  time.Time // when the last batch with a position was handed out
	prompt bool

	// A read that gets nothing for `silence` means a dead connection; waited is since when one may have waited: the
	// last bytes, or the Next that came after a pause. alarm is when to look, which is moved seldom.
	silence       time.Duration
	waited, alarm time.Time

	deadline struct {
		sync.Mutex
		stop bool // the read that runs, and all later ones, are to return at once
		at   time.Time
	}
	sent  int64                 // when the server sent the last transaction's message, µs since 1970; 0: it has nothing left
	poked atomic.Bool           // somebody wants the reader to look around
	whole uint32                // the transaction because of which none is streamed while it runs; 0: they are
	calm  atomic.Uint64         // a place behind that one's end; 0: not known
	stale atomic.Bool           // what types are made of has changed
	lost  atomic.Pointer[error] // the connection for the catalogue is
	close sync.Once
}

// tlsRecord is the most that one TLS record holds.
const tlsRecord = 16 << 10

var aLongTimeAgo = time.Unix(1, 0)

// Open connects and starts the stream exactly behind after; see pipeline.Source.
func (s *Source) Open(ctx context.Context, after pipeline.Position) (pipeline.Stream, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.open(ctx, c, after)
	if err != nil {
		c.close()
		return nil, err
	}
	return st, nil
}

func (s *Source) open(ctx context.Context, c *catalog, after pipeline.Position) (*Stream, error) {
	conn, srv, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	keep := false
	defer func() {
		if !keep {
			closeConn(conn)
		}
	}()
	slot, err := c.slot(ctx, s.cfg.Slot)
	if err != nil {
		return nil, err
	}
	if slot == nil && !after.Begins() || slot != nil && slot.following { // before a publication is made for nothing
		_, _, err := s.place(ctx, c, conn, srv, after)
		return nil, err
	}
	// The publication first: it has to be there when what the slot reads is written.
	made, err := s.ensurePublication(ctx, c, after.Begins())
	if err != nil {
		return nil, err
	}
	at, created, err := s.place(ctx, c, conn, srv, after)
	if err != nil {
		return nil, err
	}
	_, enums, err := c.prints(ctx, s.cfg.Publication)
	if err != nil {
		return nil, err
	}
	streaming, err := s.streams(ctx, c)
	if err != nil {
		return nil, err
	}
	raw, err := s.start(ctx, conn, srv, at, streaming)
	if err != nil {
		return nil, err
	}
	keep = true
	st := s.newStream(raw, c, srv, at, after)
	if created {
		made.joined = nil // nothing was to be read before
		s.mu.Lock()
		s.placed = nil
		s.mu.Unlock()
	}
	st.watch = s.watch(st, c, made, enums)
	return st, nil
}

// start sends START_REPLICATION and waits for the server's consent. The connection is ours from then on.
func (s *Source) start(ctx context.Context, conn *pgconn.PgConn, srv *server, at pglogrepl.LSN, streaming bool) (raw net.Conn, err error) {
	ctx, end := s.limited(ctx, "start replication")
	defer end(&err)
	if err := conn.SyncConn(ctx); err != nil {
		return nil, s.failure("start replication", err)
	}
	h, err := conn.Hijack()
	if err != nil {
		return nil, s.failure("start replication", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = h.Conn.SetDeadline(aLongTimeAgo) })
	defer stop()
	err = func() error {
		h.Frontend.Send(&pgproto3.Query{String: startReplication(s.cfg.Slot, s.cfg.Publication, protocol(srv.version, streaming), at)})
		if err := h.Frontend.Flush(); err != nil {
			return err
		}
		return awaitCopy(h.Conn)
	}()
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = h.Conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, s.failure("start replication", err)
	}
	return h.Conn, nil
}

// awaitCopy reads, byte by byte of what it needs, up to the answer to START_REPLICATION: what stands behind
// it belongs to the stream's own buffer.
func awaitCopy(conn net.Conn) error {
	for {
		var head [5]byte
		if _, err := readFull(conn, head[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(head[1:])) - 4
		if n < 0 || n > 1<<20 {
			return fmt.Errorf("answer 0x%02x of %d bytes", head[0], n)
		}
		body := make([]byte, n)
		if _, err := readFull(conn, body); err != nil {
			return err
		}
		switch head[0] {
		case 'W': // CopyBothResponse
			return nil
		case 'E':
			return serverError(body)
		case 'N', 'S': // notices, parameters
		default:
			return fmt.Errorf("answer of unknown kind 0x%02x", head[0])
		}
	}
}

func serverError(body []byte) error {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return fmt.Errorf("read the server's error: %w", err)
	}
	return pgconn.ErrorResponseToPgError(&m)
}

func (s *Source) newStream(conn net.Conn, c *catalog, srv *server, at pglogrepl.LSN, after pipeline.Position) *Stream {
	interval := s.cfg.StatusInterval
	if srv.senderTimeout > 0 {
		interval = max(min(interval, srv.senderTimeout/4), 10*time.Millisecond)
	}
	st := &Stream{s: s, conn: conn, catalog: c, gulps: gulpsOf(conn), status: newStatus(conn, interval, at), ctx: context.Background()}
	s.mu.Lock()
	s.opened++
	number := s.opened
	st.whole = s.whole
	s.mu.Unlock()
	tok := token{system: srv.SystemID, timeline: srv.Timeline, slot: s.cfg.Slot}
	known := map[string]*schemas.Table{}
	if s.cfg.Known != nil {
		for _, t := range s.cfg.Known() {
			known[t.Subject()] = t
		}
	}
	st.dec = pgoutput.NewDecoder(pgoutput.Options{
		After: at, Counter: after.Counter, Known: known,
		Token:      func(lsn pgoutput.LSN) string { t := tok; t.lsn = lsn; return t.String() },
		Settled:    func(xid uint32, rel *pgoutput.Relation) (string, error) { return s.settled(st.ctx, c, xid, rel) },
		Resolve:    func(rel *pgoutput.Relation) (pgoutput.Shape, error) { return s.resolve(st.ctx, c, rel) },
		BatchBytes: s.cfg.BatchBytes, BatchEvents: s.cfg.BatchEvents,
		Stream: strconv.FormatInt(time.Now().UnixNano(), 36) + "." + strconv.Itoa(number),
	})
	st.shown = time.Now()
	st.silence = silenceOf(s.cfg.Silence, srv.senderTimeout)
	st.prompt = after.Begins() // an empty log learns at once where it begins
	return st
}

func silenceOf(set, senderTimeout time.Duration) time.Duration {
	switch {
	case set > 0:
		return set
	case senderTimeout == 0:
		return 10 * time.Minute
	}
	return max(30*time.Second, 2*senderTimeout)
}

// Next returns what comes next; see pipeline.Stream.
func (st *Stream) Next(ctx context.Context) (*pipeline.Batch, error) {
	st.ctx, st.waited = ctx, time.Now()
	stop := context.AfterFunc(ctx, func() { st.interrupt(true) })
	defer stop()
	for {
		if b := st.dec.Take(); b != nil {
			if !b.End.Zero() {
				st.shown = time.Now()
			}
			return b, nil
		}
		if err := st.parse(); err != nil {
			return nil, st.fail(ctx, err)
		}
		if st.dec.Ready() {
			continue
		}
		st.dec.Flush()
		if st.dec.Ready() {
			continue
		}
		st.look()
		if st.dec.Ready() {
			continue
		}
		if err := st.resumed(); err != nil {
			return nil, err
		}
		if p := st.lost.Load(); p != nil {
			return nil, st.fail(ctx, *p)
		}
		if err := st.fill(ctx); err != nil {
			return nil, st.fail(ctx, err)
		}
	}
}

// look makes a batch of what other goroutines left and of a position that is due.
func (st *Stream) look() {
	if st.poked.Swap(false) {
		for _, n := range st.watch.collect() {
			st.dec.Notice(n)
		}
		if st.stale.Swap(false) {
			st.dec.Refresh()
		}
	}
	if st.prompt && time.Since(st.shown) >= min(hold, st.s.cfg.StatusInterval) || st.dec.Notices() ||
		st.dec.Behind() && time.Since(st.shown) >= st.s.cfg.StatusInterval {
		st.prompt = false
		st.dec.Progress()
	}
}

// parse takes messages from the buffer until a batch is ready or no whole message is left.
func (st *Stream) parse() error {
	for !st.dec.Ready() {
		kind, body, ok, err := st.frames.next()
		if err != nil || !ok {
			return err
		}
		switch kind {
		case 'd':
			if err := st.copyData(body); err != nil {
				return err
			}
		case 'E':
			return serverError(body)
		case 'c', 'C', 'Z':
			return errors.New("the server ended the stream")
		case 'N', 'S':
		default:
			return &pipeline.SourceError{Code: CodeProtocol, What: fmt.Sprintf("source %s: message of unknown kind 0x%02x", st.s.cfg.Name, kind)}
		}
	}
	return nil
}

var errCopy = errors.New("a copy message ends too early")

// copyData takes XLogData or a keepalive.
// https://www.postgresql.org/docs/current/protocol-replication.html
func (st *Stream) copyData(p []byte) error {
	if len(p) >= 25 && p[0] == 'w' {
		end := binary.BigEndian.Uint64(p[9:])
		if end > st.status.received.Load() {
			st.status.received.Store(end)
		}
		st.sent = int64(binary.BigEndian.Uint64(p[17:])) + pgoutput.EpochMicros
		return st.dec.Message(p[25:], st.sent)
	}
	if len(p) < 18 || p[0] != 'k' {
		return errCopy
	}
	end := binary.BigEndian.Uint64(p[1:])
	if end > st.status.received.Load() {
		st.status.received.Store(end)
	}
	st.sent = 0
	st.dec.Advance(pglogrepl.LSN(end))
	if p[17] != 0 {
		if end > st.status.confirmed.Load() {
			// A server that shuts down waits until we have confirmed everything.
			st.status.asked.Store(true)
			st.prompt = st.dec.Behind()
		}
		st.status.reply()
	}
	return nil
}

// fill reads more, until the time at which a position is due.
func (st *Stream) fill(ctx context.Context) error {
	var until time.Time
	switch {
	case st.prompt:
		until = st.shown.Add(min(hold, st.s.cfg.StatusInterval))
	case st.dec.Behind():
		until = st.shown.Add(st.s.cfg.StatusInterval)
	}
	if last := st.gulps.last; st.alarm.Sub(last) < st.silence/2 {
		st.alarm = last.Add(st.silence)
	}
	if until.IsZero() || st.alarm.Before(until) {
		until = st.alarm
	}
	if err := st.readUntil(until); err != nil {
		return err
	}
	st.gulps.lag = time.Duration(max(0, st.sent-st.dec.Committed())) * time.Microsecond
	n, err := st.conn.Read(st.frames.space())
	st.frames.filled(n)
	// Under TLS a read ends with each record, that is with each row.
	for space := st.frames.space(); err == nil && st.gulps.more() && len(space) > tlsRecord; space = space[n:] {
		n, err = st.conn.Read(space)
		st.frames.filled(n)
	}
	st.dec.Stamp(st.gulps.last)
	if n > 0 {
		st.waited = st.gulps.last
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		st.deadline.Lock()
		st.deadline.stop = false // the end of an earlier Next's context, which came too late for it
		st.deadline.Unlock()
		if quiet := time.Since(st.waited); quiet >= st.silence {
			return fmt.Errorf("the server said nothing for %v, though asked", quiet.Round(time.Second))
		}
		return nil
	}
	return err
}

// readUntil sets the time at which the read that follows gives up.
func (st *Stream) readUntil(t time.Time) error {
	d := &st.deadline
	d.Lock()
	defer d.Unlock()
	if st.poked.Load() || d.stop {
		t = aLongTimeAgo
	}
	if t.Equal(d.at) {
		return nil
	}
	d.at = t
	return st.conn.SetReadDeadline(t)
}

// interrupt makes the read that runs return; for good when stop is set.
func (st *Stream) interrupt(stop bool) {
	d := &st.deadline
	d.Lock()
	defer d.Unlock()
	d.stop = d.stop || stop
	d.at = aLongTimeAgo
	_ = st.conn.SetReadDeadline(aLongTimeAgo) // fails on a closed connection, on which no read hangs
}

// poke makes the reader call look.
func (st *Stream) poke() {
	st.poked.Store(true)
	st.interrupt(false)
}

// fail says what an error of the stream means.
func (st *Stream) fail(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p := st.status.failed.Load(); p != nil {
		err = *p
	}
	return st.s.failure("read the stream", st.again(err))
}

// Confirm says that everything up to p is durable; see pipeline.Stream.
func (st *Stream) Confirm(p pipeline.Position) { st.status.confirm(lsnOf(p.Token)) }

// Cut has batches end behind each transaction; see snapshot.Cutter.
func (st *Stream) Cut(on bool) { st.dec.Cut(on) }

// Close ends the connection and joins; see pipeline.Stream.
func (st *Stream) Close() error {
	st.close.Do(func() {
		st.watch.close()
		st.status.close()
		_ = st.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = st.conn.Write([]byte{'c', 0, 0, 0, 4, 'X', 0, 0, 0, 4}) // CopyDone, Terminate: the slot is free sooner
		_ = st.conn.Close()
		st.catalog.close()
		st.dec.Close()
	})
	return nil
}

func readFull(conn net.Conn, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m, err := conn.Read(p[n:])
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}
