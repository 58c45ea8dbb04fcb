package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// comparison is that of one table.
type comparison struct {
	run       *run
	table     snapshot.Table
	number    uint32 // among the tables
	report    TableReport
	ranges    map[uint32]*RangeReport
	is        *schemas.Table // as the source has it now
	layout    *layout
	rows      reader
	shapes    map[*schemas.Table]*shape
	sums      []uint64
	left      []uint64
	snapshots map[string]bool
	whole     bool // the log holds a snapshot of the table from its first row to its last
	chunk     snapshot.Chunk
	doubts    map[uint64]*doubt
	doubted   int64                  // bytes that they take
	found     map[uint64]line        // of them in the source, as the last look saw it
	touched   map[uint64]bool        // doubts that changed since
	unseen    []func(tx []byte) bool // say which transactions the last reads of doubts did not see
	repair    [][]byte               // keys to be brought again
}

// doubt is a key to be looked at again.
type doubt struct {
	raw   []byte // for Query.Keys; nil until it is asked for
	text  string // for people
	other line   // at: where the log speaks of it last
	known bool   // the other side has it
}

// chunkRows and chunkBytes of the source at once: enough to be quick, few enough that no read is long.
const (
	chunkRows  = 5000
	chunkBytes = 8 << 20
)

// fails notes what is wrong with this table alone; any other error is returned.
func (c *comparison) fails(err error) error {
	var te *snapshot.TableError
	if err == nil || !errors.As(err, &te) && !errors.Is(err, errTable) {
		return err
	}
	c.report.Error = err.Error()
	c.run.doubted -= c.doubted
	c.doubts, c.found, c.touched, c.doubted = nil, nil, nil, 0
	return nil
}

// begin learns the table's shape.
func (c *comparison) begin(ctx context.Context, s snapshot.Session) error {
	if len(c.table.Key) == 0 {
		return fmt.Errorf("%w: it has no key, so that its rows cannot be told apart; give it a primary key", errTable)
	}
	if err := c.fetch(ctx, s, snapshot.Query{Table: c.table, Limit: 1}); err != nil {
		return err
	}
	c.is = c.chunk.Shape
	c.layout = layoutOf(c.is, c.run.o.Target != nil)
	if len(c.layout.key) == 0 {
		return fmt.Errorf("%w: it has no key, so that its rows cannot be told apart; give it a primary key", errTable)
	}
	c.rows = reader{layout: c.layout, table: uint64(c.number)}
	c.shapes, c.snapshots, c.doubts = map[*schemas.Table]*shape{}, map[string]bool{}, map[uint64]*doubt{}
	c.sums = make([]uint64, len(c.layout.names))
	return nil
}

// fetch reads rows into c.chunk.
func (c *comparison) fetch(ctx context.Context, s snapshot.Session, q snapshot.Query) error {
	c.chunk.Reset()
	return s.Read(ctx, q, &c.chunk)
}

// read puts all rows of a table into a book; their keys are kept in a file, and at is the place there.
func (c *comparison) read(ctx context.Context, s snapshot.Session, t snapshot.Table, phase string, into *book) error {
	var done uint64
	q := snapshot.Query{Table: t, Limit: chunkRows, Bytes: chunkBytes}
	for {
		began := time.Now()
		if err := c.fetch(ctx, s, q); err != nil {
			return err
		}
		took := time.Since(began)
		seen, err := c.chunkRows(func(l line, b *pipeline.Batch, i int) error {
			raw, err := c.run.o.KeyOf(c.chunk.Shape, image(b, i))
			if err != nil {
				return err
			}
			if l.at, err = c.run.keep(raw); err != nil {
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
		c.run.o.Progress(Progress{Table: c.report.Table, Phase: phase, Done: done, Rows: t.Estimate})
		if !c.chunk.More || len(c.chunk.Rows) == 0 {
			return nil
		}
		last := c.chunk.Rows[len(c.chunk.Rows)-1]
		if q.After, err = c.run.o.KeyOf(c.chunk.Shape, c.chunk.Arena[last.Off:last.Off+last.Len]); err != nil {
			return err
		}
		if err := c.run.o.Pace(ctx, took); err != nil {
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
	for _, r := range c.run.o.Select(b, 0, len(b.Events), runs) {
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
	s, err := c.layout.shapeOf(t, c.run.o.Form(t))
	if err != nil {
		return nil
	}
	return s
}

func (c *comparison) readTarget(ctx context.Context) error {
	s, t, err := c.run.o.Target(ctx, c.table)
	if err != nil {
		return err
	}
	defer s.Close()
	return c.read(ctx, s, t, "target", c.run.other)
}

// doubt has a key looked at again.
func (c *comparison) doubt(key uint64, d *doubt) error {
	c.doubts[key] = d
	n := int64(512 + 3*8*len(c.sums) + 4*len(d.raw)) // with what a look finds, and its text
	c.doubted += n
	if c.run.doubted += n; c.run.doubted > max(c.run.o.Memory/4, 1<<20) {
		return fmt.Errorf("%w: more keys differ at first sight than memory: allows to look at again (%d of this table): is it the right one, and did the subscription take its rows from the start (leat backfill)?", errTable, len(c.doubts))
	}
	return nil
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
	c.conditions()
	return c.report
}
