package disklog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"github.com/google/uuid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

const (
	sector     = 512
	firstBlock = 4096 // the header's sector, the seal's sector, the rest empty
	sealAt     = sector
	segSuffix  = ".seg"
	nextName   = "next"
	spareName  = "spare-"

	headMagic = "LeatSeg\n"
	sealMagic = "LeatEnd\n"

	// maxSegment keeps byte offsets inside of 32 bits, with room for one block beyond the size asked for.
	maxSegment = 2 << 30
)

// address of a byte in the log: order of addresses is order of writing.
func address(seq uint64, off int64) uint64      { return seq<<32 | uint64(off) }
func split(a uint64) (seq uint64, off int64)    { return a >> 32, int64(a & (1<<32 - 1)) }
func segName(seq uint64) string                 { return fmt.Sprintf("%020d%s", seq, segSuffix) }
func epochOf(seq uint64, opening uint32) uint64 { return seq<<32 | uint64(opening) }

func segSeq(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return n, err == nil && n > 0
}

// segHeader is the first sector of a segment, synced before the segment gets its name.
type segHeader struct {
	Seq   uint64
	Epoch uint64
	Log   uuid.UUID
	// Prev is the address where the segment before ended; proven synced.
	Prev uint64
	// Base is the offset that the next event got.
	Base    pipeline.Offset
	Created int64 // microseconds
}

// seal is the second sector, written when nothing more will be.
type seal struct {
	Seq uint64
	// End is where the blocks end and the footer begins, Footer its size.
	End, Footer int64
}

func putSector(magic string, fields ...uint64) []byte {
	p := make([]byte, sector)
	copy(p, magic)
	le := binary.LittleEndian
	le.PutUint32(p[8:], formatVersion)
	for i, f := range fields {
		le.PutUint64(p[16+8*i:], f)
	}
	crc := record.CRC(0, p[:12])
	le.PutUint32(p[12:], record.CRC(crc, p[16:]))
	return p
}

var errSector = errors.New("checksum does not match")

func checkSector(p []byte, magic string) error {
	if len(p) < sector || string(p[:8]) != magic {
		return errors.New("magic word is missing")
	}
	le := binary.LittleEndian
	crc := record.CRC(0, p[:12])
	if record.CRC(crc, p[16:sector]) != le.Uint32(p[12:]) {
		return errSector
	}
	if v := le.Uint32(p[8:]); v > formatVersion {
		return &record.NewerError{Version: uint16(v)}
	}
	return nil
}

func (h *segHeader) bytes() []byte {
	le := binary.LittleEndian
	return putSector(headMagic, h.Seq, h.Epoch, le.Uint64(h.Log[:]), le.Uint64(h.Log[8:]), h.Prev, uint64(h.Base), uint64(h.Created))
}

func parseHead(p []byte) (segHeader, error) {
	if err := checkSector(p, headMagic); err != nil {
		return segHeader{}, err
	}
	le := binary.LittleEndian
	h := segHeader{Seq: le.Uint64(p[16:]), Epoch: le.Uint64(p[24:]), Prev: le.Uint64(p[48:]), Base: pipeline.Offset(le.Uint64(p[56:])), Created: int64(le.Uint64(p[64:]))}
	copy(h.Log[:], p[32:48])
	return h, nil
}

func (s *seal) bytes() []byte { return putSector(sealMagic, s.Seq, uint64(s.End), uint64(s.Footer)) }

// parseSeal returns ok false when the segment seq is not sealed (zeros, or the seal of the file's earlier life).
func parseSeal(p []byte, seq uint64) (s seal, ok bool) {
	if checkSector(p, sealMagic) != nil {
		return s, false
	}
	le := binary.LittleEndian
	s = seal{Seq: le.Uint64(p[16:]), End: int64(le.Uint64(p[24:])), Footer: int64(le.Uint64(p[32:]))}
	return s, s.Seq == seq && s.End >= firstBlock && s.Footer > 0 && s.End+s.Footer < 1<<32
}

// DamageError: the log's bytes below what was proven synced are not those that were written.
type DamageError struct {
	File string
	// Offset in the file, in bytes.
	Offset int64
	What   string
}

// Error names the place and the cure.
func (e *DamageError) Error() string {
	return fmt.Sprintf("%s is damaged at byte %d: %s; `leat log verify` lists all damage; restore the log's folder from a backup, or remove it and let the source be read anew", e.File, e.Offset, e.What)
}

// segment is one file of the log. Fields without a remark never change.
type segment struct {
	seq  uint64
	name string // path
	head segHeader

	// Under Log.mu:
	file   diskfs.File // open while refs > 0 or active
	refs   int
	sealed bool
	size   int64 // of the file
	end    int64 // where the published blocks end
	again  int64 // bytes of it that the log had before: catalog, moved chunks; not known of those of earlier openings
	index  *index
}

// fresh is how much was first written in it. Log.mu is held.
func (s *segment) fresh() int64 { return s.end - firstBlock - s.again }

// base is the offset of the first event in it or after.
func (s *segment) base() pipeline.Offset { return s.head.Base }

func openSegment(fsys diskfs.FS, dir string, seq uint64, flag int) (*segment, []byte, error) {
	s := &segment{seq: seq, name: filepath.Join(dir, segName(seq))}
	f, err := fsys.OpenFile(s.name, flag)
	if err != nil {
		return nil, nil, fmt.Errorf("open segment: %w", err)
	}
	s.file = f
	top := make([]byte, 2*sector)
	if s.size, err = f.Size(); err == nil && s.size < firstBlock {
		err = &DamageError{File: s.name, Offset: s.size, What: "the file is cut short"}
	}
	if err == nil {
		err = readFull(f, top, 0)
	}
	if err == nil {
		if s.head, err = parseHead(top); err != nil {
			if newer := (*record.NewerError)(nil); !errors.As(err, &newer) {
				err = &DamageError{File: s.name, What: "segment header: " + err.Error()}
			}
		} else if s.head.Seq != seq {
			err = &DamageError{File: s.name, What: fmt.Sprintf("segment header says number %d", s.head.Seq)}
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return s, top, nil
}

func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sealedIndex reads the footer; nil when it is missing or damaged (then it is rebuilt by a scan).
func sealedIndex(s *segment, sl seal) *index {
	p := make([]byte, sl.Footer)
	if s.size < sl.End+sl.Footer || readFull(s.file, p, sl.End) != nil {
		return nil
	}
	h, payload, err := record.Open(p)
	if err != nil || h.Kind != record.KindFooter || h.Address != address(s.seq, sl.End) || h.Epoch>>32 != s.seq {
		return nil
	}
	f, err := record.DecodeFooter(payload)
	if err != nil || f.Base != s.head.Base || f.Next < f.Base {
		return nil
	}
	return indexOf(f)
}
