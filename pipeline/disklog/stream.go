package disklog

import (
	"errors"
	"fmt"
	"io"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"github.com/leat-cdc/leat/pipeline/record"
)

// stream reads the blocks of one segment file in large pieces.
type stream struct {
	file diskfs.File
	name string
	seq  uint64
	buf  *buffer
	at   int64 // file offset of buf.b[0]
	have int   // bytes of buf that are filled

	group *group // shares what is read; limits are then where nothing is written any more
}

// bytes returns up to n bytes at off, fewer only at limit or the end of the file. They are valid until the
// next call, longer for those who hold s.buf.
func (s *stream) bytes(off int64, n int, limit int64) ([]byte, error) {
	n = int(max(0, min(int64(n), limit-off)))
	if s.buf != nil && off >= s.at && off+int64(n) <= s.at+int64(s.have) {
		i := int(off - s.at)
		return s.buf.b[i : i+n : i+n], nil
	}
	if s.group != nil && s.group.lend(s, off, n) {
		i := int(off - s.at)
		return s.buf.b[i : i+n : i+n], nil
	}
	if s.buf == nil || s.buf.refs.Load() > 1 || len(s.buf.b) < n || len(s.buf.b) > readAhead {
		s.drop()
		s.buf = newBuffer(n)
	}
	s.at, s.have = off, 0
	want := min(int64(len(s.buf.b)), limit-off)
	if want <= 0 {
		return nil, nil
	}
	got, err := s.file.ReadAt(s.buf.b[:want], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read segment %s: %w", s.name, err)
	}
	s.have = got
	if s.group != nil {
		s.group.borrow(s)
	}
	n = min(n, got)
	return s.buf.b[:n:n], nil
}

func (s *stream) drop() {
	if s.buf != nil {
		s.buf.release()
		s.buf, s.have = nil, 0
	}
}

// header reads the block header at off without checking the payload.
func (s *stream) header(off, limit int64) (record.Header, error) {
	p, err := s.bytes(off, record.HeaderSize, limit)
	if err != nil {
		return record.Header{}, err
	}
	h, err := record.Parse(p)
	if err == nil && h.Address != address(s.seq, off) {
		err = record.ErrNotBlock
	}
	return h, err
}

// block reads and checks the whole block at off.
func (s *stream) block(off, limit int64) (record.Header, []byte, error) {
	h, err := s.header(off, limit)
	newer := (*record.NewerError)(nil)
	if err != nil && !errors.As(err, &newer) {
		return h, nil, err
	}
	p, rerr := s.bytes(off, h.Size(), limit)
	if rerr != nil {
		return h, nil, rerr
	}
	if len(p) < h.Size() {
		return h, nil, record.ErrShort
	}
	if cerr := h.Check(p); cerr != nil {
		return h, nil, cerr
	}
	return h, p, err
}

// bad reports whether err says that the bytes are no valid block, and not that reading failed.
func bad(err error) bool {
	return errors.Is(err, record.ErrNotBlock) || errors.Is(err, record.ErrShort) || errors.Is(err, record.ErrChecksum)
}

// scan calls f for each block from firstBlock up to limit, in order, and returns where the first bytes lie
// that are no valid block of the segment, why, and the highest proof seen. Blocks of another epoch are stale.
func (s *stream) scan(head *segHeader, limit int64, f func(h *record.Header, block []byte, off int64) error) (end int64, proven uint64, why error, err error) {
	epoch, off := head.Epoch, int64(firstBlock)
	proven = address(s.seq, firstBlock)
	for off < limit {
		h, block, err := s.block(off, limit)
		if err == nil && h.Epoch != epoch {
			err = errStale
		}
		if err != nil {
			if bad(err) || errors.Is(err, errStale) {
				return off, proven, err, nil
			}
			return off, proven, nil, fmt.Errorf("%s, byte %d: %w", s.name, off, err)
		}
		proven = max(proven, h.Synced)
		if err := f(&h, block, off); err != nil {
			if invalid := (*record.InvalidError)(nil); errors.As(err, &invalid) {
				err = &DamageError{File: s.name, Offset: off, What: err.Error()}
			}
			return off, proven, nil, err
		}
		if h.Kind == record.KindEpoch {
			e, err := record.DecodeEpoch(block[h.Length : h.Length+h.Payload])
			if err != nil {
				return off, proven, nil, &DamageError{File: s.name, Offset: off, What: err.Error()}
			}
			epoch = e.Epoch
		}
		off += int64(h.Size())
	}
	return off, proven, nil, nil
}

var errStale = errors.New("block of another epoch")

// proofBeyond looks behind a bad place for a valid block of this segment that proves the place synced:
// then it is damage and not a torn tail. The second result is where that block lies.
func (s *stream) proofBeyond(off, limit int64) (bool, int64, error) {
	place := address(s.seq, off)
	for at := off + record.Align; at < limit; {
		p, err := s.bytes(at, readAhead, limit)
		if err != nil {
			return false, 0, err
		}
		i := 0
		for ; i+record.HeaderSize <= len(p); i += record.Align {
			if p[i] != 'L' || p[i+1] != 't' {
				continue
			}
			h, err := record.Parse(p[i:])
			if err != nil || h.Epoch>>32 != s.seq || h.Address != address(s.seq, at+int64(i)) || h.Synced <= place {
				continue
			}
			whole, err := s.bytes(at+int64(i), h.Size(), limit)
			if err != nil {
				return false, 0, err
			}
			if h.Check(whole) == nil {
				return true, at + int64(i), nil
			}
			if p, err = s.bytes(at, readAhead, limit); err != nil {
				return false, 0, err
			}
		}
		if i == 0 {
			break
		}
		at += int64(i)
	}
	return false, 0, nil
}
