package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sourceTable(name string) *schemas.Table {
	t := pipetest.FilesTable(name)
	t.ID, t.Version, t.Routing, t.KeySpace = 0, 0, nil, ""
	return t
}

func at(n int) pipeline.Position {
	return pipeline.Position{Counter: uint64(n), Token: fmt.Sprint("p", n)}
}

var epoch = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// run ingests until the log's last position is end, then stops and returns Run's error.
func run(t interface{ Helper() }, cfg Config, end pipeline.Position) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cfg.Name, cfg.Form = "files", pipetest.PGForm
	cfg.Wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	go func() {
		for ticket := uint64(0); ; {
			s, err := cfg.Log.Synced(ctx, ticket)
			if err != nil || s.End == end {
				cancel()
				return
			}
			ticket = s.Ticket
		}
	}()
	return <-done
}

// history lists the log's events as text.
func history(t testing.TB, l pipeline.Log) []string {
	t.Helper()
	oldest, next := l.Bounds()
	r, err := l.Read(oldest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all []string
	for o := oldest; o < next; {
		b, err := r.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Events {
			e := &b.Events[i]
			seq, last := b.Seq(i)
			all = append(all, fmt.Sprintf("%s tx=%s/%d,%v b=%s a=%s", e.Op, b.Bytes(b.Txs[e.Tx].ID), seq, last, cells(b.Bytes(e.Before)), cells(b.Bytes(e.After))))
		}
		o = b.Next()
		b.Release()
	}
	return all
}

func cells(image []byte) string {
	if image == nil {
		return "-"
	}
	f := pipetest.PGForm(sourceTable("x"))
	refs, _ := f.Walk(image, nil, 3)
	s := ""
	for _, r := range refs {
		s += string(r.Of(image)) + "|"
	}
	return s
}

func expect(t testing.TB, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got\n%q\nwant\n%q", got, want)
	}
}

func TestKeyChangeBecomesDeleteAndInsert(t *testing.T) {
	files := sourceTable("files")
	l := pipetest.NewMemoryLog("log", 100)
	src := pipetest.NewScriptedSource(pipetest.Step{Make: func() *pipeline.Batch {
		return pipetest.Build(at(1), epoch,
			[]pipetest.Change{{Op: pipeline.OpInsert, Table: files, After: pipetest.Row{"1", "7", "/a"}}},
			[]pipetest.Change{
				{Op: pipeline.OpUpdate, Table: files, Before: pipetest.Row{"1", pipetest.Null, pipetest.Null}, After: pipetest.Row{"2", "7", pipetest.Absent}},
				{Op: pipeline.OpUpdate, Table: files, After: pipetest.Row{"2", "7", "/b"}}},
			[]pipetest.Change{{Op: pipeline.OpDelete, Table: files, Before: pipetest.Row{"2", pipetest.Null, pipetest.Null}}})
	}})
	if err := run(t, Config{Source: src, Log: l}, at(1)); err != nil {
		t.Fatal(err)
	}
	expect(t, history(t, l), "insert tx=1000/1,true b=- a=1|7|/a|", "delete tx=1001/1,false b=1||| a=2|7||",
		"insert tx=1001/2,false b=1||| a=2|7||", "update tx=1001/3,true b=- a=2|7|/b|", "delete tx=1002/1,true b=2||| a=-")
	r, _ := l.Read(100)
	b, _ := r.Next(context.Background())
	ev := b.Events
	if ev[0].Hash != ev[1].Hash || ev[2].Hash != ev[3].Hash || ev[1].Hash == ev[2].Hash {
		t.Errorf("hashes do not follow the keys: %x %x %x %x", ev[0].Hash, ev[1].Hash, ev[2].Hash, ev[3].Hash)
	}
	if ev[1].Flags&pipeline.FlagKeyChange == 0 || ev[2].Flags&pipeline.FlagKeyChange == 0 || ev[3].Flags != 0 {
		t.Error("key change is not flagged on the two halves alone")
	}
	if tab := b.TableOf(0); tab.ID != 1 || tab.Version != 1 || tab.KeySpace != "public.files" || len(tab.Routing) != 1 {
		t.Errorf("table as adopted: %+v", tab)
	}
}

func TestQuarantineStopsOneTableAlone(t *testing.T) {
	good, bad := sourceTable("good"), sourceTable("bad")
	l := pipetest.NewMemoryLog("log", 100)
	ins := func(tab *schemas.Table, row ...string) pipetest.Change {
		return pipetest.Change{Op: pipeline.OpInsert, Table: tab, After: row}
	}
	src := pipetest.NewScriptedSource(
		pipetest.Step{Make: func() *pipeline.Batch {
			return pipetest.Build(at(1), epoch, []pipetest.Change{ins(bad, "1", "1", "x"), ins(bad, "1"), ins(good, "1", "1", "y"), ins(bad, "2", "1", "z")})
		}},
		pipetest.Step{Make: func() *pipeline.Batch {
			return pipetest.Build(at(2), epoch, []pipetest.Change{ins(bad, "3", "1", "x")}, []pipetest.Change{ins(good, "2", "1", "w")})
		}})
	if err := run(t, Config{Source: src, Log: l}, at(2)); err != nil {
		t.Fatal(err)
	}
	expect(t, history(t, l), "insert tx=1000/1,false b=- a=1|1|x|", "insert tx=1000/2,true b=- a=1|1|y|", "insert tx=2001/1,true b=- a=2|1|w|")
	n := l.Notices()
	if len(n) != 1 || n[0].Table != "public.bad" || n[0].Position != "0/1" || n[0].Code != codeStructure || n[0].Cure == "" {
		t.Fatalf("notices: %+v", n)
	}
	// a new run over the same log still keeps it out
	src.Add(pipetest.Step{Make: func() *pipeline.Batch {
		return pipetest.Build(at(3), epoch, []pipetest.Change{ins(bad, "4", "1", "x"), ins(good, "3", "1", "v")})
	}})
	if err := run(t, Config{Source: src, Log: l}, at(3)); err != nil {
		t.Fatal(err)
	}
	if h := history(t, l); len(h) != 4 || h[3] != "insert tx=3000/1,true b=- a=3|1|v|" {
		t.Fatalf("after a restart: %q", h)
	}
}

// A row that the log cannot hold quarantines its table and leaves the arena; all around it arrives whole.
func TestARowTooLargeForTheLogQuarantinesItsTable(t *testing.T) {
	good, bad := sourceTable("good"), sourceTable("bad")
	l := pipetest.NewMemoryLog("log", 100)
	ins := func(tab *schemas.Table, row ...string) pipetest.Change {
		return pipetest.Change{Op: pipeline.OpInsert, Table: tab, After: row}
	}
	huge := strings.Repeat("x", 5000)
	var arena int
	src := pipetest.NewScriptedSource(
		pipetest.Step{Make: func() *pipeline.Batch {
			return pipetest.Build(at(1), epoch, []pipetest.Change{ins(good, "1", "1", "y"), ins(bad, "1", "1", huge), ins(bad, "2", "1", huge), ins(good, "2", "1", "z")}, []pipetest.Change{ins(good, "3", "1", "w")})
		}})
	o := pipeline.Observer{Ingested: func(_ string, _, bytes int, _ pipeline.Position) { arena += bytes }}
	if err := run(t, Config{Source: src, Log: l, MaxEvent: 4096, Observer: o}, at(1)); err != nil {
		t.Fatal(err)
	}
	expect(t, history(t, l), "insert tx=1000/1,false b=- a=1|1|y|", "insert tx=1000/2,true b=- a=2|1|z|", "insert tx=1001/1,true b=- a=3|1|w|")
	n := l.Notices()
	if len(n) != 1 || n[0].Table != "public.bad" || n[0].Position != "0/1" || n[0].Code != codeLarge || !strings.Contains(n[0].Cure, "tables:") {
		t.Fatalf("notices: %+v", n)
	}
	if arena > 4096 {
		t.Errorf("the block has %d bytes: the row is still in it", arena)
	}
}

// A logical message that the log cannot hold is left out and named, in a chunk as well; reading goes on.
func TestAMessageTooLargeForTheLogIsLeftOut(t *testing.T) {
	good := sourceTable("good")
	l := pipetest.NewMemoryLog("log", 100)
	ins := func(v string) pipetest.Change {
		return pipetest.Change{Op: pipeline.OpInsert, Table: good, After: pipetest.Row{v, "1", "x"}}
	}
	message := func(size int) pipetest.Change {
		return pipetest.Change{Op: pipeline.OpMessage, Before: pipetest.Row{"audit"}, After: pipetest.Row{strings.Repeat("x", size)}}
	}
	src := pipetest.NewScriptedSource(
		pipetest.Step{Make: func() *pipeline.Batch {
			return pipetest.Build(at(1), epoch, []pipetest.Change{ins("1"), message(5000), ins("2")}, []pipetest.Change{message(10)}, []pipetest.Change{message(6000)})
		}},
		pipetest.Step{Make: func() *pipeline.Batch { return pipetest.Build(at(2), epoch, []pipetest.Change{ins("3")}) }})
	var seen []pipeline.Notice
	o := pipeline.Observer{Noticed: func(_ string, n pipeline.Notice) { seen = append(seen, n) }}
	if err := run(t, Config{Source: src, Log: l, MaxEvent: 4096, Observer: o}, at(2)); err != nil {
		t.Fatal(err)
	}
	h := history(t, l)
	if len(h) != 4 || !strings.HasPrefix(h[2], "message") || !strings.Contains(h[3], "a=3|") {
		t.Fatalf("%d events: %q", len(h), h)
	}
	if len(seen) != 2 || seen[0].Kind != pipeline.NoticeGap || seen[0].Code != codeLarge || !strings.Contains(seen[0].Reason, "audit") || seen[0].Cure == "" {
		t.Fatalf("noticed: %+v", seen)
	}
	if n := l.Notices(); len(n) == 0 || n[len(n)-1].Table != "messages" || n[len(n)-1].Position == "" {
		t.Fatalf("notices: %+v", n)
	}
}

func TestRoutesThatCannotBeHadAreRefusedWithTheCure(t *testing.T) {
	files := sourceTable("files")
	l := pipetest.NewMemoryLog("log", 100)
	step := func(n int, tab *schemas.Table) pipetest.Step {
		return pipetest.Step{Make: func() *pipeline.Batch {
			return pipetest.Build(at(n), epoch, []pipetest.Change{{Op: pipeline.OpInsert, Table: tab, After: pipetest.Row{fmt.Sprint(n), "7", "/a"}}})
		}}
	}
	full := sourceTable("files")
	full.FullBefore = true
	src := pipetest.NewScriptedSource(step(1, files), step(2, full))
	cfg := Config{Source: src, Log: l, Route: Routes{Keys: []KeyRoute{{"public.*", []string{"namespace_id"}}}, Spaces: []SpaceRoute{{"public.files", "tree"}}}}
	if err := run(t, cfg, at(2)); err != nil {
		t.Fatal(err)
	}
	n := l.Notices()
	if len(n) != 1 || n[0].Kind != pipeline.NoticeGap {
		t.Fatalf("want the quarantine taken back and a gap: %+v", n)
	}
	expect(t, history(t, l), "insert tx=2000/1,true b=- a=2|7|/a|")
	var re *RouteError
	if err := cfg.Route.Check(files); !errors.As(err, &re) || re.Cure != "ALTER TABLE public.files REPLICA IDENTITY FULL;" {
		t.Fatalf("cure: %v", err)
	}
	wide := sourceTable("files")
	wide.Carried = []int{1}
	if err := cfg.Route.Check(wide); err != nil {
		t.Errorf("a replica identity index that carries the routing column: %v", err)
	}
	if tab := l.Tables()[0]; tab.KeySpace != "tree" || fmt.Sprint(tab.Routing) != "[1]" {
		t.Fatalf("routed by %v in %q", tab.Routing, tab.KeySpace)
	}
}

func TestReconnectsResumeWhereTheLogEnds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		files := sourceTable("files")
		var steps []pipetest.Step
		var want []string
		n := rapid.IntRange(1, 12).Draw(rt, "steps")
		for i := 1; i <= n; i++ {
			if rapid.IntRange(0, 2).Draw(rt, "fail") == 0 {
				steps = append(steps, pipetest.Step{Err: &pipeline.SourceError{Class: pipeline.Transient, What: "cut"}})
			}
			chunks := rapid.IntRange(0, 3).Draw(rt, "chunks")
			rows := 0
			for c := range chunks {
				steps = append(steps, pipetest.Step{Make: func() *pipeline.Batch {
					b := pipetest.Build(pipeline.Position{}, epoch, []pipetest.Change{{Op: pipeline.OpInsert, Table: files, After: pipetest.Row{fmt.Sprint(i*10 + c), "1", "c"}}})
					b.Kind, b.Open = pipeline.BatchChunk, fmt.Sprint("tx", i)
					return b
				}})
				rows++
				if rapid.IntRange(0, 3).Draw(rt, "fail mid") == 0 {
					steps = append(steps, pipetest.Step{Err: errors.New("cut inside the transaction")})
				}
			}
			steps = append(steps, pipetest.Step{Make: func() *pipeline.Batch {
				if chunks == 0 {
					return pipetest.Build(at(i), epoch, []pipetest.Change{{Op: pipeline.OpInsert, Table: files, After: pipetest.Row{fmt.Sprint(i * 10), "1", "r"}}})
				}
				b := pipetest.Build(at(i), epoch, []pipetest.Change{})
				b.Kind, b.Open = pipeline.BatchCommit, fmt.Sprint("tx", i)
				return b
			}})
			for r := range max(rows, 1) {
				want = append(want, fmt.Sprintf("insert tx=%d/%d,%v b=- a=%d|1|%s|", i*1000, r+1, r == max(rows, 1)-1, i*10+r, map[bool]string{true: "r", false: "c"}[rows == 0]))
			}
		}
		l := pipetest.NewMemoryLog("log", 100)
		src := pipetest.NewScriptedSource(steps...)
		if err := run(t, Config{Source: src, Log: l}, at(n)); err != nil {
			rt.Fatal(err)
		}
		if got := history(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
			rt.Fatalf("got\n%q\nwant\n%q", got, want)
		}
	})
}

func TestTheSourceIsConfirmedOnlyUpToWhatIsDurable(t *testing.T) {
	files := sourceTable("files")
	l := pipetest.NewMemoryLog("log", 100)
	l.Hold()
	src := pipetest.NewScriptedSource(pipetest.Step{Make: func() *pipeline.Batch {
		return pipetest.Build(at(1), epoch, []pipetest.Change{{Op: pipeline.OpInsert, Table: files, After: pipetest.Row{"1", "7", "/a"}}})
	}})
	appended := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Name: "files", Source: src, Log: l, Form: pipetest.PGForm, Observer: pipeline.Observer{
			Ingested: func(string, int, int, pipeline.Position) { appended <- struct{}{} }}})
	}()
	<-appended
	if c := src.Confirmed(); !c.Zero() {
		t.Fatalf("confirmed %v before the log was durable", c)
	}
	l.Sync()
	for deadline := time.Now().Add(time.Minute); src.Confirmed() != at(1); {
		if time.Now().After(deadline) {
			t.Fatal("never confirmed")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestStoppedSourcesAndFailedLogsEndTheRun(t *testing.T) {
	stopped := &pipeline.SourceError{Class: pipeline.Stopped, Code: "slot_lost", What: "the slot is gone", Cure: "re-create it"}
	src := pipetest.NewScriptedSource()
	src.OpenErr = stopped
	if err := run(t, Config{Source: src, Log: pipetest.NewMemoryLog("log", 100)}, at(9)); !errors.Is(err, stopped) {
		t.Fatalf("got %v", err)
	}
	l := pipetest.NewMemoryLog("log", 100)
	l.Fail(errors.New("fsync: input/output error"))
	if err := Run(t.Context(), Config{Name: "files", Source: pipetest.NewScriptedSource(), Log: l, Form: pipetest.PGForm}); err == nil {
		t.Fatal("a failed log does not end the run")
	}
}

func TestNoAllocationPerRow(t *testing.T) {
	files := sourceTable("files")
	r := newRows(Config{Log: pipetest.NewMemoryLog("log", 1), Form: intForm})
	var changes []pipetest.Change
	for i := range 500 {
		changes = append(changes, pipetest.Change{Op: pipeline.OpUpdate, Table: files, Before: pipetest.Row{fmt.Sprint(i), "1", "old"}, After: pipetest.Row{fmt.Sprint(i), "2", "new"}})
	}
	b := pipetest.Build(at(1), epoch, changes)
	b.Arena = append(make([]byte, 0, 1<<20), b.Arena...)
	arena, tables := len(b.Arena), append([]*schemas.Table(nil), b.Tables...)
	n := testing.AllocsPerRun(20, func() {
		b.Arena, b.Tables = b.Arena[:arena], append(b.Tables[:0], tables...)
		r.prepare(b)
	})
	if n > 2 {
		t.Fatalf("%v allocations for 500 rows", n)
	}
}

// intForm is PGForm with an integer decoder that allocates nothing.
func intForm(t *schemas.Table) *cell.Form {
	f := pipetest.PGForm(t)
	f.Decode[0] = func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
		n := uint64(0)
		for _, c := range raw {
			n = n*10 + uint64(c-'0')
		}
		*v = cell.Value{Kind: schemas.KindInt, Bits: 64, N: n}
		return nil
	}
	return f
}

func BenchmarkPrepare(b *testing.B) {
	files := sourceTable("files")
	r := newRows(Config{Log: pipetest.NewMemoryLog("log", 1), Form: intForm})
	var changes []pipetest.Change
	for i := range 1000 {
		changes = append(changes, pipetest.Change{Op: pipeline.OpInsert, Table: files, After: pipetest.Row{fmt.Sprint(i), "2", "new"}})
	}
	batch := pipetest.Build(at(1), epoch, changes)
	arena, tables := len(batch.Arena), append([]*schemas.Table(nil), batch.Tables...)
	b.ReportAllocs()
	for b.Loop() {
		batch.Arena, batch.Tables = batch.Arena[:arena], append(batch.Tables[:0], tables...)
		r.prepare(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/row")
}
