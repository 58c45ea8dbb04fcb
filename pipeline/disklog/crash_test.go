package disklog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
	"github.com/leat-cdc/leat/schemas"
)

// unit is what one Append makes visible: a batch of rows, or a whole transaction of chunks. end is set
// when it gives a position.
type unit struct {
	ticket uint64
	base   pipeline.Offset
	events []string
	end    pipeline.Position
	// prepares and finishes name the transaction that was prepared, and that ended after it had been.
	prepares, finishes string
}

// line is an event of a transaction whose place is not known yet.
type line func(index uint32, last bool, id, pos string, time int64) string

// model is what the test knows of a log: everything appended, in order, and how much of it was synced.
type model struct {
	units  []unit
	synced int // units reported durable
	seed   uint64
	tables map[uint32]uint32 // newest version used
	lines  map[string][]line // of those that were prepared
	// idle are those that were begun in this life and have not ended; the source sends them again in the next.
	idle map[string][]line
	// patient: those that idle or were prepared do not end.
	patient bool
}

// waiting are the transactions that were prepared and have not ended.
func (m *model) waiting() (names []string) {
	for _, u := range m.units {
		if u.prepares != "" {
			names = append(names, u.prepares)
		}
		if u.finishes != "" {
			names = slices.DeleteFunc(names, func(n string) bool { return n == u.finishes })
		}
	}
	return names
}

func table(id, version uint32) *schemas.Table {
	return (&schemas.Table{ID: id, Version: version, Schema: "s", Name: fmt.Sprint("t", id), Wire: schemas.WirePGText,
		Columns: []schemas.Column{{Name: fmt.Sprint("c", version), Type: schemas.Type{Kind: schemas.KindInt, Name: "int", Bits: 32}}}}).Seal()
}

func build(t *rapid.T, m *model, b *pipeline.Batch, txs int) {
	for range txs {
		m.seed++
		id := uint32(rapid.IntRange(1, 3).Draw(t, "table"))
		version := max(1, m.tables[id])
		if rapid.IntRange(0, 9).Draw(t, "alter") == 0 {
			version++
		}
		m.tables[id] = version
		ti, err := b.TableIndex(table(id, version))
		if err != nil {
			t.Fatal(err)
		}
		b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString(fmt.Sprint("x", m.seed)), Position: b.PutString(fmt.Sprint("p", m.seed)), Time: int64(m.seed), First: uint32(len(b.Events)), Ends: true})
		for i := range rapid.IntRange(1, 4).Draw(t, "events") {
			after := b.Put(bytes.Repeat([]byte{byte(m.seed), byte(i)}, rapid.IntRange(0, 700).Draw(t, "size")))
			b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpInsert, Table: ti, Tx: uint32(len(b.Txs) - 1), Hash: m.seed, Key: b.PutString("k"), Before: pipeline.Nowhere, After: after})
		}
	}
}

func texts(b *pipeline.Batch) (out []string) {
	for i := range b.Events {
		e := &b.Events[i]
		tx := &b.Txs[e.Tx]
		seq, last := b.Seq(i)
		tab := b.TableOf(i)
		out = append(out, fmt.Sprintf("%d/%d %v %d %q %q %q %q %d %d %v", tab.ID, tab.Version, e.Op, e.Hash, b.Bytes(e.Key), b.Bytes(e.After), b.Bytes(tx.ID), b.Bytes(tx.Position), tx.Time, seq, last))
	}
	return out
}

// pusher appends to the log; false when it has failed.
func (m *model) pusher(t *rapid.T, l *disklog.Log) func(*pipeline.Batch) (uint64, bool) {
	return func(b *pipeline.Batch) (uint64, bool) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		ticket, err := l.Append(ctx, b)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("append hangs")
		}
		return ticket, err == nil
	}
}

// appendOne appends a random batch; false when the log has failed.
func (m *model) appendOne(t *rapid.T, l *disklog.Log) bool {
	push := m.pusher(t, l)
	b := pipeline.NewBatch()
	u := unit{}
	kinds := []int{0, 1, 2, 3, 4, 5, 6, 7}
	if m.patient {
		kinds = []int{0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5, 3, 4, 5, 3, 4, 5}
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case 0: // a position
		m.seed++
		b.End = pipeline.Position{Counter: m.seed, Token: fmt.Sprint("idle", m.seed)}
		u.end = b.End
	case 6: // one that was prepared ends
		b.Release()
		if names := m.waiting(); len(names) > 0 {
			name := names[rapid.IntRange(0, len(names)-1).Draw(t, "name")]
			return !m.end(name, name, m.lines[name], nil, rapid.Bool().Draw(t, "roll back"), push)
		}
		return true
	case 7: // one that has idled ends
		b.Release()
		return m.endIdle(t, push)
	case 1, 2: // a large transaction
		if m.large(t, l, b, push) {
			return false
		}
		return true
	default:
		build(t, m, b, rapid.IntRange(1, 3).Draw(t, "txs"))
		b.End = pipeline.Position{Counter: m.seed, Token: fmt.Sprint("end", m.seed)}
		u.events, u.end = texts(b), b.End
	}
	b.Retain()
	defer b.Release()
	ticket, ok := push(b)
	if !ok {
		return false
	}
	u.ticket, u.base = ticket, b.Base
	m.units = append(m.units, u)
	return true
}

// large appends a transaction of chunks, committed or aborted; true when the log failed.
func (m *model) large(t *rapid.T, l *disklog.Log, first *pipeline.Batch, push func(*pipeline.Batch) (uint64, bool)) bool {
	first.Release()
	m.seed++
	name := fmt.Sprint("open", m.seed)
	abort := rapid.IntRange(0, 3).Draw(t, "abort") == 0
	var all []line
	var without []uint32 // parts 5, 6, … that are rolled back
	for p := range uint32(3) {
		if rapid.IntRange(0, 2).Draw(t, "rolled back") == 0 && !m.patient { // else it could not be prepared
			without = append(without, 5+p)
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "chunks") {
		b := pipeline.NewBatch()
		b.Kind, b.Open = pipeline.BatchChunk, name
		build(t, m, b, rapid.IntRange(1, 3).Draw(t, "runs"))
		for i := range b.Txs {
			if b.Txs[i].Ends = false; len(b.Txs) > 1 {
				b.Txs[i].Part = 5 + uint32(rapid.IntRange(-1, 2).Draw(t, "part"))
			}
		}
		for i := range b.Events {
			e := b.Events[i]
			if slices.Contains(without, b.Txs[e.Tx].Part) {
				continue
			}
			tab := b.TableOf(i)
			after := string(b.Bytes(e.After))
			all = append(all, func(index uint32, last bool, id, pos string, time int64) string {
				return fmt.Sprintf("%d/%d %v %d %q %q %q %q %d %d %v", tab.ID, tab.Version, e.Op, e.Hash, "k", after, id, pos, time, index, last)
			})
		}
		if _, ok := push(b); !ok {
			return true
		}
	}
	if len(without) == 0 && rapid.IntRange(0, 3).Draw(t, "idle") == 0 {
		m.idle[name] = all
		return false
	}
	if rapid.IntRange(0, 2).Draw(t, "prepare") == 0 {
		m.seed++
		b := pipeline.NewBatch()
		b.Kind, b.Open, b.End = pipeline.BatchPrepared, name, pipeline.Position{Counter: m.seed, Token: name}
		if m.lines == nil {
			m.lines = map[string][]line{}
		}
		if m.lines[name] = all; len(without) > 0 {
			abort = true // parts are not prepared
		} else {
			return m.push(b, unit{prepares: name, end: b.End}, push)
		}
		b.Release()
	}
	return m.end(name, "", all, without, abort, push)
}

// endIdle ends one of those that idle; false when the log failed.
func (m *model) endIdle(t *rapid.T, push func(*pipeline.Batch) (uint64, bool)) bool {
	for _, name := range slices.Sorted(maps.Keys(m.idle)) {
		all := m.idle[name]
		delete(m.idle, name)
		return !m.end(name, "", all, nil, rapid.Bool().Draw(t, "roll back"), push)
	}
	return true
}

// end appends the commit or abort of a transaction of chunks; true when the log failed.
func (m *model) end(name, finishes string, all []line, without []uint32, abort bool, push func(*pipeline.Batch) (uint64, bool)) bool {
	b := pipeline.NewBatch()
	b.Kind, b.Open = pipeline.BatchCommit, name
	m.seed++
	u := unit{finishes: finishes}
	if abort {
		b.Kind = pipeline.BatchAbort
	} else {
		b.Without = without
		b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString(name), Position: b.PutString("cp"), Time: int64(m.seed)})
		b.End = pipeline.Position{Counter: m.seed, Token: name}
		u.end = b.End
		for i, f := range all {
			u.events = append(u.events, f(uint32(i)+1, i == len(all)-1, name, "cp", int64(m.seed)))
		}
	}
	return m.push(b, u, push)
}

func (m *model) push(b *pipeline.Batch, u unit, push func(*pipeline.Batch) (uint64, bool)) bool {
	b.Retain()
	defer b.Release()
	ticket, ok := push(b)
	if !ok {
		return true
	}
	u.ticket, u.base = ticket, b.Base
	m.units = append(m.units, u)
	return false
}

// note takes over what the log reports durable.
func (m *model) note(s pipeline.Synced) {
	for m.synced < len(m.units) && m.units[m.synced].ticket <= s.Ticket {
		m.synced++
	}
}

// contents are the events from the oldest that are kept up to next.
func contents(l *disklog.Log, next pipeline.Offset) (oldest pipeline.Offset, got map[pipeline.Offset]string, err error) {
	oldest, _ = l.Bounds()
	got = map[pipeline.Offset]string{}
	r, err := l.Read(oldest)
	if err != nil {
		return oldest, nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for at := oldest; at < next; {
		b, err := r.Next(ctx)
		if err != nil {
			return oldest, nil, fmt.Errorf("read at %d of %d: %w", at, next, err)
		}
		if b.Base != at {
			return oldest, nil, fmt.Errorf("batch at %d where %d follows", b.Base, at)
		}
		for i, s := range texts(b) {
			got[b.Offset(i)] = s
		}
		at = b.Next()
		b.Release()
	}
	return oldest, got, nil
}

// check compares a reopened log with the model: everything synced is there, what follows is a prefix of
// what was appended; and cuts the model to it. False when the machine crashed meanwhile.
func (m *model) check(t *rapid.T, l *disklog.Log, fsys *faultfs.FS) bool {
	_, next := l.Bounds()
	oldest, got, err := contents(l, next)
	for gone := (*pipeline.TruncatedError)(nil); errors.As(err, &gone); gone = nil { // retention works meanwhile
		oldest, got, err = contents(l, next)
	}
	if err != nil && fsys.Down() {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	now, stop := context.WithCancel(context.Background())
	stop()
	durable, _ := l.Synced(now, 0) // what was recovered, without waiting
	kept, last := 0, pipeline.Position{}
	for _, u := range m.units {
		if u.ticket > durable.Ticket {
			break
		}
		for i, s := range u.events {
			if o := u.base + pipeline.Offset(i); o >= oldest && got[o] != s {
				t.Fatalf("offset %d:\n got %s\nwant %s", o, got[o], s)
			}
		}
		kept++
		if !u.end.Zero() {
			last = u.end
		}
	}
	if kept < m.synced {
		t.Fatalf("%d appends were reported durable, %d are there", m.synced, kept)
	}
	if l.Last() != last {
		t.Fatalf("last %v, want %v (of %d kept)", l.Last(), last, kept)
	}
	if kept > 0 {
		if u := m.units[kept-1]; u.base+pipeline.Offset(len(u.events)) != next {
			t.Fatalf("the last of %d kept appends ends at %d, the log at %d", kept, u.base+pipeline.Offset(len(u.events)), next)
		}
	}
	m.units = m.units[:kept]
	m.synced = kept
	return true
}

func options(fsys *faultfs.FS, t *rapid.T) disklog.Options {
	return disklog.Options{Dir: filepath.Join("data", "log"), Source: "db", FS: fsys, SegmentSize: 16 << 10,
		Memory:    int64(rapid.SampledFrom([]int{1, 8 << 10, 1 << 20}).Draw(t, "memory")),
		Retention: disklog.Retention{Size: int64(rapid.SampledFrom([]int{0, 60 << 10}).Draw(t, "retention"))}}
}

func TestCrashAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fsys := faultfs.New(rapid.Uint64().Draw(t, "seed"))
		m := &model{tables: map[uint32]uint32{}}
		opt := options(fsys, t)
		for range rapid.IntRange(2, 4).Draw(t, "lives") {
			fault := rapid.IntRange(0, 9).Draw(t, "fault")
			if fault < 8 {
				fsys.CrashAt(rapid.IntRange(0, 60).Draw(t, "crash"))
			}
			m.idle = map[string][]line{}
			l, err := disklog.Open(opt)
			if err != nil {
				if !fsys.Down() {
					t.Fatalf("open: %v", err)
				}
				fsys.Restart()
				continue
			}
			if !m.check(t, l, fsys) {
				_ = l.Close()
				fsys.Restart()
				continue
			}
			if fault == 8 {
				fsys.FailSyncs(1)
			}
			for range rapid.IntRange(0, 25).Draw(t, "appends") {
				if !m.appendOne(t, l) {
					break
				}
				if rapid.Bool().Draw(t, "wait") && len(m.units) > 0 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					s, err := l.Synced(ctx, m.units[len(m.units)-1].ticket-1)
					cancel()
					if errors.Is(err, context.DeadlineExceeded) {
						t.Fatal("synced hangs")
					}
					if err == nil {
						m.note(s)
					}
				}
			}
			now, cancel := context.WithCancel(context.Background())
			cancel()
			if s, err := l.Synced(now, 0); err == nil { // what is durable already
				m.note(s)
			}
			if rapid.Bool().Draw(t, "hard") {
				fsys.Crash()
			}
			err = l.Close()
			if err == nil {
				m.synced = len(m.units)
			}
			if rapid.Bool().Draw(t, "cut") {
				fsys.Crash()
			}
			if fsys.Down() {
				fsys.Restart()
			}
			fsys.CrashAt(-1)
		}
		l, err := disklog.Open(opt)
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		m.check(t, l, fsys)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
