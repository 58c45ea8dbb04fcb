package mysql

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/sources/mysql/internal/catalog"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

// recorded reads a binlog of testdata and returns its events.
func recorded(t testing.TB, name string) [][]byte {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.HasPrefix(raw, replication.BinLogFileHeader) {
		t.Fatal("not a binlog")
	}
	var events [][]byte
	for b := raw[4:]; len(b) >= event.HeaderSize; {
		n := binary.LittleEndian.Uint32(b[9:])
		events = append(events, b[:n:n])
		b = b[n:]
	}
	return events
}

// standIn is a catalogue for recorded binlogs, which carry no names: columns by number, all of them text in
// UTF-8 or with twenty labels, which is as good for counting rows.
func standIn(t testing.TB, events [][]byte) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	note := func(body []byte) {
		m, err := binlog.ReadTableMap(body, false)
		if err != nil {
			t.Fatal(err)
		}
		var list []catalog.Column
		for i, c := range m.Columns {
			k := catalog.Column{Name: "c" + strconv.Itoa(i), Declared: "text", Collation: "utf8mb4_general_ci", CollationID: 45}
			if real := byte(c.Meta >> 8); c.Code == binlog.TypeString && (real == binlog.TypeEnum || real == binlog.TypeSet) {
				k.Declared = "enum('" + strings.Repeat("x','", 19) + "y')"
			}
			list = append(list, k)
		}
		all[m.Schema+"."+m.Table] = entry{list, "mysql-bin.999999", 0}
	}
	var p event.Payload
	defer p.Close()
	sum := 0
	if f, err := event.ReadFormat(events[0][event.HeaderSize:]); err == nil && f.Checksum {
		sum = 4
	}
	for _, ev := range events {
		switch body := ev[event.HeaderSize : len(ev)-sum]; event.Type(ev[4]) {
		case event.TableMap:
			note(body)
		case event.TxPayload:
			if err := p.Open(body); err != nil {
				t.Fatal(err)
			}
			for {
				inner, err := p.Next(maxEvent)
				if err != nil {
					break
				}
				if event.Type(inner[4]) == event.TableMap {
					note(inner[event.HeaderSize:])
				}
			}
		}
	}
	return all
}

// offline is a reader without a connection. emit may be nil.
func offline(t testing.TB, cfg Config, emit func(*pipeline.Batch) error) *reader {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name, cfg.URL = "recorded", "mysql://u@127.0.0.1/"
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if emit == nil {
		emit = func(b *pipeline.Batch) error { b.Release(); return nil }
	}
	p := &plan{at: place{byGTID: true, set: &gtid.Set{}, file: "mysql-bin.000001", pos: 4}}
	r, err := newReader(s, &server{number: 80000, rowImageFull: true, gtids: true}, p, 0, emit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

// The recorded binlogs hold as many rows, of as many tables, as another implementation finds in them.
func TestRecorded(t *testing.T) {
	for _, name := range []string{"mysql-bin.compressed", "mysql-bin.sakila.gz"} {
		t.Run(name, func(t *testing.T) {
			want, tables := map[string]int{}, 0
			parser := replication.NewBinlogParser()
			count := func(e *replication.BinlogEvent) {
				if re, ok := e.Event.(*replication.RowsEvent); ok {
					n := len(re.Rows)
					if strings.HasPrefix(e.Header.EventType.String(), "Update") {
						n /= 2
					}
					want[string(re.Table.Schema)+"."+string(re.Table.Table)] += n
				}
			}
			got, notices := map[string]int{}, 0
			take := func(b *pipeline.Batch) error {
				for i := range b.Events {
					if b.Events[i].Op.Row() {
						got[b.TableOf(i).Subject()]++
					}
				}
				notices += len(b.Notices)
				b.Release()
				return nil
			}
			r := offline(t, Config{}, take)
			r.look.entries = standIn(t, recorded(t, name))
			for _, ev := range recorded(t, name) {
				e, err := parser.Parse(ev)
				if err != nil {
					t.Fatal(err)
				}
				count(e)
				if p, ok := e.Event.(*replication.TransactionPayloadEvent); ok {
					for _, inner := range p.Events {
						count(inner)
					}
				}
				if err := r.outer(ev); err != nil {
					t.Fatal(err)
				}
			}
			if b := r.ready(true); b != nil {
				r.handed()
				_ = take(b)
			}
			for table, n := range want {
				tables++
				if got[table] != n {
					t.Errorf("%s: %d rows, want %d (%d notices)", table, got[table], n, notices)
				}
			}
			if tables == 0 {
				t.Fatal("no rows at all")
			}
		})
	}
}

// What was read once allocates nothing when it comes again: not per row, not per event.
func TestRowsDoNotAllocate(t *testing.T) {
	r := offline(t, Config{BatchBytes: 64 << 20, BatchEvents: 1 << 20}, nil)
	r.look.entries = standIn(t, recorded(t, "mysql-bin.sakila.gz"))
	var tableMap, rows []byte
	best := 0
	var last []byte
	for _, ev := range recorded(t, "mysql-bin.sakila.gz") {
		h, err := event.ReadHeader(ev)
		if err != nil {
			t.Fatal(err)
		}
		if h.Type == event.TableMap {
			last = ev
		}
		if _, _, _, ok := event.RowsKindOf(h.Type); ok && len(ev) > best && last != nil {
			best, tableMap, rows = len(ev), last, ev
		}
		if err := r.outer(ev); err != nil {
			t.Fatal(err)
		}
	}
	if rows == nil {
		t.Fatal("no rows event")
	}
	h, _ := event.ReadHeader(rows)
	r.startTx(h)
	again := func() {
		if err := r.outer(tableMap); err != nil {
			t.Fatal(err)
		}
		if err := r.outer(rows); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 { // grow the batch
		again()
	}
	n := len(r.b.Events) / 51
	r.b.Reset()
	r.tx.listed = false
	if allocs := testing.AllocsPerRun(20, again); allocs != 0 {
		t.Fatalf("%v allocations for an event of %d rows", allocs, n)
	}
}

func FuzzReader(f *testing.F) {
	for _, name := range []string{"mysql-bin.compressed", "mysql-bin.sakila.gz"} {
		seen := map[byte]int{}
		for _, ev := range recorded(f, name) {
			if seen[ev[4]]++; seen[ev[4]] < 3 && len(ev) < 4096 {
				f.Add(ev)
			}
		}
	}
	base := recorded(f, "mysql-bin.sakila.gz")
	entries := standIn(f, base)
	var setup [][]byte
	for _, ev := range base {
		setup = append(setup, ev)
		if len(setup) > 60 {
			break
		}
	}
	f.Fuzz(func(t *testing.T, ev []byte) {
		r := offline(t, Config{}, nil)
		r.look.entries = entries
		for _, s := range setup {
			if err := r.outer(s); err != nil {
				return
			}
		}
		if len(ev) < event.HeaderSize {
			return
		}
		h, err := event.ReadHeader(ev)
		if err != nil || r.tx.skip {
			return
		}
		r.startTx(h)
		_ = r.apply(h, ev[event.HeaderSize:]) // without the checksum, which would stop all
		_ = r.commit()
		r.ready(true)
	})
}

func FuzzPackets(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 3, 0, 0, 1, 0xff, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p packets
		b = b[:wholePackets(b)]
		for len(b) > 0 {
			var err error
			if _, b, err = p.next(b); err != nil {
				return
			}
		}
	})
}
