package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
)

// chunk is a part of the transaction n, commit its end.
func chunk(n int, changes ...pipetest.Change) pipetest.Step {
	return pipetest.Step{Make: func() *pipeline.Batch {
		b := pipetest.Build(pipeline.Position{}, epoch, changes)
		b.Kind, b.Open = pipeline.BatchChunk, fmt.Sprint("tx", n)
		return b
	}}
}

func commit(n int) pipetest.Step {
	return pipetest.Step{Make: func() *pipeline.Batch {
		b := pipetest.Build(at(n), epoch, []pipetest.Change{})
		b.Kind, b.Open = pipeline.BatchCommit, fmt.Sprint("tx", n)
		return b
	}}
}

func abort(n int) pipetest.Step {
	return pipetest.Step{Make: func() *pipeline.Batch {
		b := pipeline.NewBatch()
		b.Kind, b.Open = pipeline.BatchAbort, fmt.Sprint("tx", n)
		return b
	}}
}

func whole(n int, changes ...pipetest.Change) pipetest.Step {
	return pipetest.Step{Make: func() *pipeline.Batch { return pipetest.Build(at(n), epoch, changes) }}
}

func insert(t *schemas.Table, row ...string) pipetest.Change {
	return pipetest.Change{Op: pipeline.OpInsert, Table: t, After: row}
}

func openDisk(t testing.TB, fsys diskfs.FS) *disklog.Log {
	t.Helper()
	l, err := disklog.Open(disklog.Options{Dir: "log", Source: "files", FS: fsys, SegmentSize: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestQuarantineInsideALargeTransaction: a chunk carries no notices; the commit does, if there is one.
func TestQuarantineInsideALargeTransaction(t *testing.T) {
	good, bad := sourceTable("good"), sourceTable("bad")
	for name, end := range map[string][]pipetest.Step{
		"committed": {commit(1)},
		"aborted":   {abort(1), whole(1, insert(good, "5", "1", "y"))},
	} {
		t.Run(name, func(t *testing.T) {
			l := openDisk(t, faultfs.New(1))
			defer l.Close()
			steps := append([]pipetest.Step{chunk(1, insert(bad, "1", "1", "x"), insert(bad, "2"), insert(good, "3", "1", "y")),
				chunk(1, insert(bad, "4", "1", "x"))}, end...)
			src := pipetest.NewScriptedSource(append(steps, whole(2, insert(bad, "6", "1", "z"), insert(good, "7", "1", "w")))...)
			if err := run(t, Config{Source: src, Log: l}, at(2)); err != nil {
				t.Fatal(err)
			}
			n := l.Notices()
			if name == "aborted" && len(n) != 0 || name == "committed" && (len(n) != 1 || n[0].Kind != pipeline.NoticeQuarantined || n[0].Table != "public.bad") {
				t.Fatalf("notices: %+v", n)
			}
			h := history(t, l)
			if len(h) != 3 {
				t.Fatalf("%q", h)
			}
		})
	}
}

// TestAStoppedSourceGoesOnInANewRun: what the run before handed over is durable and its open transactions
// are dropped before the source is opened again.
func TestAStoppedSourceGoesOnInANewRun(t *testing.T) {
	files := sourceTable("files")
	l := openDisk(t, faultfs.New(1))
	defer l.Close()
	stopped := pipetest.Step{Err: &pipeline.SourceError{Class: pipeline.Stopped, Code: "slot_lost", What: "gone"}}
	src := pipetest.NewScriptedSource(whole(1, insert(files, "1", "1", "a")), chunk(2, insert(files, "2", "1", "b")), stopped,
		chunk(2, insert(files, "3", "1", "c")), commit(2))
	var se *pipeline.SourceError
	if err := run(t, Config{Source: src, Log: l}, at(9)); !errors.As(err, &se) {
		t.Fatalf("got %v", err)
	}
	if l.Last() != at(1) {
		t.Fatalf("the run ended before what it appended was durable: %v", l.Last())
	}
	if err := run(t, Config{Source: src, Log: l}, at(2)); err != nil {
		t.Fatal(err)
	}
	expect(t, history(t, l), "insert tx=1000/1,true b=- a=1|1|a|", "insert tx=2000/1,false b=- a=2|1|b|", "insert tx=2000/2,true b=- a=3|1|c|")
}

// story is a script of transactions, and what the log has to hold in the end.
type story struct {
	steps []pipetest.Step
	want  []string
	n     int
}

func drawStory(t *rapid.T) story {
	files := sourceTable("files")
	wide := sourceTable("files") // the same table of another shape
	wide.FullBefore = true
	s := story{n: rapid.IntRange(1, 10).Draw(t, "transactions")}
	row := 0
	// change draws a change and what it leaves in the log.
	change := func() (pipetest.Change, []string) {
		row++
		tab := files
		if rapid.IntRange(0, 4).Draw(t, "shape") == 0 {
			tab = wide
		}
		id := fmt.Sprint(row)
		if rapid.IntRange(0, 2).Draw(t, "key change") > 0 {
			return insert(tab, id, "1", strings.Repeat("x", rapid.SampledFrom([]int{1, 1, 3000}).Draw(t, "size"))), []string{"insert " + id}
		}
		return pipetest.Change{Op: pipeline.OpUpdate, Table: tab, Before: pipetest.Row{id, pipetest.Absent, pipetest.Absent}, After: pipetest.Row{"9" + id, pipetest.Absent, "y"}},
			[]string{"delete " + id, "insert 9" + id}
	}
	cut := func() {
		switch rapid.IntRange(0, 11).Draw(t, "cut") {
		case 0:
			s.steps = append(s.steps, pipetest.Step{Err: errors.New("connection lost")})
		case 1:
			s.steps = append(s.steps, pipetest.Step{Err: &pipeline.SourceError{Class: pipeline.Stopped, What: "a person has to act"}})
		}
	}
	for n := 1; n <= s.n; n++ {
		cut()
		var rows []string
		changes := func() (all []pipetest.Change) {
			for range rapid.IntRange(0, 4).Draw(t, "rows") {
				c, w := change()
				all, rows = append(all, c), append(rows, w...)
			}
			return all
		}
		if chunks := rapid.IntRange(0, 3).Draw(t, "chunks"); chunks > 0 {
			for range chunks {
				s.steps = append(s.steps, chunk(n, changes()...))
				cut()
			}
			if rapid.IntRange(0, 4).Draw(t, "rolled back") == 0 {
				s.steps, rows = append(s.steps, abort(n)), nil
				s.steps = append(s.steps, whole(n, changes()...))
			} else {
				s.steps = append(s.steps, commit(n))
			}
		} else {
			s.steps = append(s.steps, whole(n, changes()...))
		}
		for i, r := range rows {
			s.want = append(s.want, fmt.Sprintf("%s tx=%d/%d,%v", r, n*1000, i+1, i == len(rows)-1))
		}
	}
	return s
}

// TestNothingIsLostOrDoubledThroughCrashes: the machine crashes before any operation that changes the disk,
// syncs fail, connections are lost and sources stop, also inside of transactions: in the end the log holds
// each committed change once, in order.
func TestNothingIsLostOrDoubledThroughCrashes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawStory(rt)
		fsys := faultfs.New(rapid.Uint64().Draw(rt, "seed"))
		src := pipetest.NewScriptedSource(s.steps...)
		opt := disklog.Options{Dir: "log", Source: "files", FS: fsys, SegmentSize: 16 << 10, Memory: int64(rapid.SampledFrom([]int{1, 1 << 20}).Draw(rt, "memory"))}
		var confirmed pipeline.Position
		for life := 0; ; life++ {
			last := life >= 4
			switch {
			case last:
				fsys.CrashAt(-1)
			case rapid.IntRange(0, 3).Draw(rt, "fault") == 0:
				fsys.FailSyncs(1)
			default:
				fsys.CrashAt(rapid.IntRange(0, 40).Draw(rt, "crash"))
			}
			l, err := disklog.Open(opt)
			if err != nil {
				if last {
					rt.Fatal(err)
				}
				fsys.Crash()
				fsys.Restart()
				continue
			}
			if l.Last().Counter < confirmed.Counter {
				rt.Fatalf("the source was told %v, the log ends at %v", confirmed, l.Last())
			}
			for l.Last() != at(s.n) {
				var se *pipeline.SourceError
				if err := run(rt, Config{Source: src, Log: l}, at(s.n)); err == nil || !errors.As(err, &se) {
					break
				}
			}
			confirmed = src.Confirmed()
			if last {
				check(rt, l, s)
				if err := l.Close(); err != nil {
					rt.Fatal(err)
				}
				return
			}
			if rapid.Bool().Draw(rt, "hard") {
				fsys.Crash()
			}
			_ = l.Close() // the fault may be there
			fsys.Crash()
			fsys.Restart()
		}
	})
}

func check(t *rapid.T, l pipeline.Log, s story) {
	t.Helper()
	oldest, next := l.Bounds()
	r, err := l.Read(oldest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var got []string
	for o := oldest; o < next; {
		b, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if b.Base != o {
			t.Fatalf("offset %d follows %d", b.Base, o)
		}
		for i := range b.Events {
			e := &b.Events[i]
			image := b.Bytes(e.After)
			if e.Op == pipeline.OpDelete {
				image = b.Bytes(e.Before)
			}
			seq, ends := b.Seq(i)
			id, _, _ := strings.Cut(cells(image), "|")
			got = append(got, fmt.Sprintf("%s %s tx=%s/%d,%v", e.Op, id, b.Bytes(b.Txs[e.Tx].ID), seq, ends))
		}
		o = b.Next()
		b.Release()
	}
	if fmt.Sprint(got) != fmt.Sprint(s.want) {
		t.Fatalf("got\n%q\nwant\n%q", got, s.want)
	}
}
