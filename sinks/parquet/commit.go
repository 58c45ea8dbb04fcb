package parquet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Manifest says which events stand in which files: one for each stage, and now and then one without files, in order of
// their names. It is written after the
// files that it lists.
type Manifest struct {
	Format       int    `json:"format"` // 1
	Subscription string `json:"subscription"`
	Source       string `json:"source"`
	// Sequence counts from 1; the name of the manifest.
	Sequence uint64 `json:"sequence,string"`
	// Stage is the id of what its files were made of.
	Stage string `json:"stage"`
	// Complete: every event below this offset stands in this manifest's files or in those of earlier ones, or is listed by
	// `leat parked`. 0: not known.
	Complete uint64 `json:"complete,string"`
	// CompleteTime: every commit before it, by the database's clock, is complete in that sense. Zero: not known.
	CompleteTime time.Time `json:"complete_time,omitzero"`
	// High is the greatest offset in its files and those of earlier ones.
	High uint64 `json:"high,string"`
	// Redriven are the offsets that `leat redrive` brought.
	Redriven []string       `json:"redriven,omitempty"`
	Files    []ManifestFile `json:"files"`
}

// ManifestFile is one of the Parquet files.
type ManifestFile struct {
	Path  string `json:"path"`
	Table string `json:"table"`
	// TableID tells tables of one name apart, of before and after a DROP; 0: messages.
	TableID uint32 `json:"table_id"`
	Version uint32 `json:"version"`
	Rows    int    `json:"rows"`
	Bytes   int64  `json:"bytes"`
	// First and Last offset in it.
	First uint64 `json:"first,string"`
	Last  uint64 `json:"last,string"`
	// From and To are the times of the earliest and the latest commit.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

const manifests = "_manifest"

func manifestName(seq uint64) string { return fmt.Sprintf("%s/%020d.json", manifests, seq) }

// part is what goes into one file.
type part struct {
	table   *leatv1.Table // nil: messages
	date    string
	events  extents // in order per key
	subject string
	first   uint64 // offset
	last    uint64
}

type partKey struct {
	version
	date string
}

// sorted is what a stage holds.
type sorted struct {
	id       stageKey
	parts    []*part
	redriven []string // offsets
	upTo     int64    // the latest commit below what is complete, in microseconds
}

// sortStage finds out which event of a stage goes where.
func sortStage(stagePath string, size int64, complete uint64) (s sorted, err error) {
	tables, parts := map[version]*leatv1.Table{}, map[partKey]*part{}
	c, err := readStage(stagePath, func(f frame) error {
		for _, t := range f.Tables {
			tables[version{t.Id, t.Version}] = t
		}
		places, err := f.extents()
		if err != nil {
			return fmt.Errorf("%s at byte %d: %w", stagePath, f.body, err)
		}
		for i, e := range f.Events.Events {
			v := version{e.Table, e.TableVersion}
			k := partKey{v, time.UnixMicro(e.TimeMicros).UTC().Format(time.DateOnly)}
			p := parts[k]
			if p == nil {
				p = &part{table: tables[v], date: k.date, subject: "_messages", first: e.Offset}
				if p.table != nil {
					p.subject = p.table.Subject
				} else if e.Table != 0 {
					return fmt.Errorf("%s: event %d is of a table that it does not describe", stagePath, e.Offset)
				}
				parts[k] = p
			}
			p.events.add(places[i])
			p.first, p.last = min(p.first, e.Offset), max(p.last, e.Offset)
			if t := e.TimeMicros; e.Offset < complete {
				s.upTo = max(s.upTo, t)
			}
			if f.redriven {
				s.redriven = append(s.redriven, strconv.FormatUint(e.Offset, 10))
			}
		}
		return nil
	})
	if err == nil && c.whole != size { // what is missing was reported as delivered
		err = damaged(stagePath, c.whole)
	}
	if err != nil {
		return s, err
	}
	s.id = c.id
	for _, p := range parts {
		s.parts = append(s.parts, p)
	}
	slices.SortFunc(s.parts, func(a, b *part) int {
		return cmp.Or(strings.Compare(a.subject, b.subject), cmp.Compare(a.table.GetVersion(), b.table.GetVersion()), strings.Compare(a.date, b.date), cmp.Compare(a.table.GetId(), b.table.GetId()))
	})
	return s, nil
}

// convert makes the files of a stage, then its manifest, and removes it.
func (s *Sink) convert(ctx context.Context, r rolled) error {
	m := Manifest{Format: 1, Subscription: s.o.Subscription, Source: s.o.Source, Sequence: r.seq, Complete: r.complete, High: s.files.high, Files: []ManifestFile{}}
	after, local := s.files, stageName(s.o.Stage, r.seq)
	if !r.empty {
		st, err := sortStage(local, r.size, r.complete)
		if err != nil {
			return err
		}
		m.Stage, m.Redriven = st.id.String(), st.redriven
		for _, p := range st.parts {
			f, err := s.file(ctx, local, r.seq, p)
			if err != nil {
				return fmt.Errorf("file of table %s: %w", p.subject, err)
			}
			m.Files, m.High = append(m.Files, f), max(m.High, f.Last)
			after.latest = later(after.latest, f.To)
		}
		if st.upTo > 0 {
			after.completeTime = later(after.completeTime, time.UnixMicro(st.upTo).UTC())
		}
	}
	if r.complete > m.High {
		after.completeTime = after.latest
	}
	if m.Complete > 0 {
		m.CompleteTime = after.completeTime
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	if err := s.store.putBytes(ctx, manifestName(r.seq), append(text, '\n')); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	after.high, after.complete = m.High, max(after.complete, m.Complete)
	s.files = after
	if r.empty {
		return nil
	}
	return errors.Join(os.Remove(local), syncFolder(s.o.Stage))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// mostName bytes of a name are left whole; 255 is what disks take.
const mostName = 200

// folderName is the subject, cut and told apart by its hash where no disk takes so long a name.
func folderName(subject string) string {
	if len(subject) <= mostName {
		return subject
	}
	sum := sha256.Sum256([]byte(subject))
	return strings.TrimRight(subject[:mostName-17], "%") + "-" + hex.EncodeToString(sum[:8])
}

// file writes one Parquet file, locally, and gives it to the store.
func (s *Sink) file(ctx context.Context, stagePath string, seq uint64, p *part) (f ManifestFile, err error) {
	name := fmt.Sprintf("%s-%020d", s.o.Source, seq)
	if p.table != nil {
		name += fmt.Sprintf("-t%d-v%d", p.table.Id, p.table.Version)
	}
	f = ManifestFile{Path: path.Join("table="+folderName(p.subject), "date="+p.date, name+".parquet"), Table: p.subject, TableID: p.table.GetId(), Version: p.table.GetVersion(), Rows: p.events.n,
		First: p.first, Last: p.last}
	tmp := filepath.Join(s.o.Stage, "new.parquet")
	out, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp)) }()
	err = s.write(ctx, out, stagePath, p, &f)
	if info, serr := out.Stat(); serr == nil {
		f.Bytes = info.Size()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return f, err
	}
	return f, s.store.put(ctx, f.Path, tmp)
}

// rowsAtOnce go to the writer together; a row group, which is in memory while it is written, has at most so many, or
// bytes of the stage.
const (
	rowsAtOnce   = 256
	rowsInGroup  = 250_000
	bytesInGroup = 64 << 20
)

func (s *Sink) write(ctx context.Context, out io.Writer, stagePath string, p *part, f *ManifestFile) error {
	in, err := os.Open(stagePath)
	if err != nil {
		return err
	}
	defer in.Close()
	plan := newPlan(p.table)
	w := pq.NewGenericWriter[any](out, plan.schema, pq.Compression(codecs[s.o.Compression]), pq.CreatedBy("leat", "1", ""), pq.MaxRowsPerRowGroup(rowsInGroup),
		pq.KeyValueMetadata("leat.table", p.subject), pq.KeyValueMetadata("leat.version", fmt.Sprint(p.table.GetVersion())))
	var rows []pq.Row
	r, group := extentReader{in: in, rest: extents{packed: p.events.packed}}, 0
	for n := range p.events.n {
		if n%rowsAtOnce == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		encoded, err := r.read()
		if err != nil {
			return err
		}
		group += len(encoded)
		event := &leatv1.Event{}
		if err := proto.Unmarshal(encoded, event); err != nil {
			return err
		}
		row, err := plan.row(event, opName(event.Op))
		if err != nil {
			return err
		}
		t := time.UnixMicro(event.TimeMicros).UTC()
		if f.From.IsZero() || t.Before(f.From) {
			f.From = t
		}
		if t.After(f.To) {
			f.To = t
		}
		if rows = append(rows, row); len(rows) == rowsAtOnce || n == p.events.n-1 {
			if _, err := w.WriteRows(rows); err != nil {
				return err
			}
			rows = rows[:0]
			if group >= bytesInGroup {
				if err := w.Flush(); err != nil {
					return err
				}
				group = 0
			}
		}
	}
	return w.Close()
}

var codecs = map[string]compress.Codec{"": &pq.Zstd, "zstd": &pq.Zstd, "snappy": &pq.Snappy, "gzip": &pq.Gzip, "none": &pq.Uncompressed}

func opName(o leatv1.Op) string { return pipeline.Op(o).String() }
