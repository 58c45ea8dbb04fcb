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
	"strconv"
	"strings"
	"time"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

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
	// Stage is the id of what its files were made of.
	Stage string `json:"stage"`
	// Complete: every event below this offset stands in this manifest's files or in those of earlier ones, or is listed by
	// `leat parked`. 0: not known.
	Complete uint64 `json:"complete,string"`
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
	events  []extent // in order per key
	subject string
	first   uint64 // offset
	last    uint64
}

// extent is where an encoded event stands in a stage.
type extent struct {
	at   int64
	size int32
}

// extents finds the events of a frame.
func (f frame) extents() ([]extent, error) {
	out := make([]extent, 0, len(f.Events.Events))
	for rest := f.bytes; len(rest) > 0; {
		field, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(field, kind, rest[n:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		if field == 1 && kind == protowire.BytesType { // Events.events
			event, _ := protowire.ConsumeBytes(rest[n:])
			out = append(out, extent{f.body + int64(len(f.bytes)-len(rest)+n+size-len(event)), int32(len(event))})
		}
		rest = rest[n+size:]
	}
	if len(out) != len(f.Events.Events) {
		return nil, fmt.Errorf("%d events stand at %d places", len(f.Events.Events), len(out))
	}
	return out, nil
}

type partKey struct {
	version
	date string
}

// sortStage finds out which event of a stage goes where, and what was redriven.
func sortStage(stagePath string, size int64) (sorted []*part, redriven []string, c contents, err error) {
	tables, parts := map[version]*leatv1.Table{}, map[partKey]*part{}
	c, err = readStage(stagePath, func(f frame) error {
		for _, t := range f.Tables {
			tables[version{t.Id, t.Version}] = t
		}
		extents, err := f.extents()
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
			p.events = append(p.events, extents[i])
			p.first, p.last = min(p.first, e.Offset), max(p.last, e.Offset)
			if f.redriven {
				redriven = append(redriven, strconv.FormatUint(e.Offset, 10))
			}
		}
		return nil
	})
	if err == nil && c.whole != size { // what is missing was reported as delivered
		err = damaged(stagePath, c.whole)
	}
	if err != nil {
		return nil, nil, c, err
	}
	for _, p := range parts {
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, func(a, b *part) int {
		return cmp.Or(strings.Compare(a.subject, b.subject), cmp.Compare(a.table.GetVersion(), b.table.GetVersion()), strings.Compare(a.date, b.date), cmp.Compare(a.table.GetId(), b.table.GetId()))
	})
	return sorted, redriven, c, nil
}

// convert makes the files of a stage, then its manifest, and removes it.
func (s *Sink) convert(ctx context.Context, r rolled) error {
	seq, local := r.seq, stageName(s.o.Stage, r.seq)
	parts, redriven, c, err := sortStage(local, r.size)
	if err != nil {
		return err
	}
	m := Manifest{Format: 1, Subscription: s.o.Subscription, Source: s.o.Source, Sequence: seq, Stage: c.id.String(), Complete: r.complete,
		High: s.high, Redriven: redriven, Files: []ManifestFile{}}
	for _, p := range parts {
		f, err := s.file(ctx, local, seq, p)
		if err != nil {
			return fmt.Errorf("file of table %s: %w", p.subject, err)
		}
		m.Files, m.High = append(m.Files, f), max(m.High, f.Last)
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	if err := s.store.putBytes(ctx, manifestName(seq), append(text, '\n')); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	s.high = m.High
	return errors.Join(os.Remove(local), syncFolder(s.o.Stage))
}

// file writes one Parquet file, locally, and gives it to the store.
func (s *Sink) file(ctx context.Context, stagePath string, seq uint64, p *part) (f ManifestFile, err error) {
	name := fmt.Sprintf("%s-%020d", s.o.Source, seq)
	if p.table != nil {
		name += fmt.Sprintf("-t%d-v%d", p.table.Id, p.table.Version)
	}
	f = ManifestFile{Path: path.Join("table="+p.subject, "date="+p.date, name+".parquet"), Table: p.subject, TableID: p.table.GetId(), Version: p.table.GetVersion(), Rows: len(p.events),
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
	r := extentReader{in: in}
	for n := range p.events {
		if n%rowsAtOnce == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		encoded, err := r.read(p.events[n:])
		if err != nil {
			return err
		}
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
		if rows = append(rows, row); len(rows) == rowsAtOnce || n == len(p.events)-1 {
			if _, err := w.WriteRows(rows); err != nil {
				return err
			}
			rows = rows[:0]
		}
	}
	return w.Close()
}

// extentReader reads events; those that stand near to each other at once.
type extentReader struct {
	in  io.ReaderAt
	at  int64
	buf []byte
}

const (
	readAtOnce = 256 << 10
	readOver   = 4 << 10 // between two events of one read
)

// read returns the first of next, which follow each other. It is the reader's until the next read.
func (r *extentReader) read(next []extent) ([]byte, error) {
	e := next[0]
	if e.at < r.at || e.at+int64(e.size) > r.at+int64(len(r.buf)) {
		end := e.at + int64(e.size)
		for _, n := range next[1:] {
			if n.at < end || n.at > end+readOver || n.at+int64(n.size) > e.at+readAtOnce {
				break
			}
			end = n.at + int64(n.size)
		}
		r.at, r.buf = e.at, slices.Grow(r.buf[:0], int(end-e.at))[:end-e.at]
		if _, err := r.in.ReadAt(r.buf, e.at); err != nil {
			r.buf = r.buf[:0]
			return nil, err
		}
	}
	return r.buf[e.at-r.at:][:e.size], nil
}

var codecs = map[string]compress.Codec{"": &pq.Zstd, "zstd": &pq.Zstd, "snappy": &pq.Snappy, "gzip": &pq.Gzip, "none": &pq.Uncompressed}

func opName(o leatv1.Op) string { return pipeline.Op(o).String() }
