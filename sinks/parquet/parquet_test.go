package parquet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	pq "github.com/parquet-go/parquet-go"
	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options(t *testing.T, path string) Options {
	return Options{Subscription: "lake", Source: "files", Path: path, Stage: filepath.Join(t.TempDir(), "stage"), RollBytes: 1 << 20, RollAge: 20 * time.Millisecond,
		Encoder: encode.Proto(encode.Options{Source: "files", Form: pipetest.PGForm})}
}

func newSink(t *testing.T, o Options) *Sink {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// settled waits until everything that was delivered stands in files.
func settled(t *testing.T, s *Sink) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-look.C {
		s.mu.Lock()
		done, err := s.stage == nil && len(s.waiting) == 0, s.trouble
		s.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("stages do not become files: %v", err)
		}
	}
}

// listed reads the offsets of all files that manifests list, and what else stands there.
func listed(t *testing.T, st store) (offsets []uint64, last Manifest) {
	t.Helper()
	names, err := st.list(t.Context(), manifests)
	if err != nil {
		t.Fatal(err)
	}
	s := &Sink{store: st}
	for _, name := range names {
		if _, ok := manifestSeq(name); !ok {
			continue
		}
		m, err := s.manifest(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Files {
			n := len(offsets)
			if err := s.offsets(t.Context(), f.Path, func(o uint64) {
				if offsets = append(offsets, o); o < f.First || o > f.Last {
					t.Errorf("%s: %d is not within %d to %d", f.Path, o, f.First, f.Last)
				}
			}); err != nil {
				t.Fatal(err)
			}
			if len(offsets)-n != f.Rows {
				t.Errorf("%s has %d offsets, the manifest says %d rows", f.Path, len(offsets)-n, f.Rows)
			}
		}
		last = m
	}
	return offsets, last
}

func TestItConforms(t *testing.T) {
	pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
		o := options(t, t.TempDir())
		s := newSink(t, o)
		return pipetest.SinkRig{Sink: s, Received: func() (got []pipeline.Offset) {
			settled(t, s)
			offsets, _ := listed(t, s.store)
			for _, o := range offsets {
				got = append(got, pipeline.Offset(o))
			}
			return got
		}}
	})
}

func batch(n int) *pipeline.Batch {
	table := pipetest.FilesTable("files")
	var tx []pipetest.Change
	for i := range n {
		tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: table, After: pipetest.Row{fmt.Sprint(i), "1", "/ä"}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 1}, time.Date(2026, 11, 21, 23, 59, 59, 0, time.UTC), tx)
	b.Base = 1000
	return b
}

func delivery(b *pipeline.Batch, from, to int, reason pipeline.Reason) *pipeline.Delivery {
	return &pipeline.Delivery{Subscription: "lake", Source: "files", Attempt: 1, Reason: reason, Events: to - from, Runs: []pipeline.Run{{Batch: b, From: uint32(from), To: uint32(to)}}}
}

// TestKilledAnywhere: the process ends at any point, also within a write and while files are made; what was not reported
// as done comes again, and in the end each event stands in the listed files once.
func TestKilledAnywhere(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 3))
			o := options(t, t.TempDir())
			const n = 400
			b := batch(n)
			var done [n]bool
			low := func() int {
				if i := slices.Index(done[:], false); i >= 0 {
					return i
				}
				return n
			}
			for low() < n {
				s := newSink(t, o)
				from := max(0, low()-r.IntN(20)) // a cursor is saved now and then
				s.Resume(pipeline.Cursor{Low: b.Base + pipeline.Offset(from)})
				for range 1 + r.IntN(6) {
					to := min(n, from+1+r.IntN(40))
					if from == to {
						break
					}
					if _, err := s.Deliver(t.Context(), delivery(b, from, to, pipeline.ReasonReclaim)); err != nil {
						t.Fatal(err)
					}
					if r.IntN(4) > 0 { // else the crash comes before anybody heard of it
						for i := from; i < to; i++ {
							done[i] = true
						}
					}
					if from = to; r.IntN(3) == 0 {
						settled(t, s)
					}
				}
				s.Close()
				harm(t, r, o.Stage)
			}
			s := newSink(t, o)
			s.Resume(pipeline.Cursor{Low: b.Base, Resolved: b.Base + n})
			if _, err := s.Deliver(t.Context(), delivery(b, 0, n, pipeline.ReasonReclaim)); err != nil {
				t.Fatal(err)
			}
			settled(t, s)
			offsets, last := listed(t, s.store)
			slices.Sort(offsets)
			if len(offsets) != n || offsets[0] != 1000 || len(slices.Compact(offsets)) != n || last.Complete > 1000+n {
				t.Fatalf("%d offsets, %d of them different: %+v", len(offsets), len(slices.Compact(offsets)), last)
			}
			if left, _ := filepath.Glob(filepath.Join(o.Path, "*", "*", ".*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// harm appends to the newest stage what a write leaves that was torn off.
func harm(t *testing.T, r *rand.Rand, folder string) {
	t.Helper()
	left, err := stages(folder)
	if err != nil || len(left) == 0 || r.IntN(2) == 0 {
		return
	}
	f, err := os.OpenFile(stageName(folder, left[len(left)-1]), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	torn := make([]byte, r.IntN(64))
	for i := range torn {
		torn[i] = byte(r.IntN(256))
	}
	if _, err := f.Write(torn); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestADamagedStage: what is not at the end of a stage was reported as delivered, so nothing is cut off, and nothing is
// said to be complete.
func TestADamagedStage(t *testing.T) {
	o := options(t, t.TempDir())
	o.RollAge = time.Hour
	b := batch(30)
	s := newSink(t, o)
	for i := range 3 {
		if _, err := s.Deliver(t.Context(), delivery(b, 10*i, 10*i+10, 0)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	name := stageName(o.Stage, 1)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	third := bytes.LastIndex(whole, whole[len(stageMagic):len(stageMagic)+idSize])
	for _, at := range []int{len(stageMagic) + 1, headSize - 1, headSize, headSize + idSize + 3, headSize + frameHead - 1, headSize + frameHead + 50, third - 1} {
		bad := slices.Clone(whole)
		bad[at] ^= 0x10
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSink(t, o)
		if _, err := s.Deliver(t.Context(), delivery(b, 29, 30, pipeline.ReasonReclaim)); err == nil || !strings.Contains(err.Error(), name+" is damaged at byte ") {
			t.Errorf("byte %d of %d: %v", at, len(whole), err)
		}
		if _, err := sortStage(name, int64(len(bad)), 0); err == nil {
			t.Errorf("byte %d of %d is not missed when files are made", at, len(whole))
		}
		if left, err := os.ReadFile(name); err != nil || !bytes.Equal(left, bad) {
			t.Errorf("byte %d of %d: the stage is another one: %v", at, len(whole), err)
		}
	}
	for _, n := range []int{third, third + 5, len(whole) - 1} { // torn, where more was delivered
		if err := os.WriteFile(name, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := sortStage(name, int64(len(whole)), 0); err == nil {
			t.Errorf("%d bytes of %d are not missed when files are made", n, len(whole))
		}
		if st, err := reopen(o.Stage, 1, true, func(frame) {}); err != nil || st.size != int64(third) {
			t.Errorf("torn at %d: %v", n, err)
		} else {
			st.f.Close()
		}
	}
}

// TestAnotherPath: a stage that is left when the path changes becomes files of the new one, whatever stands there.
func TestAnotherPath(t *testing.T) {
	a, b := options(t, t.TempDir()), batch(80)
	a.RollAge = 10 * time.Millisecond
	other := a
	other.Path = t.TempDir()
	deliver := func(o Options, from int, settle bool) {
		t.Helper()
		if !settle {
			o.RollAge = time.Hour
		}
		s := newSink(t, o)
		s.Resume(pipeline.Cursor{Low: b.Base + pipeline.Offset(from)})
		if _, err := s.Deliver(t.Context(), delivery(b, from, from+10, 0)); err != nil {
			t.Fatal(err)
		}
		if settle {
			settled(t, s)
		}
		s.Close()
	}
	for i := range 3 {
		deliver(a, 10*i, true)
	}
	for i := 3; i < 5; i++ {
		deliver(other, 10*i, true) // 1, 2 there
	}
	deliver(other, 50, false) // 3: also a manifest of a
	deliver(a, 60, true)
	here, _ := listed(t, folder(a.Path))
	there, _ := listed(t, folder(other.Path))
	all := append(here, there...)
	slices.Sort(all)
	if len(all) != 70 || len(slices.Compact(all)) != 70 {
		t.Errorf("%d events stand in both, of 70: %v and %v", len(all), here, there)
	}
}

// TestARedriveComesAgain: after a crash that forgot that it was delivered, also when it stands in files by then.
func TestARedriveComesAgain(t *testing.T) {
	o, b := options(t, t.TempDir()), batch(40)
	for i, age := range []time.Duration{time.Hour, time.Millisecond, time.Millisecond} {
		o.RollAge = age
		s := newSink(t, o)
		s.Resume(pipeline.Cursor{Low: b.Base + 40})
		for _, d := range []*pipeline.Delivery{delivery(b, 3, 8, pipeline.ReasonRedrive), delivery(b, 10+i, 11+i, pipeline.ReasonRedrive)} {
			if _, err := s.Deliver(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		if i > 0 {
			settled(t, s)
		}
		s.Close()
	}
	if offsets, _ := listed(t, folder(o.Path)); len(offsets) != 8 {
		t.Errorf("8 events were redriven: %v", offsets)
	}
}

// TestComplete: what is complete is said also when nothing comes, with the time of the last commit.
func TestComplete(t *testing.T) {
	o, b := options(t, t.TempDir()), batch(10)
	s := newSink(t, o)
	if _, err := s.Deliver(t.Context(), delivery(b, 0, 10, 0)); err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	if _, m := listed(t, s.store); m.Complete != 0 || !m.CompleteTime.IsZero() {
		t.Errorf("before anything was said: %+v", m)
	}
	if err := s.Resolve(t.Context(), 5000, time.Now()); err != nil {
		t.Fatal(err)
	}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-look.C {
		if _, m := listed(t, s.store); m.Complete == 5000 && len(m.Files) == 0 && m.CompleteTime.Equal(time.Date(2026, 11, 21, 23, 59, 59, 0, time.UTC)) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the newest manifest is %+v", m)
		}
	}
	s.Close()
	s = newSink(t, o)
	s.Resume(pipeline.Cursor{Low: 5000, Resolved: 5000})
	b.Base = 6000
	if _, err := s.Deliver(t.Context(), delivery(b, 0, 10, 0)); err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	if _, m := listed(t, s.store); m.Sequence != 3 || m.Complete != 5000 || m.CompleteTime.IsZero() || m.High != 6009 {
		t.Errorf("after a start: %+v", m)
	}
}

// TestManyTables: events of tables that take turns are each read where they stand, and long names have a folder.
func TestManyTables(t *testing.T) {
	o := options(t, t.TempDir())
	tables := []*schemas.Table{pipetest.FilesTable("a"), pipetest.FilesTable("b"), pipetest.FilesTable(strings.Repeat("ü", 63))}
	var tx []pipetest.Change
	for i := range 300 {
		tables[i%3].ID = uint32(1 + i%3)
		tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: tables[i%3], After: pipetest.Row{fmt.Sprint(i), "1", strings.Repeat("x", 1000*(i%7))}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 1}, time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), tx)
	b.Base = 3000
	o.RollAge = time.Hour
	s := newSink(t, o)
	for _, from := range []int{0, 100, 200} {
		if from == 200 {
			s.o.RollBytes = 1
		}
		if _, err := s.Deliver(t.Context(), delivery(b, from, from+100, 0)); err != nil {
			t.Fatal(err)
		}
	}
	settled(t, s)
	offsets, last := listed(t, s.store)
	slices.Sort(offsets)
	if len(slices.Compact(offsets)) != 300 || len(last.Files) != 3 {
		t.Fatalf("%d offsets in %+v", len(offsets), last.Files)
	}
	for _, f := range last.Files {
		if err := s.offsets(t.Context(), f.Path, func(o uint64) {
			if uint32(o%3)+1 != f.TableID {
				t.Errorf("%s has offset %d", f.Path, o)
			}
		}); err != nil {
			t.Error(err)
		}
	}
	if f := last.Files[0]; f.Table == "public.a" {
		f = last.Files[2]
		if !strings.HasPrefix(f.Table, "public.%C3%BC") || len(f.Table) < 300 || len(strings.Split(f.Path, "/")[0]) > 255 {
			t.Errorf("a long name: %+v", f)
		}
	}
}

// TestAFolderOfItsOwn: two subscriptions do not share one.
func TestAFolderOfItsOwn(t *testing.T) {
	o := options(t, t.TempDir())
	s := newSink(t, o)
	b := batch(1)
	if _, err := s.Deliver(t.Context(), delivery(b, 0, 1, 0)); err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	other := options(t, o.Path)
	other.Subscription = "sea"
	var de *pipeline.DeliveryError
	if _, err := newSink(t, other).Deliver(t.Context(), delivery(b, 0, 1, 0)); !errors.As(err, &de) || de.Class != pipeline.Unavailable || !strings.Contains(de.Reason, "a folder of its own") {
		t.Errorf("two in one folder: %v", err)
	}
}

// TestABucket: the same in S3; a bucket that is not there, or refuses, holds the subscription and says why.
func TestABucket(t *testing.T) {
	backend := s3mem.New()
	var refuses atomic.Bool
	fake := gofakes3.New(backend).Server()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuses.Load() && r.Method == http.MethodPut {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code></Error>")
			return
		}
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	o := options(t, "s3://lake/files")
	o.S3 = S3{Endpoint: srv.URL, Region: "us-east-1", AccessKey: "key", SecretKey: "secret"}
	if err := Check(t.Context(), o.Path, o.S3); err == nil || !strings.Contains(err.Error(), "no bucket lake") {
		t.Errorf("check without a bucket: %v", err)
	}
	s := newSink(t, o)
	b := batch(10)
	if _, err := s.Deliver(t.Context(), delivery(b, 0, 5, 0)); err == nil || !strings.Contains(err.Error(), "no bucket lake") || strings.Contains(err.Error(), "secret") {
		t.Errorf("deliver without a bucket: %v", err)
	}
	if err := backend.CreateBucket("lake"); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.PutObject("lake", "files/_manifest/", nil, strings.NewReader(""), 0, nil); err != nil { // some tools' folder
		t.Fatal(err)
	}
	if _, err := s.Deliver(t.Context(), delivery(b, 0, 5, 0)); err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	s.Close()
	s = newSink(t, o)
	s.Resume(pipeline.Cursor{Low: b.Base + 3})
	if _, err := s.Deliver(t.Context(), delivery(b, 3, 10, pipeline.ReasonReclaim)); err != nil {
		t.Fatal(err)
	}
	settled(t, s)
	if offsets, _ := listed(t, s.store); len(offsets) != 10 {
		t.Errorf("offsets %v", offsets)
	}
	refuses.Store(true)
	if err := Check(t.Context(), o.Path, o.S3); err == nil || !strings.Contains(err.Error(), "s3:PutObject") {
		t.Errorf("a bucket that takes nothing: %v", err)
	}
	refuses.Store(false)
	if err := Check(t.Context(), o.Path, o.S3); err != nil {
		t.Error(err)
	}
	for _, bad := range []struct{ path, endpoint string }{{"s3://", ""}, {"s3://lake", "127.0.0.1:9000"}} {
		if err := Check(context.Background(), bad.path, S3{Endpoint: bad.endpoint}); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

// TestRows: values that their types cannot hold stand in _text, and the schema keeps the table's order.
func TestRows(t *testing.T) {
	col := func(name string, kind leatv1.Kind, bits uint32, typ string) *leatv1.Column {
		return &leatv1.Column{Name: name, Kind: kind, Bits: bits, Type: typ}
	}
	table := &leatv1.Table{Id: 1, Version: 1, Subject: "public.t", Identity: []string{"z"}, Columns: []*leatv1.Column{col("z", leatv1.Kind_KIND_INT, 32, "integer"),
		col("_op", leatv1.Kind_KIND_TEXT, 0, "text"), col("money", leatv1.Kind_KIND_DECIMAL, 0, "numeric(12,3)"), col("day", leatv1.Kind_KIND_DATE, 0, "date"), col("list", leatv1.Kind_KIND_ARRAY, 0, "integer[]")}}
	table.Columns[4].Elem = leatv1.Kind_KIND_INT
	p := newPlan(table)
	if got := strings.Join(strings.Fields(p.schema.String()), " "); strings.Index(got, "int32 z") > strings.Index(got, "day") || !strings.Contains(got, "_op_") {
		t.Errorf("schema: %s", got)
	}
	integer := func(n int64) *leatv1.Value { return &leatv1.Value{Kind: &leatv1.Value_Integer{Integer: n}} }
	array := func(v ...*leatv1.Value) *leatv1.Value {
		return &leatv1.Value{Kind: &leatv1.Value_Array{Array: &leatv1.Array{Values: v}}}
	}
	null := &leatv1.Value{Kind: &leatv1.Value_Null{Null: true}}
	after := func(v ...*leatv1.Value) *leatv1.Event {
		return &leatv1.Event{Offset: 7, TimeMicros: 1, After: &leatv1.Row{Values: v}}
	}
	events := []*leatv1.Event{
		after(integer(1), &leatv1.Value{Kind: &leatv1.Value_Text{Text: "x"}}, &leatv1.Value{Kind: &leatv1.Value_Decimal{Decimal: "-12.5"}}, &leatv1.Value{Kind: &leatv1.Value_DateDays{DateDays: 3}}, array(integer(1), null)),
		after(integer(2), null, &leatv1.Value{Kind: &leatv1.Value_Decimal{Decimal: "NaN"}}, &leatv1.Value{Kind: &leatv1.Value_Text{Text: "infinity"}}, array(array(integer(1)))),
		after(integer(3), &leatv1.Value{Kind: &leatv1.Value_Absent{Absent: true}}, null, null, array()),
		{Offset: 8, Key: []*leatv1.Value{integer(4)}},
	}
	path := filepath.Join(t.TempDir(), "t.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := pq.NewGenericWriter[any](f, p.schema)
	for _, e := range events {
		r, err := p.row(e, "insert")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteRows([]pq.Row{r}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r := pq.NewGenericReader[map[string]any](in, p.schema)
	defer r.Close()
	rows := make([]map[string]any, 4)
	for i := range rows {
		rows[i] = map[string]any{}
	}
	if n, err := r.Read(rows); n != 4 || err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(n, err)
	}
	text, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"z":1`, `"_op_":"x"`, `"z":4`, `"aW5maW5pdHk="`, `"TmFO"`, `"W1sxXV0="`, `"_absent":["_op_"]`, `"money":"-12.5"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}

// TestColumns: those called as folders are have other names, also in another case, and a key that the subscription leaves
// out is left out.
func TestColumns(t *testing.T) {
	text := func(name string) *leatv1.Column {
		return &leatv1.Column{Name: name, Kind: leatv1.Kind_KIND_TEXT, Type: "text"}
	}
	p := newPlan(&leatv1.Table{Id: 1, Identity: []string{"hidden", "id"}, Columns: []*leatv1.Column{text("Date"), text("date_"), text("table"), text("id"), text("ID"),
		{Name: "real", Kind: leatv1.Kind_KIND_ARRAY, Elem: leatv1.Kind_KIND_FLOAT, Type: "real[]"}}})
	var names []string
	for _, c := range p.columns {
		names = append(names, c.name)
	}
	if got := strings.Join(names, " "); got != "Date_ date__ table_ id ID_ real" {
		t.Errorf("columns %s", got)
	}
	value := func(s string) *leatv1.Value { return &leatv1.Value{Kind: &leatv1.Value_Text{Text: s}} }
	row, err := p.row(&leatv1.Event{Offset: 1, Key: []*leatv1.Value{value("secret"), value("7")}}, "delete")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(row); strings.Contains(got, "secret") || !strings.Contains(got, "7") {
		t.Errorf("row %s", got)
	}
	reals := &leatv1.Value{Kind: &leatv1.Value_Array{Array: &leatv1.Array{Values: []*leatv1.Value{{Kind: &leatv1.Value_Float32{Float32: 1.5}}}}}}
	for _, typ := range []string{"real[]", "some domain"} {
		_, col := columnOf(&leatv1.Column{Kind: leatv1.Kind_KIND_ARRAY, Elem: leatv1.Kind_KIND_FLOAT, Type: typ})
		var c cells
		if why := c.column(&col, reals); why != "" || fmt.Sprint(c.row[0]) != "1.5" {
			t.Errorf("%s: %q %v", typ, why, c.row)
		}
	}
}

// FuzzStage: whatever stands in a stage, reading it ends, and gives nothing that is not whole.
func FuzzStage(f *testing.F) {
	dir := f.TempDir()
	st, err := newStage(dir, 1, time.UnixMicro(5))
	if err != nil {
		f.Fatal(err)
	}
	if err := st.append(&leatv1.Events{Source: "files", Tables: []*leatv1.Table{{Id: 1, Version: 1}}}, nil, false); err != nil {
		f.Fatal(err)
	}
	st.f.Close()
	good, err := os.ReadFile(stageName(dir, 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add([]byte(stageMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := readStage(path, func(f frame) error { _, err := f.extents(); return err }); err == nil && c.whole > int64(len(data)) {
			t.Errorf("%d of %d bytes are whole", c.whole, len(data))
		}
	})
}
