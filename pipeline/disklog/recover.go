package disklog

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"github.com/google/uuid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// found is what recovery learned from the folder.
type found struct {
	fsys     diskfs.FS
	segs     []*segment
	st       *state
	opening  uint32 // of the last segment
	proven   int64  // byte of the last segment up to which it is proven synced
	lastSeal bool   // the last segment is sealed: a new one must follow
	spares   []string
	// half are the oldest segments that a crash kept from going with those whose chunks they need.
	half []*segment
}

// listSegments returns the numbers of the segments in the folder and checks that none is missing.
func listSegments(fsys diskfs.FS, dir string) (seqs []uint64, spares []string, err error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list folder of log: %w", err)
	}
	for _, n := range names {
		if seq, ok := segSeq(n); ok {
			seqs = append(seqs, seq)
		} else if strings.HasPrefix(n, spareName) {
			spares = append(spares, filepath.Join(dir, n))
		}
	}
	slices.Sort(seqs)
	for i := 1; i < len(seqs); i++ {
		if seqs[i] != seqs[i-1]+1 {
			return nil, nil, &DamageError{File: filepath.Join(dir, segName(seqs[i-1]+1)), What: "the segment is missing"}
		}
	}
	return seqs, spares, nil
}

// recoverLog reads the folder: headers and footers of all segments, the blocks of the last one.
func recoverLog(fsys diskfs.FS, dir string, id uuid.UUID, tables *registry, flag int) (fd *found, err error) {
	fd = &found{fsys: fsys, st: newState()}
	seqs, spares, err := listSegments(fsys, dir)
	if err != nil {
		return nil, err
	}
	fd.spares = spares
	all := fd
	defer func() {
		if err != nil {
			_ = all.close() // what counts is why recovery failed
		}
	}()
	for i, seq := range seqs {
		s, top, err := openSegment(fsys, dir, seq, flag)
		if err != nil {
			return nil, err
		}
		fd.segs = append(fd.segs, s)
		if s.head.Log != id {
			return nil, &DamageError{File: s.name, What: "the segment belongs to another log"}
		}
		if i > 0 {
			if err := fd.bound(fd.segs[i-1], s); err != nil {
				return nil, err
			}
		}
		if sl, ok := parseSeal(top[sealAt:], seq); ok {
			s.sealed, s.end, s.index = true, sl.End, sealedIndex(s, sl)
		}
	}
	for i, s := range fd.segs {
		if i == len(fd.segs)-1 {
			if err = fd.scanLast(tables); err == nil {
				err = fd.leaveHalf()
			}
			if err == nil {
				weigh(fd.segs)
			}
			return fd, err
		}
		if s.index == nil {
			if err := fd.rebuild(s, tables); err != nil {
				return nil, err
			}
		}
		s.sealed = true
		if err := s.file.Close(); err != nil {
			return nil, fmt.Errorf("close segment: %w", err)
		}
		s.file = nil
	}
	return fd, nil
}

// leaveHalf parts from segments that need chunks of segments which are gone. Retention removes a
// transaction's segments one by one; a crash may keep the later ones.
func (fd *found) leaveHalf() error {
	n := 0
	for i := 0; i < len(fd.segs); i++ {
		if fd.segs[i].index.Needs < fd.segs[n].seq {
			n = i + 1 // and those that need one of these
		}
		if n == len(fd.segs) {
			break
		}
	}
	if n == len(fd.segs) {
		s := fd.segs[n-1]
		return &DamageError{File: filepath.Join(filepath.Dir(s.name), segName(s.index.Needs)), What: "the segment is missing; the last one holds a transaction that begins in it"}
	}
	fd.half, fd.segs = fd.segs[:n], fd.segs[n:]
	return nil
}

// bound takes the end of a segment from the header of the next, where it is proven.
func (fd *found) bound(s, next *segment) error {
	seq, end := split(next.head.Prev)
	if seq != s.seq || end < firstBlock || end > s.size {
		return &DamageError{File: s.name, Offset: end, What: "the file is shorter than the segment behind it says"}
	}
	if s.sealed && s.end != end {
		s.sealed, s.index = false, nil
	}
	s.end = end
	return nil
}

// rebuild makes the index of a segment whose footer is missing.
func (fd *found) rebuild(s *segment, tables *registry) error {
	r := fd.replayOf(s, newState(), tables)
	end, _, why, err := r.run(s.end)
	if err != nil {
		return err
	}
	if end < s.end {
		return &DamageError{File: s.name, Offset: end, What: why.Error()}
	}
	s.index = r.index
	return nil
}

func (fd *found) replayOf(s *segment, st *state, tables *registry) *replay {
	return &replay{st: st, seg: s, opening: uint32(s.head.Epoch), index: newIndex(s.seq, s.head.Base), tables: tables, oldest: fd.segs[0].seq, batch: new(pipeline.Batch),
		load: func(a uint64) (*schemas.Table, error) { return fd.schemaAt(a, s) }}
}

func (r *replay) run(limit int64) (end int64, proven uint64, why error, err error) {
	st := stream{file: r.seg.file, name: r.seg.name, seq: r.seg.seq}
	defer st.drop()
	return st.scan(&r.seg.head, limit, r.block)
}

// schemaAt reads the schema block at an address, from whichever segment.
func (fd *found) schemaAt(a uint64, from *segment) (*schemas.Table, error) {
	seq, off := split(a)
	for _, s := range fd.segs {
		if s.seq != seq {
			continue
		}
		f := s.file
		if f == nil {
			var err error
			if f, err = fd.fsys.OpenFile(s.name, os.O_RDONLY); err != nil {
				return nil, fmt.Errorf("open segment: %w", err)
			}
			defer func() { _ = f.Close() }() // opened for reading only
		}
		st := stream{file: f, name: s.name, seq: seq}
		defer st.drop()
		return schemaBlock(&st, off, s.size)
	}
	return nil, &DamageError{File: from.name, Offset: firstBlock, What: fmt.Sprintf("the catalog names a schema in segment %d, which is not there", seq)}
}

func schemaBlock(st *stream, off, limit int64) (*schemas.Table, error) {
	h, block, err := st.block(off, limit)
	if err == nil && h.Kind != record.KindSchema {
		err = &record.InvalidError{What: "no schema where the index says"}
	}
	if err != nil {
		if bad(err) {
			err = &DamageError{File: st.name, Offset: off, What: err.Error()}
		}
		return nil, err
	}
	return record.DecodeSchema(block[h.Length : h.Length+h.Payload])
}

// scanLast reads the last segment's blocks, tells a torn tail from damage and finds what is proven.
func (fd *found) scanLast(tables *registry) error {
	s := fd.segs[len(fd.segs)-1]
	r := fd.replayOf(s, fd.st, tables)
	r.st.next = s.head.Base
	limit := s.size
	if s.sealed {
		limit = s.end
	}
	end, proven, why, err := r.run(limit)
	if err != nil {
		return err
	}
	if s.sealed && end < limit {
		return &DamageError{File: s.name, Offset: end, What: why.Error()}
	}
	if !r.first {
		return &DamageError{File: s.name, Offset: firstBlock, What: "the segment's catalog: " + reason(why)}
	}
	if !s.sealed && end < limit {
		st := stream{file: s.file, name: s.name, seq: s.seq}
		defer st.drop()
		damage, by, err := st.proofBeyond(end, limit)
		if err != nil {
			return err
		}
		if damage {
			return &DamageError{File: s.name, Offset: end, What: fmt.Sprintf("%s; the block at byte %d proves that it was written whole", reason(why), by)}
		}
	}
	if err := fd.st.whole(); err != nil {
		return &DamageError{File: s.name, Offset: firstBlock, What: err.Error()}
	}
	clear(fd.st.open)
	fd.lastSeal, s.end, s.index = s.sealed, end, r.index
	_, fd.proven = split(proven)
	fd.opening = r.opening
	return nil
}

func reason(err error) string {
	if err == nil {
		return "the file ends"
	}
	return err.Error()
}
