package mysql

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

// reader turns events into batches. Owned by the stream's run goroutine.
type reader struct {
	src *Source
	srv *server
	// emit hands a batch over, blocking.
	emit func(*pipeline.Batch) error

	at    place // after the last whole transaction
	until uint64
	scan  bool // still before `until`
	fresh bool
	// counter and token are those of the last End.
	counter uint64
	token   string
	sent    string // token of the last batch handed over

	// file and pos are where the last event ended, counted by us: headers have 32 bits of it.
	file      string
	pos       uint64
	eventTime uint32 // of the last event that has one
	passed    uint64 // where the server is in the file: it does not send what we have

	format  event.Format
	formats int // format descriptions seen
	packets packets
	payload event.Payload
	inflate event.Inflater
	tags    map[string]string

	b        *pipeline.Batch
	read     time.Time
	tx       transaction
	buf      []byte
	was, now []byte // images of a partial update

	tables tables
	quar   quarantines
	look   *lookups
	temps  map[tempTable]bool

	bytes, events int // in the last batch
}

// maxEvent bounds an event's size, as the server's largest slave_max_allowed_packet does.
const maxEvent = 1 << 30

func newReader(s *Source, v *server, p *plan, counter uint64, emit func(*pipeline.Batch) error) (*reader, error) {
	r := &reader{src: s, srv: v, emit: emit, at: p.at, until: p.until, scan: p.until > 0, fresh: p.fresh, counter: counter,
		file: p.at.file, pos: p.at.pos, b: pipeline.NewBatch(), tags: map[string]string{}, temps: map[tempTable]bool{}}
	if r.scan {
		r.pos = 4
	}
	if !p.fresh {
		r.token = p.at.token()
		r.sent = r.token
	}
	r.tables.init(r)
	r.look = newLookups(s, v)
	return r, nil
}

func (r *reader) close() {
	r.payload.Close()
	r.look.close()
	if r.b != nil {
		r.b.Release()
		r.b = nil
	}
}

// end is the position behind what was read.
func (r *reader) end() pipeline.Position {
	r.buf = r.at.appendToken(r.buf[:0])
	if string(r.buf) != r.token {
		r.token = string(r.buf)
		r.counter++
	}
	return pipeline.Position{Counter: r.counter, Token: r.token}
}

// ready returns the batch that can be handed over now, nil when there is none: no transaction is open and
// there is something in it, or its position is due.
func (r *reader) ready(due bool) *pipeline.Batch {
	if r.tx.open || r.scan {
		return nil
	}
	if r.bare() && !due {
		return nil
	}
	r.b.End = r.end()
	if r.bare() && r.token == r.sent {
		return nil
	}
	r.measure()
	return r.b
}

// handed begins the next batch after the one that ready returned was taken.
func (r *reader) handed() {
	r.sent = r.token
	r.b = r.roomy()
	r.stands()
}

// stands notes for Load how far all was handed over.
func (r *reader) stands() { r.src.at.note(r.file, max(r.pos, r.passed), r.eventTime) }

// empty tells whether all that was read was handed over.
func (r *reader) empty() bool { return r.bare() && !r.tx.open && !r.scan }

// bare tells whether the batch says nothing but a position.
func (r *reader) bare() bool {
	return len(r.b.Events) == 0 && len(r.b.Notices) == 0 && len(r.b.Watermarks) == 0
}

// measure notes how much r.b holds, before it is another's.
func (r *reader) measure() { r.bytes, r.events = len(r.b.Arena), len(r.b.Events) }

// roomy returns an empty batch with room for as much as the one before held: growing by doubling cost a sixth
// of all CPU time while the log's tail, not the pool, got the batches.
func (r *reader) roomy() *pipeline.Batch {
	b := pipeline.NewBatch()
	b.Room(r.bytes, r.events)
	return b
}

// give hands the batch over, waiting for Next, and begins the next one.
func (r *reader) give() error {
	b := r.b
	r.measure()
	r.b = r.roomy()
	r.b.Read = r.read
	if !b.End.Zero() {
		r.sent = b.End.Token
	}
	return r.emit(b)
}

// failed takes back what an open transaction has already handed over, and returns err.
func (r *reader) failed(err error) error {
	if r.tx.open && r.tx.chunks > 0 && !errors.Is(err, errClosed) {
		abort := pipeline.NewBatch()
		abort.Kind, abort.Open = pipeline.BatchAbort, r.tx.name
		if aerr := r.emit(abort); aerr != nil {
			return aerr
		}
	}
	return err
}

// tick is called once per status interval.
func (r *reader) tick() { r.reached() }

// place names where reading stands, for messages.
func (r *reader) place() string { return string(filePos(nil, r.file, r.pos)) }

// outer reads an event as the server sent it.
func (r *reader) outer(ev []byte) error {
	h, err := event.ReadHeader(ev)
	if err != nil {
		return damagedError(r.place(), err)
	}
	switch {
	case h.Type == event.FormatDescription:
	case r.formats == 0: // the announcement of the first file: only its checksum tells whether it has one
		if event.ChecksumOK(ev) {
			ev = ev[:len(ev)-4]
		}
	case r.format.Checksum:
		if !event.ChecksumOK(ev) {
			return damagedError(r.place(), fmt.Errorf("an event of type %d fails its checksum", h.Type))
		}
		ev = ev[:len(ev)-4]
	}
	r.advance(h)
	if err := r.apply(h, ev[event.HeaderSize:]); err != nil {
		return r.explain(h, err)
	}
	if !r.tx.open {
		if !r.at.byGTID {
			r.at.file, r.at.pos = r.file, r.pos
		}
		r.surface()
		if r.src.cutting.Load() > 0 && !r.bare() && !r.scan {
			r.b.End = r.end()
			return r.give()
		}
	}
	return nil
}

// explain makes a SourceError of an error about an event's bytes.
func (r *reader) explain(h event.Header, err error) error {
	var se *pipeline.SourceError
	if errors.As(err, &se) || errors.Is(err, errClosed) {
		return err
	}
	return damagedError(r.place(), fmt.Errorf("event of type %d: %w", h.Type, err))
}

// advance counts the offset. The header's 32 bits correct it where the server left events out.
func (r *reader) advance(h event.Header) {
	if h.Flags&event.FlagArtificial != 0 || h.Type == event.Heartbeat || h.Type == event.HeartbeatV2 {
		return
	}
	if h.LogPos == 0 { // MariaDB 11.4 leaves it out inside of transactions; a dump's first format has none
		if h.Type != event.FormatDescription && h.Type != event.Rotate {
			r.pos += uint64(h.Size)
		}
		return
	}
	r.eventTime = h.Time
	next := r.pos + uint64(h.Size)
	if uint32(next) != h.LogPos {
		next = r.pos&^(1<<32-1) | uint64(h.LogPos)
		if next < r.pos {
			next += 1 << 32
		}
	}
	r.pos = next
}

// apply reads one event's body, from the stream or from a payload.
func (r *reader) apply(h event.Header, body []byte) error {
	switch h.Type {
	case event.TableMap:
		return r.tableMap(h, body)
	case event.WriteRows, event.UpdateRows, event.DeleteRows, event.WriteRowsV1, event.UpdateRowsV1, event.DeleteRowsV1, event.PartialUpdateRows,
		event.MariaWriteRowsCompressed1, event.MariaUpdateRowsCompressed, event.MariaDeleteRowsCompressed,
		event.MariaWriteRowsCompressed2, event.MariaUpdateRowsCompress2, event.MariaDeleteRowsCompress2:
		return r.rows(h, body)
	case event.GTID, event.AnonymousGTID, event.TaggedGTID, event.MariaGTID:
		return r.begin(h, body)
	case event.Query, event.MariaQueryCompressed, event.ExecuteLoadQuery:
		return r.query(h, body)
	case event.XID:
		return r.commit()
	case event.XAPrepare:
		return r.prepare(body)
	case event.TxPayload:
		return r.unwrap(body)
	}
	return r.control(h, body)
}

// control reads the events that are not about data.
func (r *reader) control(h event.Header, body []byte) error {
	switch h.Type {
	case event.FormatDescription:
		f, err := event.ReadFormat(body)
		if err != nil {
			return err
		}
		r.format = f
		r.formats++
		r.tables.forget()
	case event.Rotate:
		pos, file, err := event.ReadRotate(body)
		if err != nil {
			return err
		}
		r.rotate(file, pos)
	case event.PreviousGTIDs:
		return r.previous(body)
	case event.MariaGTIDList:
		return r.gtidList(body)
	case event.Heartbeat, event.HeartbeatV2:
		file, pos, err := event.ReadHeartbeat(h, body)
		if err == nil && file == r.file {
			r.passed = pos
		}
		r.reached()
		return err
	case event.Incident:
		n, message, err := event.ReadIncident(body)
		if err != nil {
			return err
		}
		return stopped("incident", fmt.Sprintf("the server reports at %s that changes are missing from its binlog (incident %d: %s)", r.place(), n, message), cureStartOver, nil)
	case event.Stop, event.IntVar, event.Rand, event.UserVar, event.RowsQuery, event.AppendBlock, event.BeginLoadQuery, event.DeleteFile,
		event.TxContext, event.ViewChange, event.Ignorable, event.MariaAnnotateRows, event.MariaCheckpoint, event.MariaStartEncryption:
	default:
		if h.Flags&event.FlagIgnorable == 0 {
			return stopped("event_unknown", fmt.Sprintf("an event of type %d at %s is not known to this version", h.Type, r.place()), "upgrade Leat", nil)
		}
	}
	return nil
}

func (r *reader) rotate(file string, pos uint64) {
	if r.scan && r.formats > 0 && file != r.file {
		r.scan = false // the file that the place was in is over
	}
	r.file, r.pos, r.passed = file, pos, 0
	if r.scan {
		r.reached()
	}
}

// reached ends the scan of a file's head once the place to begin at is reached.
func (r *reader) reached() {
	if r.scan && !r.tx.open && r.formats > 0 && r.pos >= r.until {
		r.scan = false
	}
}

// previous reads which transactions lie before the file: the base of a place found by file and offset.
func (r *reader) previous(body []byte) error {
	if !r.scan || !r.at.byGTID || r.at.mariadb {
		return nil
	}
	set, err := gtid.Decode(body)
	if err != nil {
		return err
	}
	r.at.set.Union(set)
	return nil
}

func (r *reader) gtidList(body []byte) error {
	if !r.scan || !r.at.byGTID || !r.at.mariadb {
		return nil
	}
	last, err := gtid.DecodeMariaList(body)
	if err != nil {
		return err
	}
	r.at.last = last
	r.reached()
	return nil
}

// unwrap reads the events of a compressed transaction.
func (r *reader) unwrap(body []byte) error {
	if err := r.payload.Open(body); err != nil {
		return err
	}
	for {
		ev, err := r.payload.Next(maxEvent)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		h, err := event.ReadHeader(ev)
		if err != nil {
			return err
		}
		if h.Type == event.TxPayload {
			return fmt.Errorf("a payload within a payload: %w", event.ErrDamaged)
		}
		if err := r.apply(h, ev[event.HeaderSize:]); err != nil {
			return err
		}
	}
}
