package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	mysqlserver "github.com/go-mysql-org/go-mysql/server"

	"github.com/leat-cdc/leat/internal/servers/rough"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

var fakeUUID = [16]byte{0xfa, 0xce, 15: 1}

// primary serves a recorded binlog by GTID, each transaction under one of its own making, and what a
// real server does not produce at will.
type primary struct {
	mysqlserver.EmptyHandler
	t      testing.TB
	sum    bool
	format []byte
	groups [][][]byte // transactions, the first is gno 1
	tail   [][]byte   // behind the last one
	snap   map[string]entry

	mu    sync.Mutex
	dumps []*replication.BinlogStreamer
}

func (p *primary) event(kind event.Type, flags uint16, body []byte) []byte {
	size := event.HeaderSize + len(body)
	if p.sum {
		size += 4
	}
	b := make([]byte, event.HeaderSize, size)
	b[4] = byte(kind)
	binary.LittleEndian.PutUint32(b[5:], 1)
	binary.LittleEndian.PutUint32(b[9:], uint32(size))
	binary.LittleEndian.PutUint16(b[17:], flags)
	b = append(b, body...)
	if p.sum {
		b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	}
	return b
}

func newPrimary(t testing.TB, name string) *primary {
	t.Helper()
	events := recorded(t, name)
	f, err := event.ReadFormat(events[0][event.HeaderSize:])
	if err != nil {
		t.Fatal(err)
	}
	p := &primary{t: t, sum: f.Checksum, format: events[0], snap: standIn(t, events)}
	var group [][]byte
	inside := false
	for _, ev := range events[1:] {
		kind, body := event.Type(ev[4]), ev[event.HeaderSize:]
		if p.sum {
			body = body[:len(body)-4]
		}
		switch kind {
		case event.PreviousGTIDs, event.Rotate, event.Stop, event.GTID, event.AnonymousGTID:
			continue
		}
		if len(group) == 0 {
			head := append([]byte{1}, fakeUUID[:]...)
			group = append(group, p.event(event.GTID, 0, binary.LittleEndian.AppendUint64(head, uint64(len(p.groups)+1))))
		}
		group = append(group, ev)
		ends := kind == event.XID || kind == event.TxPayload
		if kind == event.Query {
			q, err := event.ReadQuery(body)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case q.Begins():
				inside = true
			case !inside || string(q.Text) == "COMMIT":
				ends = true
			}
		}
		if ends {
			p.groups, group, inside = append(p.groups, group), nil, false
		}
	}
	return p
}

// serve listens until the test ends and returns the address; h answers.
func (p *primary) serve(h mysqlserver.Handler) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = nc.Close() }()
				c, err := mysqlserver.NewConn(nc, "u", "", h)
				for err == nil {
					err = c.HandleCommand()
				}
			})
		}
	})
	p.t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, d := range p.dumps {
			d.AddErrorToStreamer(errClosed)
		}
		p.mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

func (p *primary) UseDB(string) error { return nil }

func (p *primary) HandleQuery(q string) (*gomysql.Result, error) {
	answer := func(rows ...[]any) (*gomysql.Result, error) {
		names := make([]string, len(rows[0]))
		for i := range names {
			names[i] = fmt.Sprint("c", i)
		}
		rs, err := gomysql.BuildSimpleTextResultset(names, rows)
		return gomysql.NewResult(rs), err
	}
	checksum := "NONE"
	if p.sum {
		checksum = "CRC32"
	}
	switch {
	case strings.HasPrefix(q, "SET"):
		return nil, nil
	case strings.Contains(q, "@@session.time_zone"):
		return answer([]any{"+00:00", "", "utf8mb4", fmt.Sprint(writeTimeout)})
	case strings.HasPrefix(q, "SHOW GLOBAL VARIABLES"):
		return answer([]any{"version", "8.4.0"}, []any{"server_uuid", "x"}, []any{"server_id", "1"}, []any{"log_bin", "ON"}, []any{"gtid_mode", "ON"},
			[]any{"binlog_checksum", checksum}, []any{"lower_case_table_names", "0"})
	case strings.Contains(q, "GTID_SUBTRACT"):
		return answer([]any{"", ""})
	case strings.Contains(q, "gtid_"):
		return answer([]any{""})
	case strings.Contains(q, "BINARY LOG STATUS"):
		return answer([]any{"mysql-bin.999999", "4"})
	case strings.Contains(q, "COLLATION"):
		if strings.Contains(q, "information_schema.COLUMNS") {
			var rows [][]any
			for name, e := range p.snap {
				db, table, _ := strings.Cut(name, ".")
				for _, c := range e.columns {
					rows = append(rows, []any{db, table, c.Name, c.Declared, c.Collation, "", "YES", "", "", "", "", ""})
				}
			}
			return answer(rows...)
		}
		return answer([]any{"utf8mb4_general_ci", "45"})
	}
	return nil, gomysql.NewDefaultError(gomysql.ER_UNKNOWN_ERROR, "the fake does not know: "+q)
}

func (p *primary) HandleRegisterSlave([]byte) error { return nil }

// HandleBinlogDump answers the look for statements behind a place: none, and the end.
func (p *primary) HandleBinlogDump(gomysql.Position) (*replication.BinlogStreamer, error) {
	return p.stream([][]byte{p.event(event.Rotate, event.FlagArtificial, append([]byte{4, 0, 0, 0, 0, 0, 0, 0}, "mysql-bin.999999"...))}), nil
}

func (p *primary) HandleBinlogDumpGTID(set *gomysql.MysqlGTIDSet) (*replication.BinlogStreamer, error) {
	have, err := gtid.Decode(set.Encode())
	if err != nil {
		return nil, err
	}
	pos := binary.LittleEndian.AppendUint64(nil, 4)
	events := [][]byte{p.event(event.Rotate, event.FlagArtificial, append(pos, "mysql-bin.000001"...)), p.format}
	for i, g := range p.groups {
		if !have.Contains(gtid.SID{UUID: fakeUUID}, int64(i+1)) {
			events = append(events, g...)
		}
	}
	return p.stream(append(events, p.tail...)), nil
}

func (p *primary) stream(events [][]byte) *replication.BinlogStreamer {
	s := replication.NewBinlogStreamerWithChanSize(len(events) + 1)
	for _, ev := range events {
		if err := s.AddEventToStreamer(&replication.BinlogEvent{RawData: ev}); err != nil {
			p.t.Error(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dumps = append(p.dumps, s)
	return s
}

// A recorded binlog served by GTID reads the same in one go and with cuts.
func TestFakePrimary(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mysql-bin.compressed", "mysql-bin.sakila.gz"} {
		t.Run(name, func(t *testing.T) {
			p := newPrimary(t, name)
			host := p.serve(p)
			last := fmt.Sprintf(":%d", len(p.groups))
			read := func(host string) *reading {
				s := source(t, Config{URL: "mysql://u@" + host + "/?tls=disable", Start: "earliest", BatchEvents: 1 << 20, BatchBytes: 64 << 20})
				r, ctx := newReading(t), within(t)
				at := pipeline.Position{}
				for !strings.HasSuffix(at.Token, "-"+last[1:]) && !strings.HasSuffix(at.Token, last) {
					st, err := s.Open(ctx, at)
					for err == nil {
						var b *pipeline.Batch
						if b, err = st.Next(ctx); err != nil {
							break
						}
						for i := range b.Events {
							tx := b.Txs[b.Events[i].Tx]
							r.records = append(r.records, record{what: fmt.Sprint(b.Events[i].Op, bytes.Clone(b.Bytes(b.Events[i].Before)), bytes.Clone(b.Bytes(b.Events[i].After))), tx: string(b.Bytes(tx.ID))})
						}
						r.notices = append(r.notices, b.Notices...)
						at = b.End
						b.Release()
						if strings.HasSuffix(at.Token, "-"+last[1:]) || strings.HasSuffix(at.Token, last) {
							break
						}
					}
					if st != nil {
						_ = st.Close()
					}
					if err != nil && ctx.Err() != nil {
						t.Fatal(err)
					}
				}
				return r
			}
			whole := read(host)
			if len(whole.records) == 0 || len(whole.notices) > 0 {
				t.Fatalf("%d records, %+v", len(whole.records), whole.notices)
			}
			rnd, n := rand.New(rand.NewPCG(1, 1)), int64(0)
			// Growing, since a transaction that does not fit can never pass.
			cut := rough.New(t, host, func(int) rough.Trouble { n += 32 << 10; return rough.Trouble{Reset: n + rnd.Int64N(64<<10)} })
			compare(t, whole, read(cut.Addr))
		})
	}
}

// What a server sends only when something is wrong, and a server of a later version.
func TestEventsThatStop(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tail func(p *primary) [][]byte
		code string
	}{
		"incident": {func(p *primary) [][]byte {
			return [][]byte{p.event(event.Incident, 0, append([]byte{1, 0, 4}, "lost"...))}
		}, "incident"},
		"unknown": {func(p *primary) [][]byte { return [][]byte{p.event(99, 0, nil)} }, "event_unknown"},
		"ignorable": {func(p *primary) [][]byte {
			return [][]byte{p.event(99, event.FlagIgnorable, nil), p.event(event.Incident, 0, []byte{1, 0})}
		}, "incident"},
		"damaged": {func(p *primary) [][]byte {
			ev := p.event(event.XID, 0, make([]byte, 8))
			ev[len(ev)-1] ^= 1
			ev[event.HeaderSize]++
			return [][]byte{ev, p.event(event.GTID, 0, []byte{1})}
		}, "binlog_unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrimary(t, "mysql-bin.compressed")
			p.tail = c.tail(p)
			s := source(t, Config{URL: "mysql://u@" + p.serve(p) + "/?tls=disable", Start: "earliest"})
			wantStop(t, failure(t, s, pipeline.Position{}), c.code, "")
		})
	}
}

// A stream that ends inside of a transaction takes its chunks back.
func TestChunksAreTakenBack(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, "mysql-bin.sakila.gz")
	for i, g := range p.groups {
		rows := 0
		for _, ev := range g {
			if _, _, _, ok := event.RowsKindOf(event.Type(ev[4])); ok {
				rows++
			}
		}
		if rows > 1 {
			p.groups, p.tail = p.groups[:i], g[:len(g)-1] // without its commit
			break
		}
	}
	p.tail = append(p.tail, p.event(event.Incident, 0, []byte{1, 0}))
	s := source(t, Config{URL: "mysql://u@" + p.serve(p) + "/?tls=disable", Start: "earliest", BatchEvents: 10})
	ctx := within(t)
	st, err := s.Open(ctx, pipeline.Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	open := map[string]bool{}
	chunks := 0
	for {
		b, err := st.Next(ctx)
		if err != nil {
			var se *pipeline.SourceError
			if !errors.As(err, &se) || se.Code != "incident" {
				t.Fatal(err)
			}
			break
		}
		switch b.Kind {
		case pipeline.BatchChunk:
			chunks++
			open[b.Open] = true
		case pipeline.BatchAbort, pipeline.BatchCommit:
			delete(open, b.Open)
		}
		b.Release()
	}
	if chunks == 0 || len(open) > 0 {
		t.Fatalf("%d chunks, open: %v", chunks, open)
	}
}
