package record

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

var update = flag.Bool("update", false, "write the golden files anew")

func shape(id, version uint32) *schemas.Table {
	return (&schemas.Table{ID: id, Version: version, Schema: "public", Name: "files", Wire: schemas.WirePGText,
		Columns:  []schemas.Column{{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Name: "bigint", Bits: 64}}},
		Identity: []int{0}, Routing: []int{0}, KeySpace: "files"}).Seal()
}

func resolve(id, version uint32) *schemas.Table { return shape(id, version) }

func drawBatch(t *rapid.T) (*pipeline.Batch, []Chunk) {
	b := new(pipeline.Batch)
	b.Kind = pipeline.BatchKind(rapid.IntRange(0, 3).Draw(t, "kind"))
	b.Open = rapid.String().Draw(t, "open")
	for i := range rapid.IntRange(1, 4).Draw(t, "tables") {
		b.Tables = append(b.Tables, shape(uint32(i+1), uint32(rapid.IntRange(1, 9).Draw(t, "version"))))
	}
	piece := func(name string) pipeline.Span {
		switch rapid.IntRange(0, 3).Draw(t, name) {
		case 0:
			return pipeline.Nowhere
		case 1:
			return pipeline.Span{Off: uint32(len(b.Arena))}
		}
		return b.Put(rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "bytes"))
	}
	var chunks []Chunk
	switch b.Kind {
	case pipeline.BatchRows, pipeline.BatchChunk:
		for tx := range rapid.IntRange(0, 4).Draw(t, "txs") {
			b.Txs = append(b.Txs, pipeline.Tx{ID: piece("id"), Position: piece("pos"), Time: rapid.Int64().Draw(t, "time"), First: uint32(len(b.Events)),
				Before: rapid.Uint32().Draw(t, "before"), Ends: rapid.Bool().Draw(t, "ends")})
			for range rapid.IntRange(0, 5).Draw(t, "events") {
				table := uint16(rapid.IntRange(0, len(b.Tables)-1).Draw(t, "table"))
				if rapid.IntRange(0, 9).Draw(t, "message") == 0 {
					table = pipeline.NoTable
				}
				b.Events = append(b.Events, pipeline.Event{Op: pipeline.Op(rapid.IntRange(0, 7).Draw(t, "op")), Flags: pipeline.Flags(rapid.Byte().Draw(t, "flags")),
					Table: table, Tx: uint32(tx), Hash: rapid.Uint64().Draw(t, "hash"), Key: piece("key"), Before: piece("old"), After: piece("new")})
			}
		}
	case pipeline.BatchCommit:
		b.Txs = []pipeline.Tx{{ID: piece("id"), Position: piece("pos"), Time: 7}}
		for range rapid.IntRange(0, 4).Draw(t, "chunks") {
			chunks = append(chunks, Chunk{Address: rapid.Uint64().Draw(t, "address"), Events: uint32(rapid.IntRange(0, 1000).Draw(t, "n"))})
			c, at := &chunks[len(chunks)-1], uint32(0)
			for range rapid.IntRange(0, 2).Draw(t, "cuts") {
				// Events that stay lie between cuts, so there are enough of them.
				cut := Cut{First: at + uint32(rapid.IntRange(1, 3).Draw(t, "gap")), Events: uint32(rapid.IntRange(1, 9).Draw(t, "cut"))}
				at = cut.First + cut.Events
				c.Events += cut.First
				c.Cuts = append(c.Cuts, cut)
			}
		}
	}
	b.End = pipeline.Position{Counter: rapid.Uint64().Draw(t, "counter"), Token: rapid.String().Draw(t, "token")}
	if b.Kind == pipeline.BatchRows && rapid.Bool().Draw(t, "snapshot") {
		b.Open, b.End = "", pipeline.Position{}
		b.Snapshot = &pipeline.SnapshotMark{Job: rapid.StringMatching(`[a-z0-9]+`).Draw(t, "job"), For: rapid.StringMatching(`[a-z]*`).Draw(t, "for"),
			State: rapid.SampledFrom([]pipeline.JobState{pipeline.JobRunning, pipeline.JobDone, pipeline.JobFailed}).Draw(t, "state")}
		if rapid.Bool().Draw(t, "resume") {
			b.Snapshot.Resume = json.RawMessage(`{"after":"AQI="}`)
			b.Snapshot.Tables = []pipeline.TableProgress{{Table: "public.files", Rows: rapid.Uint64().Draw(t, "rows"), Whole: true}}
		}
	}
	if rapid.Bool().Draw(t, "noticed") {
		b.Notices = []pipeline.Notice{{Kind: pipeline.NoticeGap, Table: "public.files", Reason: rapid.StringMatching(`[a-z ]*`).Draw(t, "reason"), Time: time.Unix(1, 0).UTC()}}
	}
	return b, chunks
}

// same compares what two batches say; nil and empty slices are one.
func same(t interface{ Fatalf(string, ...any) }, a, b *pipeline.Batch) {
	eq := func(name string, x, y any) {
		vx, vy := reflect.ValueOf(x), reflect.ValueOf(y)
		if vx.Kind() == reflect.Slice && vx.Len() == 0 && vy.Len() == 0 {
			return
		}
		if !reflect.DeepEqual(x, y) {
			t.Fatalf("%s: %v, want %v", name, y, x)
		}
	}
	eq("kind", a.Kind, b.Kind)
	eq("open", a.Open, b.Open)
	eq("tables", a.Tables, b.Tables)
	eq("txs", a.Txs, b.Txs)
	eq("events", a.Events, b.Events)
	eq("arena", a.Arena, b.Arena)
	eq("end", a.End, b.End)
	eq("notices", a.Notices, b.Notices)
	eq("ranges", a.Ranges, b.Ranges)
	eq("mark", a.Snapshot, b.Snapshot)
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, chunks := drawBatch(t)
		h := Header{Epoch: 5<<32 | 1, Address: 5<<32 | 4096, Synced: 5<<32 | 4096, Base: 77, Ticket: 9}
		front := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "front")
		p, err := Append(append([]byte(nil), front...), b, chunks, &h)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(p, front) {
			t.Fatal("append changed what was there")
		}
		p = p[len(front):]
		got, _, err := Open(p)
		if err != nil {
			t.Fatal(err)
		}
		if got != h || h.Size() != len(p) || len(p)%Align != 0 {
			t.Fatalf("header %+v, want %+v; size %d of %d", got, h, h.Size(), len(p))
		}
		into := new(pipeline.Batch)
		c, err := Decode(p, &got, into, resolve, nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, b, into)
		if len(c) != len(chunks) || len(c) > 0 && !reflect.DeepEqual(c, chunks) {
			t.Fatalf("chunks %v, want %v", c, chunks)
		}
		// Any changed bit is seen.
		i := rapid.IntRange(0, got.Length+got.Payload-1).Draw(t, "flip")
		p[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, _, err := Open(p); err == nil {
			t.Fatalf("a changed bit in byte %d is not seen", i)
		}
	})
}

func TestConversionEqualsLayout(t *testing.T) {
	if !sameLayout {
		return // convertOut is what runs
	}
	rapid.Check(t, func(t *rapid.T) {
		b, _ := drawBatch(t)
		p := make([]byte, len(b.Events)*eventSize)
		convertOut(p, b.Events)
		if !bytes.Equal(p, eventBytes(b.Events)) {
			t.Fatal("memory and log differ")
		}
		back := make([]pipeline.Event, len(b.Events))
		convertIn(back, p)
		for i := range back {
			if back[i] != b.Events[i] {
				t.Fatalf("event %d: %v, want %v", i, back[i], b.Events[i])
			}
		}
	})
}

func TestRefusesWhatCannotBeRead(t *testing.T) {
	in, out := pipeline.Span{Len: 2}, pipeline.Span{Off: 1, Len: 2}
	base := func() *pipeline.Batch {
		return &pipeline.Batch{Tables: []*schemas.Table{shape(1, 1)}, Txs: []pipeline.Tx{{ID: in, Position: in}}, Arena: []byte("ab"),
			Events: []pipeline.Event{{Op: pipeline.OpInsert, Key: in, Before: pipeline.Nowhere, After: in}}}
	}
	for name, change := range map[string]func(*pipeline.Batch){
		"key outside":          func(b *pipeline.Batch) { b.Events[0].Key = out },
		"before outside":       func(b *pipeline.Batch) { b.Events[0].Before = out },
		"after wraps":          func(b *pipeline.Batch) { b.Events[0].After = pipeline.Span{Off: 1<<32 - 1, Len: 1<<32 - 2} },
		"table out of range":   func(b *pipeline.Batch) { b.Events[0].Table = 1 },
		"tx out of range":      func(b *pipeline.Batch) { b.Events[0].Tx = 1 },
		"no tx":                func(b *pipeline.Batch) { b.Txs = nil },
		"first tx late":        func(b *pipeline.Batch) { b.Txs[0].First = 1 },
		"tx beyond the events": func(b *pipeline.Batch) { b.Txs = append(b.Txs, pipeline.Tx{First: 2}) },
		"tx id outside":        func(b *pipeline.Batch) { b.Txs[0].ID = out },
		"a snapshot that resumes": func(b *pipeline.Batch) {
			b.Snapshot, b.End = &pipeline.SnapshotMark{Job: "a", State: pipeline.JobRunning}, pipeline.Position{Counter: 1}
		},
		"a snapshot's commit": func(b *pipeline.Batch) {
			b.Snapshot, b.Kind, b.Events = &pipeline.SnapshotMark{Job: "a", State: pipeline.JobRunning}, pipeline.BatchCommit, nil
		},
		"a mark without a job":   func(b *pipeline.Batch) { b.Snapshot = &pipeline.SnapshotMark{State: pipeline.JobRunning} },
		"a mark without a state": func(b *pipeline.Batch) { b.Snapshot = &pipeline.SnapshotMark{Job: "a"} },
		"events in a commit":     func(b *pipeline.Batch) { b.Kind = pipeline.BatchCommit },
	} {
		b := base()
		change(b)
		h := Header{}
		p, err := Append(nil, b, nil, &h)
		if err == nil {
			_, err = Decode(p, &h, new(pipeline.Batch), resolve, nil)
		}
		if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h := Header{}
	if _, err := Append(nil, base(), nil, &h); err != nil {
		t.Fatal(err)
	}
}

func golden() map[string][]byte {
	b := &pipeline.Batch{Tables: []*schemas.Table{shape(1, 1), shape(2, 3)}, End: pipeline.Position{Counter: 12, Token: "0/16B3748"}}
	b.Txs = []pipeline.Tx{{ID: b.PutString("731"), Position: b.PutString("0/16B3748"), Time: 1_700_000_000_000_000, Ends: true}}
	b.Events = []pipeline.Event{{Op: pipeline.OpUpdate, Flags: pipeline.FlagKeyChange, Table: 1, Hash: 0x0102030405060708, Key: b.PutString("k"), Before: b.PutString("old"), After: b.PutString("new")},
		{Op: pipeline.OpMessage, Table: pipeline.NoTable, Key: pipeline.Nowhere, Before: b.PutString("prefix"), After: b.PutString("")}}
	b.Notices = []pipeline.Notice{{Kind: pipeline.NoticeQuarantined, Table: "public.files", Reason: "r", Cure: "c", Time: time.Unix(1_700_000_000, 0).UTC()}}
	head := Header{Epoch: 3<<32 | 2, Address: 3<<32 | 8192, Synced: 3<<32 | 8192, Base: 1 << 40, Ticket: 5}
	block := func(b *pipeline.Batch, c []Chunk) []byte {
		h := head
		p, err := Append(nil, b, c, &h)
		if err != nil {
			return []byte(err.Error())
		}
		return p
	}
	control := func(k Kind, p []byte, err error) []byte {
		h := head
		h.Kind = k
		return AppendBlock(nil, p, &h)
	}
	commit := &pipeline.Batch{Kind: pipeline.BatchCommit, Open: "x", End: b.End}
	commit.Txs = []pipeline.Tx{{ID: commit.PutString("731"), Position: commit.PutString("0/1"), Time: 1}}
	ranges := &pipeline.Batch{Ranges: []pipeline.RangeChange{{Epoch: 1, Space: "public.files", Closed: []uint64{0}, Reason: "r",
		Opened: []pipeline.Range{{ID: 1, Space: "public.files", End: []byte{0x15, 9}, Parents: []uint64{0}}, {ID: 2, Space: "public.files", Start: []byte{0x15, 9}, Parents: []uint64{0}}}}}}
	stated := head
	stated.Kind = KindCatalog
	withRanges := &Catalog{Ranges: []pipeline.RangeAt{{At: 1 << 40, RangeChange: pipeline.RangeChange{Epoch: 1, Space: "public.files", Opened: ranges.Ranges[0].Opened}}}}
	stated.Version = withRanges.Format()
	statedPayload, _ := AppendCatalog(nil, withRanges)
	mark := pipeline.SnapshotMark{Job: "mi8k2c1z", For: "search", State: pipeline.JobRunning, Resume: json.RawMessage(`{"k":"AQ=="}`),
		Tables: []pipeline.TableProgress{{Table: "public.files", Rows: 1, Bytes: 3, Estimate: 10}}}
	snapshot := &pipeline.Batch{Tables: b.Tables[:1], Snapshot: &mark}
	snapshot.Txs = []pipeline.Tx{{ID: pipeline.Nowhere, Position: snapshot.PutString("0/16B3748"), Time: 1_700_000_000_000_000, Ends: true}}
	snapshot.Events = []pipeline.Event{{Op: pipeline.OpSnapshot, Hash: 7, Key: snapshot.PutString("k"), Before: pipeline.Nowhere, After: snapshot.PutString("row")}}
	marked := head
	marked.Kind = KindCatalog
	withMarks := &Catalog{Snapshots: []pipeline.SnapshotMark{mark}}
	marked.Version = withMarks.Format()
	markedPayload, _ := AppendCatalog(nil, withMarks)
	schema, err := AppendSchema(nil, shape(1, 1))
	catalog, cerr := AppendCatalog(nil, &Catalog{Tables: []CatalogTable{{ID: 1, Version: 1, Hash: 1<<64 - 1, Subject: "public.files", Address: 1<<32 | 4200}}, Counter: 12, Token: "0/16B3748", Ticket: 4})
	return map[string][]byte{
		"snapshot": block(snapshot, nil), "catalog3": AppendBlock(nil, markedPayload, &marked),
		"ranges": block(ranges, nil), "catalog2": AppendBlock(nil, statedPayload, &stated),
		"rows": block(b, nil), "commit": block(commit, []Chunk{{Address: 1<<32 | 4096, Events: 8}}),
		"commit3": block(commit, []Chunk{{Address: 1<<32 | 4096, Events: 8, Cuts: []Cut{{First: 2, Events: 1}, {First: 5, Events: 3}}}, {Address: 1<<32 | 8192, Cuts: []Cut{{Events: 4}}}}),
		"schema":  control(KindSchema, schema, err), "catalog": control(KindCatalog, catalog, cerr),
		"epoch": control(KindEpoch, AppendEpoch(nil, Epoch{Epoch: 3<<32 | 3, Time: 9}), nil), "proof": control(KindProof, nil, nil),
		"footer": control(KindFooter, AppendFooter(nil, &Footer{Base: 1, Next: 9, Oldest: 2, Newest: 3, Needs: 3, Blocks: []IndexEntry{{At: 4096, Base: 1, Time: 0}},
			Tables: []IndexTable{{ID: 1, First: 1, Last: 8}}, Schemas: []IndexSchema{{ID: 1, Version: 1, At: 4096}}}), nil),
	}
}

// The bytes of formats 1 to 3 do not change.
func TestGolden(t *testing.T) {
	for name, got := range golden() {
		file := filepath.Join("testdata", name+".hex")
		if *update {
			if err := os.WriteFile(file, []byte(hex.EncodeToString(got)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(string(bytes.TrimSpace(text)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %x\nwant %x (%v)", name, got, want, err)
		}
		if _, _, err := Open(want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewerVersion(t *testing.T) {
	p := golden()["proof"]
	p[4] = Version + 1
	if _, _, err := Open(p); !errors.Is(err, ErrNotBlock) {
		t.Fatalf("a damaged version: %v", err)
	}
	h, _ := Parse(p)
	crc := CRC(CRC(CRC(0, nil), p[:16]), p[20:h.Length])
	p[16], p[17], p[18], p[19] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
	var newer *NewerError
	if _, _, err := Open(p); !errors.As(err, &newer) || newer.Version != Version+1 {
		t.Fatalf("a newer version: %v", err)
	}
}

func TestAllocations(t *testing.T) {
	b := &pipeline.Batch{Tables: []*schemas.Table{shape(1, 1)}}
	tab := b.Tables[0]
	b.Txs = []pipeline.Tx{{ID: b.PutString("1"), Position: b.PutString("2"), Ends: true}}
	for range 1000 {
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpInsert, Key: pipeline.Nowhere, Before: pipeline.Nowhere, After: b.PutString("some bytes")})
	}
	var buf []byte
	into := new(pipeline.Batch)
	h := Header{}
	if n := testing.AllocsPerRun(20, func() {
		var err error
		if buf, err = Append(buf[:0], b, nil, &h); err != nil {
			t.Error(err)
		}
		if _, err = Decode(buf, &h, into, func(uint32, uint32) *schemas.Table { return tab }, nil); err != nil {
			t.Error(err)
		}
		into.Arena = nil
	}); n > 0 {
		t.Fatalf("%v allocations per batch", n)
	}
}
