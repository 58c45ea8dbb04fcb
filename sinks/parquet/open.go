package parquet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	pq "github.com/parquet-go/parquet-go"
)

// open finds out, at the first Delivery, what is there from before. Called with mu held.
func (s *Sink) open(ctx context.Context) error {
	if s.opened {
		return nil
	}
	if err := os.MkdirAll(s.o.Stage, 0o750); err != nil {
		return err
	}
	names, err := s.store.list(ctx, manifests)
	if err != nil {
		return fmt.Errorf("list %s: %w", s.o.Path, err)
	}
	var there []uint64 // manifests, in order
	for _, name := range names {
		if seq, ok := manifestSeq(name); ok {
			there = append(there, seq)
		}
	}
	s.next, s.files = 1, made{at: time.Now()}
	if len(there) > 0 {
		s.next = there[len(there)-1] + 1
	}
	clear(s.seen)
	s.waiting = nil
	if s.stage != nil { // of an open that failed
		if err := s.stage.f.Close(); err != nil {
			return err
		}
		s.stage = nil
	}
	if err := s.remember(ctx, there); err != nil {
		return err
	}
	if err := s.stages(ctx, there); err != nil {
		return err
	}
	s.opened = true
	s.wg.Go(s.work)
	return nil
}

// manifestSeq is the number of a manifest; ok is false for what is none, as the placeholders of folders in buckets.
func manifestSeq(name string) (seq uint64, ok bool) {
	text, ok := strings.CutSuffix(path.Base(name), ".json")
	seq, err := strconv.ParseUint(text, 10, 64)
	return seq, ok && err == nil && name == manifestName(seq)
}

// redrivesWithin so many newest manifests may be repeated after a crash: parks are saved at the cursor's pace.
const redrivesWithin = 16

// remember collects what stands in files and may come again: offsets from the cursor on, and those redriven lately.
func (s *Sink) remember(ctx context.Context, there []uint64) error {
	for i := len(there) - 1; i >= 0; i-- {
		name := manifestName(there[i])
		m, err := s.manifest(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if m.Subscription != s.o.Subscription {
			return fmt.Errorf("%s holds files of subscription %s: give each subscription a folder of its own", s.o.Path, m.Subscription)
		}
		s.files.high, s.files.complete = max(s.files.high, m.High), max(s.files.complete, m.Complete)
		s.files.completeTime = later(s.files.completeTime, m.CompleteTime)
		s.files.latest = later(s.files.latest, m.CompleteTime)
		for _, f := range m.Files {
			s.files.latest = later(s.files.latest, f.To)
		}
		recent := i >= len(there)-redrivesWithin
		if m.High < uint64(s.cursor.Low) && !recent {
			break // so are all before it
		}
		for _, text := range m.Redriven {
			if o, err := strconv.ParseUint(text, 10, 64); err == nil && recent {
				s.seen[o] = struct{}{}
			}
		}
		for _, f := range m.Files {
			if f.Last < uint64(s.cursor.Low) {
				continue
			}
			if err := s.offsets(ctx, f.Path, s.keep); err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
		}
	}
	return nil
}

// keep notes an offset that stands there already and may come again.
func (s *Sink) keep(o uint64) {
	if o >= uint64(s.cursor.Low) {
		s.seen[o] = struct{}{}
	}
}

func (s *Sink) manifest(ctx context.Context, name string) (m Manifest, err error) {
	f, size, err := s.store.open(ctx, name)
	if err != nil {
		return m, err
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	if err = errors.Join(err, f.Close()); err != nil {
		return m, err
	}
	return m, json.Unmarshal(text, &m)
}

// offsets calls see for those of a file.
func (s *Sink) offsets(ctx context.Context, name string, see func(uint64)) (err error) {
	in, size, err := s.store.open(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	f, err := pq.OpenFile(in, size)
	if err != nil {
		return err
	}
	leaf, ok := f.Schema().Lookup(colOffset)
	if !ok {
		return fmt.Errorf("it has no column %s", colOffset)
	}
	values := make([]pq.Value, 1024)
	for _, group := range f.RowGroups() {
		pages := group.ColumnChunks()[leaf.ColumnIndex].Pages()
		for {
			page, err := pages.ReadPage()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return errors.Join(err, pages.Close())
			}
			for r := page.Values(); ; {
				n, err := r.ReadValues(values)
				for _, v := range values[:n] {
					see(uint64(v.Int64()))
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return errors.Join(err, pages.Close())
				}
			}
			pq.Release(page)
		}
		if err := pages.Close(); err != nil {
			return err
		}
	}
	return nil
}

// stages takes up those that a crash or an end left: all but the newest wait for the store.
func (s *Sink) stages(ctx context.Context, there []uint64) error {
	seqs, err := stages(s.o.Stage)
	if err != nil {
		return err
	}
	done := map[uint64]bool{}
	for _, seq := range there {
		done[seq] = true
	}
	var left []uint64
	for _, seq := range seqs {
		if done[seq] {
			m, err := s.manifest(ctx, manifestName(seq))
			if err != nil {
				return fmt.Errorf("%s: %w", manifestName(seq), err)
			}
			name := stageName(s.o.Stage, seq)
			id, err := stageID(name)
			if err != nil {
				return err
			}
			if id == m.Stage { // its manifest was the last thing that was done
				if err := os.Remove(name); err != nil {
					return err
				}
				continue
			}
		}
		left = append(left, seq)
	}
	if left, err = s.renumber(left); err != nil {
		return err
	}
	for i, seq := range left {
		last := i == len(left)-1
		st, err := reopen(s.o.Stage, seq, last, func(f frame) {
			for _, e := range f.Events.Events {
				if s.keep(e.Offset); f.redriven {
					s.seen[e.Offset] = struct{}{}
				}
			}
		})
		if err != nil {
			return err
		}
		if st == nil {
			continue
		}
		if s.stage = st; !last || st.size >= s.o.RollBytes {
			if err := s.roll(); err != nil {
				return err
			}
			if !last {
				s.waiting[len(s.waiting)-1].complete = 0 // it was not known when this one ended
			}
		}
	}
	return nil
}

// renumber gives stages whose numbers are taken by other stages' manifests (the path was another one) the next ones, and
// keeps their order.
func (s *Sink) renumber(seqs []uint64) ([]uint64, error) {
	to := make([]uint64, len(seqs))
	for i, seq := range seqs {
		to[i] = max(seq, s.next)
		s.next = to[i] + 1
	}
	for i := len(seqs) - 1; i >= 0; i-- { // from the last on, no two have one name
		if seqs[i] == to[i] {
			continue
		}
		if err := os.Rename(stageName(s.o.Stage, seqs[i]), stageName(s.o.Stage, to[i])); err != nil {
			return nil, err
		}
	}
	return to, syncFolder(filepath.Clean(s.o.Stage))
}
