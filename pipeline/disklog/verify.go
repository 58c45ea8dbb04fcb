package disklog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"github.com/google/uuid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// Damage is one place of a log whose bytes are not those that were written.
type Damage struct {
	File string
	// Offset is where the damage begins, in bytes; Until where blocks are good again, 0 when nowhere.
	Offset, Until int64
	What          string
}

// Verify reads every byte of the log in dir and lists all damage; an error says that it could not read.
// It changes nothing and needs no lock; of a log that is being written it sees what is there.
func Verify(ctx context.Context, dir string) ([]Damage, Summary, error) {
	return verify(ctx, diskfs.OS{}, dir)
}

// verifier goes through the segments in order.
type verifier struct {
	ctx    context.Context
	fsys   diskfs.FS
	dir    string
	id     uuid.UUID
	sum    Summary
	damage []Damage
	tables *registry
	st     *state
	// chunks that were read: address → events; commits must name these.
	chunks map[uint64]uint32
	oldest uint64 // the first segment
}

func verify(ctx context.Context, fsys diskfs.FS, dir string) ([]Damage, Summary, error) {
	m, id, err := identify(fsys, dir)
	if err != nil {
		return nil, Summary{}, err
	}
	v := &verifier{ctx: ctx, fsys: fsys, dir: dir, id: id, sum: m.summary(), tables: newRegistry(), st: newState(), chunks: map[uint64]uint32{}}
	v.sum.Oldest, v.sum.Next = m.First, max(m.First, m.AtLeast)
	seqs, _, err := listSegments(fsys, dir)
	if err != nil && !v.note(err) {
		return nil, v.sum, err
	}
	for i, seq := range seqs {
		if i == 0 {
			v.oldest = seq
		}
		var next *segment
		if i+1 < len(seqs) {
			if next, err = v.peek(seqs[i+1]); err != nil {
				return v.damage, v.sum, err
			}
		}
		if err := v.segment(seq, next, i+1 == len(seqs)); err != nil {
			return v.damage, v.sum, err
		}
	}
	if err := v.st.whole(); err != nil && len(seqs) > 0 {
		v.note(&DamageError{File: filepath.Join(dir, segName(seqs[len(seqs)-1])), Offset: firstBlock, What: err.Error()})
	}
	v.sum.Last, v.sum.Ticket, v.sum.Notices = v.st.last, v.st.ticket, v.st.notices
	v.sum.Next = max(v.sum.Next, v.st.next)
	for _, k := range v.st.tables {
		v.sum.Tables = append(v.sum.Tables, k.table)
	}
	return v.damage, v.sum, nil
}

// note keeps a *DamageError; false for other errors.
func (v *verifier) note(err error) bool {
	var d *DamageError
	if !errors.As(err, &d) {
		return false
	}
	v.damage = append(v.damage, Damage{File: d.File, Offset: d.Offset, What: d.What})
	return true
}

// peek reads the header of a segment, nil when it is damaged (its own turn tells).
func (v *verifier) peek(seq uint64) (*segment, error) {
	s, _, err := openSegment(v.fsys, v.dir, seq, os.O_RDONLY)
	if d := (*DamageError)(nil); errors.As(err, &d) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s, s.file.Close()
}

func (v *verifier) segment(seq uint64, next *segment, last bool) (err error) {
	s, top, err := openSegment(v.fsys, v.dir, seq, os.O_RDONLY)
	if err != nil {
		if v.note(err) {
			return nil
		}
		return err
	}
	defer func() { err = errors.Join(err, s.file.Close()) }()
	if s.head.Log != v.id {
		v.note(&DamageError{File: s.name, What: "the segment belongs to another log"})
		return nil
	}
	limit, sl, sealed := s.size, seal{}, false
	if sl, sealed = parseSeal(top[sealAt:], seq); sealed {
		limit = sl.End
		if !last && sealedIndex(s, sl) == nil {
			v.damage = append(v.damage, Damage{File: s.name, Offset: sl.End, What: "the footer index does not match its checksum (it is rebuilt when the log is opened)"})
		}
	}
	proven := int64(0)
	if sealed {
		proven = sl.End
	}
	if next != nil {
		if _, proven = split(next.head.Prev); proven <= s.size {
			limit = proven
		}
	}
	if v.sum.Segments == nil {
		v.sum.Oldest = s.base()
	}
	r := &replay{st: v.st, seg: s, index: newIndex(seq, s.head.Base), tables: v.tables, oldest: v.oldest, opening: uint32(s.head.Epoch), batch: new(pipeline.Batch), load: v.load}
	if err := v.blocks(r, limit, proven); err != nil {
		return err
	}
	s.index, s.sealed = r.index, sealed
	v.sum.Segments = append(v.sum.Segments, s.summary())
	return nil
}

// blocks checks a segment's blocks and goes on behind damage with the next good one.
func (v *verifier) blocks(r *replay, limit, proven int64) error {
	s := r.seg
	in := stream{file: s.file, name: s.name, seq: s.seq}
	defer in.drop()
	for off := int64(firstBlock); off < limit; {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		h, block, err := in.block(off, limit)
		if err == nil && h.Epoch != epochOf(s.seq, r.opening) {
			err = errStale
		}
		if err == nil {
			err = v.block(r, &h, block, off)
			if invalid := (*record.InvalidError)(nil); errors.As(err, &invalid) {
				v.damage = append(v.damage, Damage{File: s.name, Offset: off, Until: off + int64(h.Size()), What: err.Error()})
				err = nil
				v.st.next = max(v.st.next, h.Base+pipeline.Offset(visible(&h)))
			}
			if err != nil && !v.note(err) {
				return err
			}
			off += int64(h.Size())
			s.end = off
			continue
		}
		if !bad(err) && !errors.Is(err, errStale) {
			return fmt.Errorf("%s, byte %d: %w", s.name, off, err)
		}
		again, perr := v.behind(&in, r, off, limit, proven)
		if perr != nil {
			return perr
		}
		if again == 0 && off >= proven {
			v.sum.Torn = torn(&in, off, limit)
			return nil
		}
		v.damage = append(v.damage, Damage{File: s.name, Offset: off, Until: again, What: err.Error()})
		if again == 0 {
			return nil
		}
		off = again
	}
	return nil
}

// behind finds the next good block behind a bad place: any below the proof, else one that proves the
// place.
func (v *verifier) behind(in *stream, r *replay, off, limit, proven int64) (int64, error) {
	place := address(in.seq, off)
	for at := off + record.Align; at+record.HeaderSize <= limit; at += record.Align {
		p, err := in.bytes(at, record.HeaderSize, limit)
		if err != nil {
			return 0, err
		}
		if p[0] != 'L' || p[1] != 't' {
			continue
		}
		h, _, err := in.block(at, limit)
		if err != nil || h.Epoch>>32 != in.seq || off >= proven && h.Synced <= place {
			continue
		}
		r.first, r.opening = true, uint32(h.Epoch)
		r.st.next = max(r.st.next, h.Base)
		return at, nil
	}
	return 0, nil
}

// torn counts the bytes from the first bad one to the last that is not zero.
func torn(in *stream, off, limit int64) int64 {
	end := off
	for at := off; at < limit; at += readAhead {
		p, err := in.bytes(at, readAhead, limit)
		if err != nil || len(p) == 0 {
			break
		}
		for i := len(p) - 1; i >= 0; i-- {
			if p[i] != 0 {
				end = at + int64(i) + 1
				break
			}
		}
	}
	return end - off
}

func visible(h *record.Header) uint32 {
	if h.Kind == record.KindChunk {
		return 0
	}
	return h.Events
}

func (v *verifier) block(r *replay, h *record.Header, block []byte, off int64) error {
	err := r.block(h, block, off)
	if err != nil {
		return err
	}
	v.sum.Blocks++
	switch h.Kind {
	case record.KindChunk:
		v.chunks[h.Address] = h.Events
	case record.KindCommit:
		for _, c := range r.chunks {
			if seq, _ := split(c.Address); seq < v.oldest {
				continue // retention keeps them together; a log whose oldest segments were taken away is told by Read
			}
			if n, ok := v.chunks[c.Address]; !ok || uint64(n) != c.Written() {
				return &record.InvalidError{What: fmt.Sprintf("the commit names a chunk at address %d that is not there", c.Address)}
			}
			delete(v.chunks, c.Address)
		}
	}
	return nil
}

// load reads a schema that a catalog points to.
func (v *verifier) load(a uint64) (*schemas.Table, error) {
	seq, off := split(a)
	name := filepath.Join(v.dir, segName(seq))
	f, err := v.fsys.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, &record.InvalidError{What: fmt.Sprintf("the catalog needs a schema of segment %d: %v", seq, err)}
	}
	defer func() { _ = f.Close() }() // opened for reading only
	st := stream{file: f, name: name, seq: seq}
	defer st.drop()
	return schemaBlock(&st, off, 1<<32-1)
}

// Entry is one block, as Dump shows it.
type Entry struct {
	File   string
	Offset int64
	record.Header
	// Batch of blocks that hold one, with the commit's offsets for a commit; Chunks that it names. Valid
	// during the call.
	Batch  *pipeline.Batch
	Chunks []record.Chunk
	Table  *schemas.Table
}

// Dump calls f for each block of the log in dir whose offsets touch [from, to), in order; to 0: all. It needs no
// lock. f's error ends it.
func Dump(ctx context.Context, dir string, from, to pipeline.Offset, f func(Entry) error) (err error) {
	var fsys diskfs.FS = diskfs.OS{}
	_, id, err := identify(fsys, dir)
	if err != nil {
		return err
	}
	tables := newRegistry()
	fd, err := recoverLog(fsys, dir, id, tables, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fd.close()) }()
	for i, s := range fd.segs {
		if i+1 < len(fd.segs) && fd.segs[i+1].base() < from || to > 0 && s.base() >= to {
			continue
		}
		if s.file == nil {
			if s.file, err = fsys.OpenFile(s.name, os.O_RDONLY); err != nil {
				return fmt.Errorf("open segment: %w", err)
			}
		}
		r := fd.replayOf(s, newState(), tables)
		in := stream{file: s.file, name: s.name, seq: s.seq}
		_, _, _, err := in.scan(&s.head, s.end, func(h *record.Header, block []byte, off int64) error {
			if err := errors.Join(ctx.Err(), r.block(h, block, off)); err != nil {
				return err
			}
			if h.Base+pipeline.Offset(h.Events) < from || to > 0 && h.Base >= to {
				return nil
			}
			e := Entry{File: s.name, Offset: off, Header: *h}
			if h.Kind.Batch() {
				e.Batch, e.Chunks = r.batch, r.chunks
			} else if h.Kind == record.KindSchema {
				e.Table, _ = record.DecodeSchema(block[h.Length : h.Length+h.Payload]) // r.block has read it before
			}
			return f(e)
		})
		in.drop()
		if err != nil {
			return err
		}
	}
	return nil
}
