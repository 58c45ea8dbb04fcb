package disklog_test

import (
	"context"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
)

// What was prepared stays through any number of segments, openings and what retention takes around it, until its
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
	w := &writer{t: t, ctx: ctx}
	rows := func(kind pipeline.BatchKind, open string, events int) {
		t.Helper()
		w.l = l
		w.rows(kind, open, events)
	}
	end := func(kind pipeline.BatchKind, open string) { t.Helper(); w.l = l; w.end(kind, open) }
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
	if oldest, _ := l.Bounds(); oldest == first {
		t.Fatal("retention took nothing beside what is prepared")
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
