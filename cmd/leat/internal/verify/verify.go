// Package verify compares what a subscription was given with what its source holds now, table by table, while both
// go on changing.
//
// The first pass reads the log, once for all tables, into the last image of each key, and the source in chunks: two
// books of sums. Where they differ the key is a candidate. Candidates are looked at again, in rounds: the key is read from the source, a
// fence waits until the log has all that was committed by then, and only if no event of the key stands in the log
// in between the two are compared. So a difference that is reported is one, whatever is written meanwhile; keys that
// change in every round are reported as moving.
package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// Options of a comparison. All are required but Target, Settled, Pace and Progress.
type Options struct {
	// Subscription whose view is compared, and the log of its source.
	Subscription string
	Log          pipeline.Log
	// Tables to compare, as the source describes them.
	Tables []snapshot.Table
	// Source takes a connection to the database.
	Source func(context.Context) (snapshot.Session, error)
	// Target, when set, is compared instead of what the log says: a database that holds the tables under the same
	// names. It answers the Table as it is there.
	Target func(ctx context.Context, t snapshot.Table) (snapshot.Session, snapshot.Table, error)
	// Settled waits until the subscriber has acknowledged everything below an offset; asked with a Target.
	Settled func(context.Context, pipeline.Offset) error
	// Fence returns an offset below which all stands that was committed before the call.
	Fence func(context.Context) (pipeline.Offset, error)
	// Select appends what of the batch's events the subscription gets.
	Select func(b *pipeline.Batch, from, to int, runs []pipeline.Run) []pipeline.Run
	// Whole reports whether a snapshot job reads all rows of its tables: a row of a table that the log holds whole, and
	// which it has no image of, is missing.
	Whole func(job string) bool
	// KeyOf is the key of a row, for Query.Keys; KeyText is the key of an event's row as JSON, as events have it.
	KeyOf   func(t *schemas.Table, image []byte) ([]byte, error)
	KeyText func(b *pipeline.Batch, i int) string
	// RangeOf names the range of an event's key.
	RangeOf func(b *pipeline.Batch, i int) uint32
	Form    func(*schemas.Table) *cell.Form
	// Condition chooses the row of a key, as KeyOf gives it, in the source's own language: for a repair. Nil: none is told.
	Condition func(t *schemas.Table, key []byte) (string, error)
	// Dir takes temporary files, Disk bytes of them at most; Memory bounds what is kept beside them, in bytes.
	Dir          string
	Disk, Memory int64
	// Pace is called after each read of the source, which took so long.
	Pace func(ctx context.Context, took time.Duration) error
	// Progress is told now and then.
	Progress func(Progress)
}

// Progress of a comparison.
type Progress struct {
	Table string // empty: all of them
	// Phase: log, source, target, again.
	Phase      string
	Done, Rows uint64 // of about Rows; 0: not known
}

// Report of a comparison.
type Report struct {
	Tables []TableReport `json:"tables"`
}

// Equal reports whether no difference was found.
func (r *Report) Equal() bool {
	for i := range r.Tables {
		if t := &r.Tables[i]; t.Different > 0 || t.Error != "" {
			return false
		}
	}
	return true
}

// TableReport is what was found of one table. Rows are those that the subscription gets.
type TableReport struct {
	Table  string        `json:"table"`
	Error  string        `json:"error,omitempty"`
	Ranges []RangeReport `json:"ranges,omitempty"`
	// Rows of the source, and of these: compared in full; of which the log holds no image, since they were not
	// changed within what it keeps (Beyond); of which some columns were never sent (Partial: the others are
	// compared); that changed in every round (Moving).
	Rows     uint64 `json:"rows"`
	Compared uint64 `json:"compared"`
	Beyond   uint64 `json:"beyond_retention,omitempty"`
	Partial  uint64 `json:"absent,omitempty"`
	Filtered uint64 `json:"filtered,omitempty"`
	Moving   uint64 `json:"moving,omitempty"`
	// Different rows in all; the first of them are listed.
	Different   uint64       `json:"different"`
	Differences []Difference `json:"differences,omitempty"`
	// Repair are conditions that choose the rows which differ and which the source has, for a backfill of just those:
	// Repaired rows, the first of them when there are very many.
	Repair   []string `json:"repair,omitempty"`
	Repaired uint64   `json:"repaired,omitempty"`
}

// RangeReport is the count and the checksum of one range, on both sides. Rows that are beyond retention are in
// neither.
type RangeReport struct {
	Range        uint32 `json:"range"`
	SourceRows   uint64 `json:"source_rows"`
	OtherRows    uint64 `json:"other_rows"`
	SourceSum    string `json:"source_sum"`
	OtherSum     string `json:"other_sum"`
	source, rest uint64
}

// Difference is one row that is not the same.
type Difference struct {
	Key string `json:"key"`
	// Kind: missing (the source has it, the other side does not), extra, different.
	Kind    string   `json:"kind"`
	Columns []string `json:"columns,omitempty"`
}

// maxListed differences of a table are listed.
const maxListed = 1000

// rounds in which candidates are looked at again before they are called moving.
const rounds = 8

// folders of temporary files.
const folders = "verify-*"

// Sweep removes what comparisons left behind in a folder when their process ended hard. None may run there.
func Sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, folders))
	for _, f := range left {
		err = errors.Join(err, os.RemoveAll(f))
	}
	if err != nil {
		return fmt.Errorf("remove temporary files of leat verify: %w", err)
	}
	return nil
}

// Run compares. The error is that of what stopped it as a whole; what is wrong with one table stands in its report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Pace == nil {
		o.Pace = func(context.Context, time.Duration) error { return nil }
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	dir, err := os.MkdirTemp(o.Dir, folders)
	if err != nil {
		return nil, fmt.Errorf("make a folder for temporary files: %w", err)
	}
	defer os.RemoveAll(dir)
	v, err := begin(&o, dir)
	if err != nil {
		return nil, err
	}
	defer v.close()
	if err := v.compare(ctx); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	var all Report
	for _, c := range v.tables {
		all.Tables = append(all.Tables, c.finish())
	}
	return &all, nil
}

// errTable marks what is wrong with one table only.
var errTable = errors.New("the table cannot be compared")
