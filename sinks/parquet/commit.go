package parquet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Manifest says which events stand in which files: one for each stage, in order of their names. It is written after the
// files that it lists.
type Manifest struct {
	Format       int    `json:"format"` // 1
	Subscription string `json:"subscription"`
	Source       string `json:"source"`
	// Sequence counts from 1; the name of the manifest.
	Sequence uint64 `json:"sequence,string"`
	// Complete: every event below this offset stands in this manifest's files or in those of earlier ones, or is listed by
	// `leat parked`. 0: not known.
	Complete uint64         `json:"complete,string"`
	Files    []ManifestFile `json:"files"`
}

// ManifestFile is one of the Parquet files.
type ManifestFile struct {
	Path    string `json:"path"`
	Table   string `json:"table"`
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
	events  []place // in order per key
	subject string
	first   uint64 // offset
	last    uint64
}

// place of an event in a stage: the i-th of the frame at.
type place struct {
	at int64
	i  int32
}

type partKey struct {
	version
	date string
}

// sortStage finds out which event of a stage goes where.
func sortStage(stagePath string) ([]*part, error) {
	tables, parts := map[version]*leatv1.Table{}, map[partKey]*part{}
	_, _, err := readStage(stagePath, func(at int64, m *leatv1.Events) error {
		for _, t := range m.Tables {
			tables[version{t.Id, t.Version}] = t
		}
		for i, e := range m.Events {
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
			p.events = append(p.events, place{at, int32(i)})
			p.first, p.last = min(p.first, e.Offset), max(p.last, e.Offset)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]*part, 0, len(parts))
	for _, p := range parts {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *part) int {
		return cmp.Or(strings.Compare(a.subject, b.subject), cmp.Compare(a.table.GetVersion(), b.table.GetVersion()), strings.Compare(a.date, b.date), cmp.Compare(a.table.GetId(), b.table.GetId()))
	})
	return out, nil
}

// convert makes the files of a stage, then its manifest, and removes it.
func (s *Sink) convert(ctx context.Context, r rolled) error {
	seq, local := r.seq, stageName(s.o.Stage, r.seq)
	parts, err := sortStage(local)
	if err != nil {
		return err
	}
	m := Manifest{Format: 1, Subscription: s.o.Subscription, Source: s.o.Source, Sequence: seq, Complete: r.complete, Files: []ManifestFile{}}
	for _, p := range parts {
		f, err := s.file(ctx, local, seq, p)
		if err != nil {
			return fmt.Errorf("file of table %s: %w", p.subject, err)
		}
		m.Files = append(m.Files, f)
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	if err := s.store.putBytes(ctx, manifestName(seq), append(text, '\n')); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return errors.Join(os.Remove(local), syncFolder(s.o.Stage))
}

// file writes one Parquet file, locally, and gives it to the store.
func (s *Sink) file(ctx context.Context, stagePath string, seq uint64, p *part) (f ManifestFile, err error) {
	name := fmt.Sprintf("%s-%020d", s.o.Source, seq)
	if p.table != nil {
		name += fmt.Sprintf("-t%d-v%d", p.table.Id, p.table.Version)
	}
	f = ManifestFile{Path: path.Join("table="+p.subject, "date="+p.date, name+".parquet"), Table: p.subject, Version: p.table.GetVersion(), Rows: len(p.events),
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

// rowsAtOnce go to the writer together; a row group has so many.
const (
	rowsAtOnce  = 256
	rowsInGroup = 250_000
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
	frame, at := (*leatv1.Events)(nil), int64(-1)
	for n, e := range p.events {
		if e.at != at {
			if err := ctx.Err(); err != nil {
				return err
			}
			if frame, _, err = readFrame(io.NewSectionReader(in, e.at, 1<<40)); err != nil || frame == nil {
				return errors.Join(fmt.Errorf("%s: no frame at %d", stagePath, e.at), err)
			}
			at = e.at
		}
		event := frame.Events[e.i]
		r, err := plan.row(event, opName(event.Op))
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
		if rows = append(rows, r); len(rows) == rowsAtOnce || n == len(p.events)-1 {
			if _, err := w.WriteRows(rows); err != nil {
				return err
			}
			rows = rows[:0]
		}
	}
	return w.Close()
}

var codecs = map[string]compress.Codec{"": &pq.Zstd, "zstd": &pq.Zstd, "snappy": &pq.Snappy, "gzip": &pq.Gzip, "none": &pq.Uncompressed}

func opName(o leatv1.Op) string { return pipeline.Op(o).String() }
