package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
)

func TestFollows(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"binlog.000001", "binlog.000002", true}, {"binlog.999999", "binlog.1000000", true}, {"binlog.1000000", "binlog.999999", false},
		{"binlog.1000000", "binlog.1000001", true}, {"old.000009", "new.000010", true}, {"binlog.000010", "binlog.000010", false}, {"a.b.000009", "a.b.000010", true}} {
		if got := follows(c.a, c.b); got != c.want {
			t.Errorf("%s follows %s: %v", c.b, c.a, got)
		}
	}
}

// placed is an event of the fake's, with where it stands in its file.
type placed struct {
	raw        []byte
	start, end uint64
}

// giant serves real events at offsets, and in files, that a real server would take days to reach.
type giant struct {
	*primary
	names []string
	files [][]placed
}

func (g *giant) HandleQuery(q string) (*gomysql.Result, error) {
	answer := func(rows ...[]any) (*gomysql.Result, error) {
		names := make([]string, len(rows[0]))
		for i := range names {
			names[i] = fmt.Sprint("c", i)
		}
		rs, err := gomysql.BuildSimpleTextResultset(names, rows)
		return gomysql.NewResult(rs), err
	}
	switch {
	case strings.HasPrefix(q, "SHOW GLOBAL VARIABLES"):
		return answer([]any{"version", "9.7.0"}, []any{"server_uuid", "giant"}, []any{"server_id", "1"}, []any{"log_bin", "ON"}, []any{"gtid_mode", "OFF"},
			[]any{"binlog_checksum", "CRC32"}, []any{"lower_case_table_names", "0"}, []any{"binlog_row_metadata", "FULL"})
	case q == "SHOW BINARY LOGS":
		return answer([]any{g.names[0], "4"})
	}
	return g.primary.HandleQuery(q)
}

func (g *giant) HandleBinlogDump(at gomysql.Position) (*replication.BinlogStreamer, error) {
	var all [][]byte
	found := false
	for i, name := range g.names {
		if !found && name != at.Name {
			continue
		}
		from := uint64(4)
		if !found {
			from = uint64(at.Pos)
		}
		found = true
		all = append(all, g.event(event.Rotate, event.FlagArtificial, append(binary.LittleEndian.AppendUint64(nil, from), name...)), g.format)
		for _, ev := range g.files[i] {
			if ev.start >= from {
				all = append(all, ev.raw)
			}
		}
	}
	if !found {
		return nil, errors.New("Could not find first log file name in binary log index file")
	}
	return g.stream(all), nil
}

// at is ev as it would stand at an offset that ends at end; 0 leaves its place out.
func at(ev []byte, end uint64) []byte {
	out := append([]byte(nil), ev...)
	binary.LittleEndian.PutUint32(out[13:], uint32(end))
	binary.LittleEndian.PutUint32(out[len(out)-4:], crc32.ChecksumIEEE(out[:len(out)-4]))
	return out
}

// captured are the transactions of a server from a place on, as it sends them, and its format event.
func captured(t *testing.T, raw, file string, pos uint64) (format []byte, groups [][][]byte) {
	t.Helper()
	ctx := within(t)
	c, err := source(t, Config{URL: raw}).connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	v, _, err := c.inspect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.register(ctx, v, 0, ""), c.dumpFile(0, file, uint32(pos), dumpNonBlock)); err != nil {
		t.Fatal(err)
	}
	chunks, free, done := make(chan chunk), make(chan []byte, 1), make(chan struct{})
	defer func() {
		close(done)
		_ = c.raw.Close()
		for range chunks {
		}
	}()
	go pump(c.raw, c.silence, chunks, free, done)
	var p packets
	for {
		free <- make([]byte, 0, gulp)
		ch := <-chunks
		for b := ch.buf; len(b) > 0; {
			ev, rest, err := p.next(b)
			if err != nil { // the end of the dump
				return format, groups
			}
			b = rest
			switch kind := event.Type(ev[4]); {
			case kind == event.FormatDescription:
				format = append([]byte(nil), ev...)
			case kind == event.GTID || kind == event.AnonymousGTID || kind == event.TaggedGTID:
				groups = append(groups, nil)
				fallthrough
			default:
				if n := len(groups); n > 0 {
					groups[n-1] = append(groups[n-1], append([]byte(nil), ev...))
				}
			}
		}
	}
}

// newGiant spreads the transactions over files .999998 to .1000001, each of which grows beyond 8 GiB.
func newGiant(t *testing.T, format []byte, groups [][][]byte) (g *giant, ends []string) {
	g = &giant{primary: &primary{t: t, sum: true, format: at(format, 0)}, names: []string{"binlog.999998", "binlog.999999", "binlog.1000000", "binlog.1000001"}}
	g.files = make([][]placed, len(g.names))
	for i, name := range g.names {
		pos := uint64(4)
		mine := groups[i*len(groups)/len(g.names) : (i+1)*len(groups)/len(g.names)]
		for j, group := range mine {
			for k, ev := range group {
				start := pos
				pos += uint64(len(ev))
				if k == len(group)-1 && j%3 != 2 { // as if it were a huge one
					pos += 3<<30 + uint64(j)
				}
				say := pos
				if k > 0 && k < len(group)-1 && j%2 == 1 { // as MariaDB 11.4 sends them
					say = 0
				}
				g.files[i] = append(g.files[i], placed{at(ev, say), start, pos})
			}
			ends = append(ends, fmt.Sprintf("mysql file giant %d %s", pos, name))
		}
		if i+1 < len(g.names) {
			rotate := g.event(event.Rotate, 0, append(binary.LittleEndian.AppendUint64(nil, 4), g.names[i+1]...))
			g.files[i] = append(g.files[i], placed{at(rotate, pos+uint64(len(rotate))), pos, pos + uint64(len(rotate))})
		}
	}
	return g, ends
}

// TestGiantOffsets: without GTIDs, offsets are counted beyond the 32 bits that the binlog has for them, and file
// numbers beyond .999999; a stream that begins at any of the places goes on exactly.
func TestGiantOffsets(t *testing.T) {
	t.Parallel()
	db := servertest.MySQL(t, servers.MySQLOptions{})
	raw := base(db.URL)
	c := login(t, raw, db.Name)
	c.do("create table a (id int primary key, v varchar(20))")
	status := c.rows("show binary log status")[0]
	for id := 1; id <= 40; id++ {
		c.do("begin", fmt.Sprintf("insert into a values (%d,'x')", id), fmt.Sprintf("update a set v='y' where id=%d", id), "commit")
	}
	var pos uint64
	if _, err := fmt.Sscan(status[1], &pos); err != nil {
		t.Fatal(err)
	}
	format, groups := captured(t, raw, status[0], pos)
	g, ends := newGiant(t, format, groups)
	cfg := Config{URL: "mysql://u@" + g.serve(g) + "/?tls=disable", Tables: []string{db.Name + ".*"}, Start: "earliest"}
	whole := newReading(t)
	whole.follow(source(t, cfg), "id=40 v=y")
	if n := len(whole.records); n != 80 {
		t.Fatalf("%d records", n)
	}
	last := ends[len(ends)-1]
	if p, _ := parseToken(last); p.file != "binlog.1000001" || p.pos < 8<<30 {
		t.Fatalf("the last place is %s", last)
	}
	passed, seen := 0, 0 // of our transactions; the server has others' too
	for i, end := range ends {
		for _, ev := range groups[i] {
			if bytes.Contains(ev, []byte(db.Name)) {
				passed++
				break
			}
		}
		p, err := parseToken(end)
		if err != nil {
			t.Fatal(err)
		}
		r := newReading(t)
		if i%5 == 0 { // as a person writes it
			cfg.Start = fmt.Sprintf("%s:%d", p.file, p.pos)
		} else {
			r.end = pipeline.Position{Counter: 7, Token: end}
		}
		if passed == 40 {
			break // nothing is behind it
		}
		r.follow(source(t, cfg), "id=40 v=y")
		compare(t, &reading{records: whole.records[2*passed:]}, r)
		seen++
		if !strings.HasPrefix(r.end.Token, "mysql file giant ") {
			t.Fatalf("ends at %s", r.end.Token)
		}
	}
	if seen < 35 {
		t.Errorf("only %d places were begun at", seen)
	}
	gone := pipeline.Position{Counter: 7, Token: "mysql file giant 4711 binlog.999997"}
	wantStop(t, failure(t, source(t, cfg), gone), "binlog_purged", "")
}
