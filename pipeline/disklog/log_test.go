package disklog

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

func TestMain(m *testing.M) {
	// Fewer random histories by default: under -race they are slow. -rapid.checks=5000 without it takes seconds.
	if err := flag.Set("rapid.checks", "50"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func testTable(id, version uint32) *schemas.Table {
	return (&schemas.Table{ID: id, Version: version, Schema: "public", Name: fmt.Sprintf("t%d", id), Wire: schemas.WirePGText,
		Columns: []schemas.Column{{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Name: "bigint", Bits: 64}},
			{Name: fmt.Sprintf("v%d", version), Type: schemas.Type{Kind: schemas.KindText, Name: "text"}, Nullable: true}},
		Identity: []int{0}, Routing: []int{0}}).Seal()
}

// fillBatch makes n events of size bytes in transactions of per events; seed decides their content.
func fillBatch(b *pipeline.Batch, t *schemas.Table, seed uint64, n, per, size int) {
	ti, _ := b.TableIndex(t)
	for i := range n {
		if i%per == 0 {
			b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString(fmt.Sprintf("tx%d-%d", seed, i)), Position: b.PutString(fmt.Sprintf("0/%X", seed)),
				Time: int64(1_700_000_000_000_000 + seed*1000), First: uint32(i), Ends: true})
		}
		key := b.PutString(fmt.Sprintf("k%d", (seed+uint64(i))%97))
		off := len(b.Arena)
		for j := range size {
			b.Arena = append(b.Arena, byte(seed)+byte(j)+byte(i))
		}
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpInsert, Table: ti, Tx: uint32(len(b.Txs) - 1), Hash: seed ^ uint64(i),
			Key: key, Before: pipeline.Nowhere, After: pipeline.Span{Off: uint32(off), Len: uint32(size)}})
	}
	b.End = pipeline.Position{Counter: seed + 1, Token: fmt.Sprintf("token-%d", seed)}
}

func rows(t *schemas.Table, seed uint64, n int) *pipeline.Batch {
	b := pipeline.NewBatch()
	fillBatch(b, t, seed, n, 3, 40)
	return b
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func mustOpen(t testing.TB, opt Options) *Log {
	t.Helper()
	if opt.Source == "" {
		opt.Source = "db"
	}
	l, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Log, b *pipeline.Batch) uint64 {
	t.Helper()
	ticket, err := l.Append(testContext(t), b)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

func waitSynced(t testing.TB, l *Log, ticket uint64) pipeline.Synced {
	t.Helper()
	s, err := l.Synced(testContext(t), ticket-1)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// content is a batch as text, for comparing: what a subscriber can see of it.
func content(b *pipeline.Batch) []string {
	var out []string
	for i := range b.Events {
		e := &b.Events[i]
		tx := b.Txs[e.Tx]
		seq, last := b.Seq(i)
		name := ""
		if t := b.TableOf(i); t != nil {
			name = fmt.Sprintf("%s/%d/%d", t.Subject(), t.Version, len(t.Columns))
		}
		out = append(out, fmt.Sprintf("%d %v %d %s %x %q %q %q tx=%q pos=%q %d seq=%d %v", b.Offset(i), e.Op, e.Flags, name, e.Hash,
			b.Bytes(e.Key), b.Bytes(e.Before), b.Bytes(e.After), b.Bytes(tx.ID), b.Bytes(tx.Position), tx.Time, seq, last))
	}
	for _, n := range b.Notices {
		out = append(out, fmt.Sprintf("notice at %d: %v %s %s", b.Base, n.Kind, n.Table, n.Reason))
	}
	return out
}

// readAll reads from `from` up to next and returns the content.
func readAll(t testing.TB, l *Log, from, next pipeline.Offset) []string {
	t.Helper()
	r, err := l.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out []string
	for at := from; at < next; {
		b, err := r.Next(testContext(t))
		if err != nil {
			t.Fatalf("at %d of %d: %v", at, next, err)
		}
		out = append(out, content(b)...)
		at = b.Next()
		b.Release()
	}
	return out
}

func TestAppendReadReopen(t *testing.T) {
	dir := t.TempDir()
	opt := Options{Dir: dir, SegmentSize: 64 << 10}
	l := mustOpen(t, opt)
	first, next := l.Bounds()
	if first != next {
		t.Fatalf("bounds of a new log: %d, %d", first, next)
	}
	var want []string
	var ticket uint64
	for i := range 300 {
		b := rows(testTable(uint32(i%5+1), uint32(i/100+1)), uint64(i), i%20+1)
		b.Retain()
		ticket = mustAppend(t, l, b)
		want = append(want, content(b)...)
		b.Release()
	}
	s := waitSynced(t, l, ticket)
	compare := func(l *Log) {
		t.Helper()
		got := readAll(t, l, first, s.Next)
		if len(got) != len(want) {
			t.Fatalf("read %d events, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("event %d:\n got %s\nwant %s", i, got[i], want[i])
			}
		}
	}
	compare(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, opt)
	if got := l.Last(); got != s.End {
		t.Fatalf("last %v, want %v", got, s.End)
	}
	if _, n := l.Bounds(); n != s.Next {
		t.Fatalf("next %v, want %v", n, s.Next)
	}
	if len(l.Tables()) != 5 {
		t.Fatalf("tables %v", l.Tables())
	}
	compare(l)
	if len(l.mu.segs) < 3 {
		t.Fatalf("%d segments, the test wants several", len(l.mu.segs))
	}
}
