package pgoutput

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
)

// in is a message as it stands in a block: with the number of the subtransaction behind its kind.
func in(xid uint32, m []byte) []byte {
	return append(msg(m[0]).u32(xid).p, m[1:]...)
}

func blockStart(xid uint32) []byte { return msg('S').u32(xid).u8(1).p }
func blockEnd() []byte             { return msg('E').p }
func streamCommit(xid uint32, end LSN) []byte {
	return msg('c').u32(xid).u8(0).u64(end - 1).u64(end).u64(1).p
}
func streamAbort(xid, sub uint32) []byte { return msg('A').u32(xid).u32(sub).p }

// modelLog is what a log makes of batches: lines "xid line seq/last", at their commit.
type modelLog struct {
	lines []string
	open  map[string][]modelLine
	ends  []LSN
}

type modelLine struct {
	part uint32
	text string
}

func (m *modelLog) take(t interface{ Fatal(...any) }, d *Decoder) {
	for b := d.Take(); b != nil; b = d.Take() {
		if err := pipetest.CheckBatch(b, pgtext.Form); err != nil {
			t.Fatal(err)
		}
		ls := lines(b)
		switch b.Kind {
		case pipeline.BatchRows:
			for i, l := range ls {
				n, last := b.Seq(i)
				m.lines = append(m.lines, fmt.Sprintf("%s %s %d/%v", b.Bytes(b.Txs[b.Events[i].Tx].ID), l, n, last))
			}
		case pipeline.BatchChunk:
			if len(ls) == 0 {
				t.Fatal("a chunk of nothing")
			}
			for i, l := range ls {
				m.open[b.Open] = append(m.open[b.Open], modelLine{b.Txs[b.Events[i].Tx].Part, l})
			}
		case pipeline.BatchCommit:
			kept := slices.DeleteFunc(m.open[b.Open], func(l modelLine) bool { return slices.Contains(b.Without, l.part) })
			for i, l := range kept {
				m.lines = append(m.lines, fmt.Sprintf("%s %s %d/%v", b.Bytes(b.Txs[0].ID), l.text, i+1, i == len(kept)-1))
			}
			delete(m.open, b.Open)
		case pipeline.BatchAbort:
			delete(m.open, b.Open)
		}
		if !b.End.Zero() {
			lsn, err := parse(b.End.Token)
			if err != nil {
				t.Fatal(err)
			}
			m.ends = append(m.ends, lsn)
		}
		b.Release()
	}
}

// serverTx is a running transaction of the model's server.
type serverTx struct {
	xid       uint32
	subs      []uint32
	rows      []modelLine
	described bool
	begun     bool
}

// Whatever runs side by side, is rolled back in part or as a whole, and however small the batches: what committed, in
// the order of the commits, and nothing else; and positions only where transactions end.
func TestStreamedHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := options()
		o.BatchBytes = rapid.IntRange(1, 400).Draw(rt, "bytes")
		o.BatchEvents = rapid.IntRange(1, 9).Draw(rt, "events")
		d := NewDecoder(o)
		defer d.Close()
		m := &modelLog{open: map[string][]modelLine{}}
		var want []string
		var commits []LSN
		var running []*serverTx
		next, lsn := uint32(1000), LSN(rapid.SampledFrom([]int{50, 200}).Draw(rt, "from"))
		say := func(messages ...[]byte) {
			feed(rt, d, messages...)
			if rapid.Bool().Draw(rt, "dry") {
				d.Flush()
				m.take(rt, d)
			}
		}
		ordinary := false
		commit := func(xid uint32, rows []modelLine) {
			if commits = append(commits, lsn); lsn-1 >= o.After {
				for i, r := range rows {
					want = append(want, fmt.Sprintf("%d %s %d/%v", xid, r.text, i+1, i == len(rows)-1))
				}
			}
		}
		row := func(i int) string { return fmt.Sprintf("v%d", i) }
		for step := range rapid.IntRange(5, 60).Draw(rt, "steps") {
			lsn += 10
			pick := func() *serverTx {
				if len(running) == 0 || rapid.IntRange(0, 3).Draw(rt, "new") == 0 {
					next++
					running = append(running, &serverTx{xid: next})
				}
				return running[rapid.IntRange(0, len(running)-1).Draw(rt, "which")]
			}
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0: // an ordinary transaction
				next++
				say(begin(lsn-1, next))
				if !ordinary {
					ordinary = true
					say(relationMsg(1, "files", 'd', "a"))
				}
				say(insertMsg(1, row(step)), insertMsg(1, "w"))
				commit(next, []modelLine{{0, "insert files " + image(row(step))}, {0, "insert files " + image("w")}})
				say(msg('C').u8(0).u64(lsn - 1).u64(lsn).u64(1).p)
			case 1, 2: // a block
				tx := pick()
				say(blockStart(tx.xid))
				tx.begun = true
				if !tx.described {
					tx.described = true
					say(in(tx.xid, relationMsg(1, "files", 'd', "a")))
				}
				for i := range rapid.IntRange(0, 6).Draw(rt, "rows") {
					sub := tx.xid
					switch rapid.IntRange(0, 3).Draw(rt, "sub") {
					case 0:
						next++
						tx.subs = append(tx.subs, next)
						sub = next
					case 1:
						if n := len(tx.subs); n > 0 {
							sub = tx.subs[rapid.IntRange(0, n-1).Draw(rt, "old sub")]
						}
					}
					text := row(step*10 + i)
					say(in(sub, insertMsg(1, text)))
					tx.rows = append(tx.rows, modelLine{sub, "insert files " + image(text)})
				}
				say(blockEnd())
			case 3: // to a savepoint
				tx := pick()
				if n := len(tx.subs); n > 0 {
					gone := tx.subs[rapid.IntRange(0, n-1).Draw(rt, "gone")]
					tx.subs = slices.DeleteFunc(tx.subs, func(s uint32) bool { return s == gone })
					tx.rows = slices.DeleteFunc(tx.rows, func(l modelLine) bool { return l.part == gone })
					say(streamAbort(tx.xid, gone))
				}
			case 4, 5:
				tx := pick()
				running = slices.DeleteFunc(running, func(x *serverTx) bool { return x == tx })
				if rapid.IntRange(0, 2).Draw(rt, "abort") == 0 {
					say(streamAbort(tx.xid, tx.xid))
				} else if tx.begun {
					commit(tx.xid, tx.rows)
					say(streamCommit(tx.xid, lsn))
				}
			}
		}
		d.Flush()
		m.take(rt, d)
		if g, w := strings.Join(m.lines, "\n"), strings.Join(want, "\n"); g != w {
			rt.Fatalf("got\n%s\nwant\n%s", g, w)
		}
		for _, e := range m.ends {
			if e != o.After && !slices.Contains(commits, e) {
				rt.Fatalf("a position at %s, where no transaction ends", e)
			}
		}
		if d.Running() > len(running) || len(m.open) > len(running) {
			rt.Fatalf("%d transactions run, %d have chunks, of %d", d.Running(), len(m.open), len(running))
		}
	})
}

// What a running transaction says of a table is its own until it commits, and forgotten with what was rolled back.
func TestStreamedShapes(t *testing.T) {
	d := NewDecoder(options())
	defer d.Close()
	m := &modelLog{open: map[string][]modelLine{}}
	one, two := relationMsg(1, "files", 'd', "a"), relationMsg(1, "files", 'd', "a", "b")
	feed(t, d, begin(200, 5), one, insertMsg(1, "1"), commit(201),
		blockStart(7), in(8, two), in(8, insertMsg(1, "2", "x")), blockEnd(),
		begin(210, 6), insertMsg(1, "3"), commit(211), // sees the old one, and says nothing of a change
		streamAbort(7, 8),
		blockStart(7), in(7, two), in(7, insertMsg(1, "4", "y")), blockEnd(),
		streamCommit(7, 221), begin(230, 9), insertMsg(1, "5", "z"), commit(231))
	d.Flush()
	m.take(t, d)
	want := []string{"5 insert files " + image("1") + " 1/true", "6 insert files " + image("3") + " 1/true",
		"7 schema files ", "7 insert files " + image("4", "y") + " 2/true", "9 insert files " + image("5", "z") + " 1/true"}
	for i, w := range want {
		if i >= len(m.lines) || !strings.HasPrefix(m.lines[i], w) || len(m.lines) != len(want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(m.lines, "\n"), strings.Join(want, "\n"))
		}
	}
}

// One whose tables the catalogue does not show yet ends the stream, with its number; others are not asked about.
func TestUnsettled(t *testing.T) {
	o := options()
	o.Settled = func(xid uint32, rel *Relation) (string, error) {
		if rel.Name == "fresh" {
			return "it created the table", nil
		}
		return "", nil
	}
	d := NewDecoder(o)
	defer d.Close()
	feed(t, d, begin(200, 5), relationMsg(2, "fresh", 'd', "a"), insertMsg(2, "1"), commit(201),
		blockStart(7), in(7, relationMsg(1, "files", 'd', "a")), in(7, insertMsg(1, "2")), in(7, relationMsg(3, "fresh", 'd', "a")))
	err := d.Message(in(7, insertMsg(3, "2")), 5)
	var u *Unsettled
	if !errors.As(err, &u) || u.XID != 7 {
		t.Fatalf("got %v", err)
	}
}

func TestStreamedNonsense(t *testing.T) {
	for name, messages := range map[string][][]byte{
		"an end without a block": {blockEnd()},
		"a block in a block":     {blockStart(7), blockStart(8)},
		"a commit in a block":    {blockStart(7), streamCommit(7, 200)},
		"an abort in a block":    {blockStart(7), streamAbort(7, 7)},
		"a plain commit":         {blockStart(7), commit(200)},
		"a begin in a block":     {blockStart(7), begin(200, 8)},
		"a row cut short":        {blockStart(7), {'I', 0, 0}},
		"a start cut short":      {{'S', 0, 0}},
		"a commit cut short":     {{'c', 0, 0, 0, 1, 0}},
		"an abort cut short":     {{'A', 0, 0, 0, 1}},
	} {
		d := NewDecoder(options())
		var err error
		for _, m := range messages {
			if err = d.Message(m, 5); err != nil {
				break
			}
		}
		if err == nil {
			t.Errorf("%s is taken", name)
		}
		d.Close()
	}
}
