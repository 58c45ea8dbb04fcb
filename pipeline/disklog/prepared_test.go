package disklog_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
)

// What was prepared stays through any number of segments, openings and what retention takes behind it, until its
// commit; then it goes like all else.
func TestPreparedOutlivesRetention(t *testing.T) {
	fsys := faultfs.New(1)
	opt := disklog.Options{Dir: "log", Source: "db", FS: fsys, SegmentSize: 16 << 10, Memory: 1, Retention: disklog.Retention{Size: 60 << 10}}
	var l *disklog.Log
	reopen := func() {
		t.Helper()
		var err error
		if l != nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if l, err = disklog.Open(opt); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := 0
	put := func(b *pipeline.Batch) {
		t.Helper()
		ticket, err := l.Append(ctx, b)
		if err == nil {
			_, err = l.Synced(ctx, ticket-1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rows := func(kind pipeline.BatchKind, open string, events int) {
		n++
		b := pipeline.NewBatch()
		i, _ := b.TableIndex(table(uint32(1+n%2), 1))
		b.Kind, b.Open = kind, open
		b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("x"), Position: b.PutString("p"), Time: int64(n), Ends: kind == pipeline.BatchRows})
		for range events {
			b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpInsert, Table: i, Key: b.PutString("k"), Before: pipeline.Nowhere, After: b.PutString(fmt.Sprintf("%s %900d", open, n))})
		}
		if kind == pipeline.BatchRows {
			b.End = pipeline.Position{Counter: uint64(n), Token: fmt.Sprint(n)}
		}
		put(b)
	}
	end := func(kind pipeline.BatchKind, open string) {
		n++
		b := pipeline.NewBatch()
		b.Kind, b.Open = kind, open
		if kind == pipeline.BatchCommit {
			b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString(open), Position: b.PutString("p"), Time: int64(n), Ends: true})
		}
		if kind != pipeline.BatchAbort {
			b.End = pipeline.Position{Counter: uint64(n), Token: fmt.Sprint(n)}
		}
		put(b)
	}
	reopen()
	for _, open := range []string{"a", "b"} {
		rows(pipeline.BatchChunk, open, 2)
		rows(pipeline.BatchChunk, open, 1)
		end(pipeline.BatchPrepared, open)
	}
	first, _ := l.Bounds()
	for i := range 400 {
		rows(pipeline.BatchRows, "", 1)
		if i%150 == 0 {
			reopen()
		}
	}
	if oldest, _ := l.Bounds(); oldest != first {
		t.Fatalf("retention took from %d to %d", first, oldest)
	}
	reopen()
	_, at := l.Bounds()
	end(pipeline.BatchCommit, "b")
	end(pipeline.BatchAbort, "a")
	if _, next := l.Bounds(); next != at+3 {
		t.Fatalf("the commit gave %d offsets", next-at)
	}
	r, err := l.Read(at)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for seen < 3 {
		b, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Events {
			if b.Offset(i) >= at {
				seen++
				if text := string(b.Bytes(b.Events[i].After)); text[0] != 'b' {
					t.Errorf("an event of %.20q", text)
				}
			}
		}
		b.Release()
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for range 400 {
		rows(pipeline.BatchRows, "", 1)
	}
	reopen()
	rows(pipeline.BatchRows, "", 1)
	for oldest, _ := l.Bounds(); oldest == first; oldest, _ = l.Bounds() {
		if ctx.Err() != nil {
			t.Fatal("retention takes nothing more")
		}
		rows(pipeline.BatchRows, "", 1)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
