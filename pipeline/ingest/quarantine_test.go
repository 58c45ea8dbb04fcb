package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// A row that cannot be taken counts when its transaction commits, and not when that, or the part that it stands in, was
// rolled back; its rows of other parts and other transactions' rows are there.
func TestARowCountsWhenItsTransactionCommits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		table := sourceTable("files")
		l := pipetest.NewMemoryLog("log", 100)
		type row struct {
			part uint32
			bad  bool
		}
		rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) row {
			return row{uint32(rapid.IntRange(0, 3).Draw(t, "part")), rapid.IntRange(0, 3).Draw(t, "bad") == 0}
		}), 1, 12).Draw(rt, "rows")
		gone := rapid.SliceOfDistinct(rapid.Uint32Range(1, 3), func(p uint32) uint32 { return p }).Draw(rt, "rolled back")
		commits := rapid.Bool().Draw(rt, "commits")
		var steps []pipetest.Step
		for len(rows) > 0 {
			n := rapid.IntRange(1, len(rows)).Draw(rt, "chunk")
			part := rows[:n]
			rows = rows[n:]
			steps = append(steps, pipetest.Step{Make: func() *pipeline.Batch {
				b := pipeline.NewBatch()
				b.Kind, b.Open = pipeline.BatchChunk, "tx"
				for i, r := range part {
					one := pipetest.Row{fmt.Sprint(i), "1", "x"}
					if r.bad {
						one = one[:1]
					}
					from := pipetest.Build(pipeline.Position{}, epoch, []pipetest.Change{insert(table, one...)})
					e := from.Events[0]
					b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("7"), Position: pipeline.Nowhere, First: uint32(i), Part: r.part})
					e.Tx, e.After = uint32(i), b.Put(from.Bytes(e.After))
					e.Table, _ = b.TableIndex(table)
					b.Events = append(b.Events, e)
					from.Release()
				}
				return b
			}})
			rows = slices.Clone(rows)
		}
		chunks := len(steps)
		steps = append(steps, whole(1, insert(table, "8", "1", "beside")))
		if commits {
			steps = append(steps, pipetest.Step{Make: func() *pipeline.Batch {
				b := pipetest.Build(at(2), epoch, []pipetest.Change{})
				b.Kind, b.Open, b.Without = pipeline.BatchCommit, "tx", slices.Clone(gone)
				return b
			}})
		} else {
			steps = append(steps, pipetest.Step{Make: func() *pipeline.Batch {
				b := pipeline.NewBatch()
				b.Kind, b.Open = pipeline.BatchAbort, "tx"
				return b
			}}, whole(2))
		}
		steps = append(steps, whole(3, insert(table, "9", "1", "behind")))
		// the model
		bad, kept := false, 1
		behind := map[uint32]bool{} // parts whose rows are left out from here on
		for i := range chunks {
			b := steps[i].Make()
			for j := range b.Events {
				p := b.Txs[b.Events[j].Tx].Part
				size := len(b.Bytes(b.Events[j].After))
				in := commits && !slices.Contains(gone, p)
				switch {
				case behind[0] || behind[p]:
				case size < 15: // one column
					behind[p] = true
					bad = bad || in
				case in:
					kept++
				}
			}
			b.Release()
		}
		if !bad {
			kept++
		}
		if err := run(rt, Config{Source: pipetest.NewScriptedSource(steps...), Log: l}, at(3)); err != nil {
			rt.Fatal(err)
		}
		n := l.Notices()
		if bad != (len(n) == 1) || bad && (n[0].Kind != pipeline.NoticeQuarantined || n[0].Position != "0/2") {
			rt.Fatalf("quarantined: want %v, got %+v", bad, n)
		}
		if h := history(t, l); len(h) != kept {
			rt.Fatalf("want %d events, got %q", kept, h)
		}
	})
}

// ask is run beside Run until what is asked for was done.
func ask(t *testing.T, cfg Config, end pipeline.Position, what func(ctx context.Context) error) {
	t.Helper()
	answered := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		answered <- what(ctx)
	}()
	if err := run(t, cfg, end); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

// Who asks for a quarantined table lets it in again, from a place on: transactions that were open there come whole.
func TestAReleaseLetsTheTableInAgain(t *testing.T) {
	for name, open := range map[string]func(testing.TB) (pipeline.Log, func() pipeline.Log){
		"memory": func(testing.TB) (pipeline.Log, func() pipeline.Log) {
			l := pipetest.NewMemoryLog("log", 100)
			return l, func() pipeline.Log { return l }
		},
		"disk, killed behind it": func(t testing.TB) (pipeline.Log, func() pipeline.Log) {
			fs := faultfs.New(1)
			l := openDisk(t, fs)
			return l, func() pipeline.Log {
				fs.Crash()
				l.Close()
				fs.Restart()
				return openDisk(t, fs)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			good, bad := sourceTable("good"), sourceTable("bad")
			l, again := open(t)
			src := pipetest.NewScriptedSource(whole(1, insert(bad, "1"), insert(good, "1", "1", "a")), whole(2, insert(bad, "2", "1", "lost")),
				chunk(3, insert(bad, "3", "1", "open")))
			cfg := Config{Source: src, Log: l, Releases: NewReleases()}
			ask(t, cfg, at(4), func(ctx context.Context) error {
				for s := (pipeline.Synced{}); s.End != at(2); {
					var err error
					if s, err = l.Synced(ctx, s.Ticket); err != nil {
						return err
					}
				}
				if err := cfg.Releases.Release(ctx, []string{"public.bad", "public.good", "public.gone"}); err != nil {
					return err
				}
				if n := l.Notices(); len(n) != 1 || n[0].Kind != pipeline.NoticeGap || n[0].Code != codeStructure || n[0].Position != "0/2" {
					return fmt.Errorf("notices: %+v", n)
				}
				if src.Opened() < 1 {
					return errors.New("never opened")
				}
				src.Add(commit(3), whole(4, insert(bad, "4", "1", "new")))
				return nil
			})
			l = again()
			defer l.Close()
			expect(t, history(t, l), "insert tx=1000/1,true b=- a=1|1|a|", "insert tx=3000/1,true b=- a=3|1|open|", "insert tx=4000/1,true b=- a=4|1|new|")
			src.Add(whole(5, insert(bad, "5", "1", "x")), whole(6, insert(bad, "6")))
			cfg.Log = l
			if err := run(t, cfg, at(6)); err != nil {
				t.Fatal(err)
			}
			if h := history(t, l); len(h) != 4 {
				t.Fatalf("%q", h)
			}
			if n := l.Notices(); len(n) != 2 || n[1].Kind != pipeline.NoticeQuarantined {
				t.Fatalf("a row that cannot be taken quarantines again: %+v", n)
			}
		})
	}
}

// Nobody reads: the wish is taken back, and changes nothing later.
func TestAReleaseThatNobodyTakes(t *testing.T) {
	r := NewReleases()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Release(ctx, []string{"public.files"}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if len(r.take()) != 0 {
		t.Fatal("the wish is still there")
	}
}

// What the source quarantined on an earlier stream, as it did not know the shape, is read again once a stream hands the
// table over; what rows are missing of is not. A notice that is repeated leaves the first place.
func TestWhatTheSourceQuarantined(t *testing.T) {
	for code, back := range map[string]bool{"metadata": true, "type": true, "columns": true, "statement": false, "structure": false} {
		t.Run(code, func(t *testing.T) {
			table := sourceTable("files")
			l := pipetest.NewMemoryLog("log", 100)
			notice := func(n int, kinds ...pipeline.NoticeKind) pipetest.Step {
				return pipetest.Step{Make: func() *pipeline.Batch {
					b := pipetest.Build(at(n), epoch)
					for _, k := range kinds {
						b.Notices = append(b.Notices, pipeline.Notice{Kind: k, Code: code, Table: "public.files", Position: fmt.Sprint("0/", n)})
					}
					return b
				}}
			}
			src := pipetest.NewScriptedSource(whole(1, insert(table, "1", "1", "a")), notice(2, pipeline.NoticeQuarantined), whole(3, insert(table, "2", "1", "b")),
				notice(4, pipeline.NoticeQuarantined))
			cfg := Config{Source: src, Log: l}
			if err := run(t, cfg, at(4)); err != nil {
				t.Fatal(err)
			}
			if n := l.Notices(); len(n) != 1 || n[0].Position != "0/2" || len(history(t, l)) != 1 {
				t.Fatalf("%+v %q", n, history(t, l))
			}
			src.Add(whole(5, insert(table, "3", "1", "c"))) // on another stream
			if err := run(t, cfg, at(5)); err != nil {
				t.Fatal(err)
			}
			n := l.Notices()
			if len(n) != 1 || back != (n[0].Kind == pipeline.NoticeGap && len(history(t, l)) == 2) {
				t.Fatalf("%+v %q", n, history(t, l))
			}
			src.Add(notice(6, pipeline.NoticeReleased, pipeline.NoticeGap), whole(7, insert(table, "4", "1", "d"))) // the source says so
			if err := run(t, cfg, at(7)); err != nil {
				t.Fatal(err)
			}
			if n := l.Notices(); n[0].Kind == pipeline.NoticeQuarantined == back {
				t.Fatalf("%+v", n)
			}
		})
	}
}

// keeper is a log of which a transaction may be prepared.
type keeper struct {
	*pipetest.MemoryLog
	open atomic.Bool
}

func (k *keeper) Prepared() []string {
	if k.open.Load() {
		return []string{"xa1"}
	}
	return nil
}

// A transaction that was prepared between the check of who asks and the wish's turn: its rows would never come.
func TestNoReleaseWhileATransactionIsPrepared(t *testing.T) {
	good, bad := sourceTable("good"), sourceTable("bad")
	l := &keeper{MemoryLog: pipetest.NewMemoryLog("log", 100)}
	src := pipetest.NewScriptedSource(whole(1, insert(bad, "1"), insert(good, "1", "1", "a")))
	cfg := Config{Source: src, Log: l, Releases: NewReleases()}
	ask(t, cfg, at(2), func(ctx context.Context) error {
		for s := (pipeline.Synced{}); s.End != at(1); {
			var err error
			if s, err = l.Synced(ctx, s.Ticket); err != nil {
				return err
			}
		}
		l.open.Store(true)
		err := cfg.Releases.Release(ctx, []string{"public.bad"})
		if e := (*PreparedError)(nil); !errors.As(err, &e) {
			return fmt.Errorf("released: %w", err)
		}
		l.open.Store(false)
		if err := cfg.Releases.Release(ctx, []string{"public.bad"}); err != nil {
			return err
		}
		src.Add(whole(2, insert(bad, "2", "1", "new")))
		return nil
	})
	expect(t, history(t, l), "insert tx=1000/1,true b=- a=1|1|a|", "insert tx=2000/1,true b=- a=2|1|new|")
}

// A quarantine that waits for a prepared transaction ends once that has ended, on the same stream; one that was prepared
// and is not durable counts.
func TestAShapeWaitsForPreparedTransactions(t *testing.T) {
	l := &keeper{MemoryLog: pipetest.NewMemoryLog("log", 100)}
	l.open.Store(true)
	c := newCatalog(Config{Log: l, Form: pipetest.PGForm})
	c.quarant["public.files"] = held{code: "metadata", shape: true}
	b := pipetest.Build(at(1), epoch, []pipetest.Change{insert(sourceTable("files"), "1", "1", "a")})
	defer b.Release()
	end := func(kind pipeline.BatchKind) { c.ended(&pipeline.Batch{Kind: kind, Open: "xa2"}) }
	for n, step := range []struct {
		do  func()
		out bool
	}{{func() {}, true}, {func() { end(pipeline.BatchPrepared); l.open.Store(false) }, true}, {func() { end(pipeline.BatchCommit) }, false}} {
		if step.do(); c.plans(b)[0].quarantined != step.out {
			t.Fatalf("%d: quarantined %v", n, !step.out)
		}
	}
	if n := c.takeNotices(); len(n) != 2 || n[0].Kind != pipeline.NoticeReleased || n[1].Kind != pipeline.NoticeGap {
		t.Fatalf("%+v", n)
	}
}

// Nor does the source's own word end it before: rows that the prepared transaction lacks may be this log's, of an earlier
// stream.
func TestASourcesReleaseWaitsForPreparedTransactions(t *testing.T) {
	l := &keeper{MemoryLog: pipetest.NewMemoryLog("log", 100)}
	l.open.Store(true)
	c := newCatalog(Config{Log: l, Form: pipetest.PGForm})
	c.quarant["public.files"] = held{code: "metadata", shape: true}
	b := pipetest.Build(at(1), epoch, []pipetest.Change{insert(sourceTable("files"), "1", "1", "a")})
	defer b.Release()
	c.plans(b)
	if n := c.told([]pipeline.Notice{{Kind: pipeline.NoticeQuarantined, Code: "metadata", Table: "public.files"}}); len(n) > 0 {
		t.Fatalf("told twice: %+v", n)
	}
	n := c.told([]pipeline.Notice{{Kind: pipeline.NoticeReleased, Code: "metadata", Table: "public.files"}})
	if len(n) > 0 || !c.plans(b)[0].quarantined {
		t.Fatalf("released while a transaction is prepared: %+v", n)
	}
	l.open.Store(false)
	if c.plans(b)[0].quarantined {
		t.Fatal("it stays quarantined")
	}
	if n := c.takeNotices(); len(n) != 2 || n[0].Kind != pipeline.NoticeReleased || n[1].Kind != pipeline.NoticeGap {
		t.Fatalf("%+v", n)
	}
}
