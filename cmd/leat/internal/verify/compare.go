package verify

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// comparison is that of one table.
type comparison struct {
	o         *Options
	table     snapshot.Table
	dir       string
	report    TableReport
	ranges    map[uint32]*RangeReport
	layout    *layout
	rows      reader
	shapes    map[*schemas.Table]*shape
	sums      []uint64
	left      []uint64
	snapshots map[string]bool
	whole     bool // the log holds a snapshot of the table from its first row to its last
	source    *book
	other     *book // what the log says, or the target
	keys      *os.File
	kept      uint64 // bytes in keys
	chunk     snapshot.Chunk
	end       pipeline.Offset // the log is read up to here
	doubts    map[uint64]*doubt
	unseen    []func(tx []byte) bool // say which transactions the last reads of doubts did not see
}

// doubt is a key to be looked at again.
type doubt struct {
	raw   []byte // for Query.Keys; nil until it is asked for
	text  string // for people
	other line   // at: where the log speaks of it last
	known bool   // the other side has it
}

// chunkRows of the source at once: enough to be quick, few enough that no read is long.
const chunkRows = 5000

func (c *comparison) run(ctx context.Context) error {
	s, err := c.o.Source(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := c.begin(ctx, s); err != nil {
		return err
	}
	defer func() { errors.Join(c.source.Close(), c.other.Close(), c.keys.Close()) }()
	var first pipeline.Offset
	first, c.end = c.o.Log.Bounds()
	if c.o.Target == nil {
		if err := c.fold(ctx, first, c.end, c.keep); err != nil {
			return err
		}
	}
	if err := c.read(ctx, s, c.table, "source", c.source); err != nil {
		return err
	}
	if c.o.Target != nil {
		if err := c.readTarget(ctx); err != nil {
			return err
		}
	} else if err := c.forward(ctx, c.keep); err != nil {
		return err
	}
	if err := c.match(); err != nil {
		return err
	}
	return c.settle(ctx, s)
}

// begin learns the table's shape and opens the books.
func (c *comparison) begin(ctx context.Context, s snapshot.Session) error {
	if len(c.table.Key) == 0 {
		return fmt.Errorf("%w: it has no key, so that its rows cannot be told apart; give it a primary key", errTable)
	}
	if err := c.fetch(ctx, s, snapshot.Query{Table: c.table, Limit: 1}); err != nil {
		return err
	}
	c.report.shape = c.chunk.Shape
	c.layout = layoutOf(c.chunk.Shape, c.o.Target != nil)
	if len(c.layout.key) == 0 {
		return fmt.Errorf("%w: it has no key, so that its rows cannot be told apart; give it a primary key", errTable)
	}
	c.rows.layout = c.layout
	c.shapes, c.snapshots, c.doubts = map[*schemas.Table]*shape{}, map[string]bool{}, map[uint64]*doubt{}
	width := len(c.layout.names)
	c.sums = make([]uint64, width)
	c.source, c.other = newBook(c.dir, width, c.o.Memory/2), newBook(c.dir, width, c.o.Memory/2)
	var err error
	c.keys, err = os.Create(filepath.Join(c.dir, "keys"))
	return err
}

// fetch reads rows into c.chunk.
func (c *comparison) fetch(ctx context.Context, s snapshot.Session, q snapshot.Query) error {
	c.chunk.Reset()
	return s.Read(ctx, q, &c.chunk)
}

// forward folds what the log gained up to a fence.
func (c *comparison) forward(ctx context.Context, f func(*pipeline.Batch, int, pipeline.Op) error) error {
	to, err := c.o.Fence(ctx)
	if err != nil {
		return err
	}
	from := c.end
	c.end = max(c.end, to)
	return c.fold(ctx, from, c.end, f)
}

// read puts all rows of a table into a book; their keys are kept in a file, and at is the place there.
func (c *comparison) read(ctx context.Context, s snapshot.Session, t snapshot.Table, phase string, into *book) error {
	keys := bufio.NewWriterSize(c.keys, 64<<10)
	var done uint64
	q := snapshot.Query{Table: t, Limit: chunkRows}
	for {
		began := time.Now()
		if err := c.fetch(ctx, s, q); err != nil {
			return err
		}
		took := time.Since(began)
		seen, err := c.chunkRows(func(l line, b *pipeline.Batch, i int) error {
			raw, err := c.o.KeyOf(c.chunk.Shape, image(b, i))
			if err != nil {
				return err
			}
			l.at = c.kept
			c.kept += uint64(len(raw)) + 4
			c.rows.buf = append(binary.LittleEndian.AppendUint32(c.rows.buf[:0], uint32(len(raw))), raw...)
			if _, err := keys.Write(c.rows.buf); err != nil {
				return err
			}
			return into.put(l)
		})
		if err != nil {
			return err
		}
		if phase == "source" {
			c.report.Filtered += uint64(len(c.chunk.Rows)) - seen
		}
		done += uint64(len(c.chunk.Rows))
		c.o.Progress(Progress{Table: c.report.Table, Phase: phase, Done: done, Rows: t.Estimate})
		if !c.chunk.More || len(c.chunk.Rows) == 0 {
			return keys.Flush()
		}
		last := c.chunk.Rows[len(c.chunk.Rows)-1]
		if q.After, err = c.o.KeyOf(c.chunk.Shape, c.chunk.Arena[last.Off:last.Off+last.Len]); err != nil {
			return err
		}
		if err := c.o.Pace(ctx, took); err != nil {
			return err
		}
	}
}

// chunkRows hands each row of the chunk that the subscription gets to f, and counts them.
func (c *comparison) chunkRows(f func(l line, b *pipeline.Batch, i int) error) (n uint64, err error) {
	b := pipeline.NewBatchOver(func(*pipeline.Batch) {})
	t := *c.chunk.Shape
	t.Schema, t.Name = c.table.Schema, c.table.Name // a target's may have others
	shape := c.chunkShape(&t)
	if shape == nil {
		return 0, fmt.Errorf("%w: the other table lacks a column of the key", errTable)
	}
	b.Tables, b.Arena = []*schemas.Table{shape.table}, c.chunk.Arena
	b.Txs = []pipeline.Tx{{ID: pipeline.Nowhere, Position: pipeline.Nowhere, Ends: true}}
	for _, row := range c.chunk.Rows {
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpSnapshot, Key: pipeline.Nowhere, Before: pipeline.Nowhere, After: row})
	}
	c.shapes[shape.table] = shape
	var runs []pipeline.Run
	for _, r := range c.o.Select(b, 0, len(b.Events), runs) {
		for i := int(r.From); i < int(r.To); i++ {
			l, _, err := c.event(b, i, pipeline.OpSnapshot)
			if err != nil {
				return n, err
			}
			n++
			if err := f(l, b, i); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// chunkShape is the shape of a chunk's rows, one for all chunks of one table version.
func (c *comparison) chunkShape(t *schemas.Table) *shape {
	for _, s := range c.shapes {
		if s.table.ShapeHash() == t.ShapeHash() {
			return s
		}
	}
	s, err := c.layout.shapeOf(t, c.o.Form(t))
	if err != nil {
		return nil
	}
	return s
}

func (c *comparison) readTarget(ctx context.Context) error {
	s, t, err := c.o.Target(ctx, c.table)
	if err != nil {
		return err
	}
	defer s.Close()
	return c.read(ctx, s, t, "target", c.other)
}

// match compares the books: what differs becomes a doubt.
func (c *comparison) match() error {
	for p := range parts {
		source, err := c.source.part(p)
		if err != nil {
			return err
		}
		other, err := c.other.part(p)
		if err != nil {
			return err
		}
		for key, l := range source {
			o, known := other[key]
			known = known && !o.gone
			if known && c.same(&l, &o) {
				c.equal(&l, &o)
				continue
			}
			raw, err := c.rawAt(l.at)
			if err != nil {
				return err
			}
			c.doubts[key] = &doubt{raw: raw, other: o, known: known}
		}
		for key, o := range other {
			if _, ok := source[key]; ok || o.gone {
				continue
			}
			d := &doubt{other: o, known: true}
			if c.o.Target != nil {
				if d.raw, err = c.rawAt(o.at); err != nil {
					return err
				}
			}
			c.doubts[key] = d
		}
		if len(c.doubts) > maxDoubts {
			return fmt.Errorf("%w: more than %d keys differ at first sight: is it the right table, and did the subscription take its rows from the start (leat backfill)?", errTable, maxDoubts)
		}
	}
	return nil
}

// maxDoubts are looked at again.
const maxDoubts = 1_000_000

func (c *comparison) rawAt(at uint64) ([]byte, error) {
	var n [4]byte
	if _, err := c.keys.ReadAt(n[:], int64(at)); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.LittleEndian.Uint32(n[:]))
	_, err := c.keys.ReadAt(raw, int64(at)+4)
	return raw, err
}

// same compares the columns that both know.
func (c *comparison) same(a, b *line) bool {
	for i := range a.sums {
		if a.sums[i] != b.sums[i] && a.sums[i] != unknown && b.sums[i] != unknown {
			return false
		}
	}
	return true
}

func (c *comparison) rangeOf(l *line) *RangeReport {
	r := c.ranges[l.span]
	if r == nil {
		r = &RangeReport{Range: l.span}
		c.ranges[l.span] = r
	}
	return r
}

// equal counts a row that is the same on both sides.
func (c *comparison) equal(source, other *line) {
	c.report.Rows++
	if slices.Contains(other.sums, unknown) {
		c.report.Partial++
	} else {
		c.report.Compared++
	}
	r, sum := c.rangeOf(source), lineSum(source)
	r.SourceRows, r.OtherRows, r.source, r.rest = r.SourceRows+1, r.OtherRows+1, r.source+sum, r.rest+sum
}

// lineSum mixes a line into one number; sums of lines do not depend on their order.
func lineSum(l *line) uint64 {
	h := l.key
	for _, s := range l.sums {
		h = (h ^ s) * 0x9E3779B97F4A7C15
		h ^= h >> 29
	}
	return h
}

func (c *comparison) finish() TableReport {
	for _, r := range c.ranges {
		r.SourceSum, r.OtherSum = strconv.FormatUint(r.source, 16), strconv.FormatUint(r.rest, 16)
		c.report.Ranges = append(c.report.Ranges, *r)
	}
	slices.SortFunc(c.report.Ranges, func(a, b RangeReport) int { return int(a.Range) - int(b.Range) })
	return c.report
}
