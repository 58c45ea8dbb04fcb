// Package record turns batches, schemas and control records into the bytes of the log and back.
//
// A Block is a fixed header, a payload and padding to a multiple of 8 bytes. FORMAT.md beside this file
// describes every byte. The package is pure: it neither opens files nor keeps state; what it decodes is
// checked in full, so that no bytes, however damaged, lead a reader outside of them.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/leat-cdc/leat/pipeline"
)

// Version is the newest format that this package reads. A block is written in the oldest that can say it:
// all in 1, but the records of ranges (KindRanges, a catalog that states ranges) in 2, those of snapshots
// (KindSnapshot, a catalog that states marks) and chunks and commits that know of subtransactions in 3.
const Version = 3

const (
	// HeaderSize is the length of the header of format 1.
	HeaderSize = 72
	// MaxPayload bounds what one block may hold.
	MaxPayload = 1 << 30
	// Align is what addresses and sizes of blocks are multiples of.
	Align = 8

	magic = 0x6b42744c // "LtBk"

	// rangesVersion is the first format that knows ranges: an older version refuses the log by its number.
	rangesVersion = 2
	// snapshotVersion is the first that knows snapshots, and parts of transactions: chunks with several entries,
	// commits with cuts.
	snapshotVersion = 3
	partsVersion    = snapshotVersion
)

// Kind says what a block holds. The numbers stand in the log: never reuse one.
type Kind uint8

const (
	// KindRows, KindChunk, KindCommit and KindAbort hold a batch of that kind (pipeline.BatchKind). A
	// position or notices alone are rows without events.
	KindRows   Kind = 1
	KindChunk  Kind = 2
	KindCommit Kind = 3
	KindAbort  Kind = 4
	// KindSchema holds one version of one table.
	KindSchema Kind = 5
	// KindCatalog opens a segment: all that is known at its start.
	KindCatalog Kind = 6
	// KindEpoch: the log was opened again here; the blocks behind it carry the epoch that it names.
	KindEpoch Kind = 7
	// KindProof holds nothing; its header proves what was synced before it.
	KindProof Kind = 8
	// KindFooter is the index of a sealed segment.
	KindFooter Kind = 9
	// KindRanges holds a batch of changes of ranges; KindSnapshot one of a snapshot job: rows with its mark.
	KindRanges   Kind = 16
	KindSnapshot Kind = 17
	// KindPrepared: a transaction's chunks stay until its commit, which comes later.
	KindPrepared Kind = 18
)

var kindNames = map[Kind]string{KindRows: "rows", KindChunk: "chunk", KindCommit: "commit", KindAbort: "abort", KindSchema: "schema",
	KindCatalog: "catalog", KindEpoch: "epoch", KindProof: "proof", KindFooter: "footer", KindRanges: "ranges", KindSnapshot: "snapshot", KindPrepared: "prepared"}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind%d", uint8(k))
}

// version is the oldest format that has the kind.
func (k Kind) version() uint16 {
	switch k {
	case KindRanges:
		return rangesVersion
	case KindSnapshot, KindPrepared:
		return snapshotVersion
	}
	return 1
}

// Batch reports whether the block holds a pipeline.Batch.
func (k Kind) Batch() bool {
	return k >= KindRows && k <= KindAbort || k == KindRanges || k == KindSnapshot || k == KindPrepared
}

// FlagZstd is kept for payloads compressed with zstd; format 1 never sets it.
const FlagZstd = 1 << 0

// Header is the fixed part of a block.
type Header struct {
	Kind  Kind
	Flags uint8
	// Epoch names the segment (high 32 bits) and the opening of the log (low 32) that wrote the block:
	// bytes of another epoch are stale.
	Epoch uint64
	// Address is where the block lies: segment number << 32 | byte offset in the segment's file.
	Address uint64
	// Synced is the address up to which the log was proven synced before this block was written.
	Synced uint64
	// Base is the offset of the first event; of other blocks, the offset that the next event gets.
	Base pipeline.Offset
	// Events is how many offsets the block gives out: of a chunk none yet, but the number of its events.
	Events uint32
	// Ticket is that of the Append; 0 for what the log writes by itself.
	Ticket uint64
	// Time is the newest commit time in the block, microseconds since 1970 UTC; 0 when it has none.
	Time int64
	// Payload is the payload's length; set by Parse and Finish.
	Payload int
	// Length of the header as it stands; set by Parse and Finish.
	Length int
	// Version of the block's format; 0 is given by Finish.
	Version uint16
	crc     uint32
}

// Size is the block's whole length with padding.
func (h *Header) Size() int { return Padded(h.Length + h.Payload) }

// Padded rounds n up to a multiple of Align.
func Padded(n int) int { return (n + Align - 1) &^ (Align - 1) }

var (
	// ErrNotBlock: there is no block here (no magic word, or lengths that cannot be).
	ErrNotBlock = errors.New("no block")
	// ErrShort: the block is longer than the bytes at hand.
	ErrShort = errors.New("block is cut short")
	// ErrChecksum: the bytes are not those that were written.
	ErrChecksum = errors.New("checksum does not match")
)

// NewerError: the block was written by a version that this one does not know.
type NewerError struct{ Version uint16 }

// Error says what to do.
func (e *NewerError) Error() string {
	return fmt.Sprintf("log format %d is newer than this version of leat reads (%d); use the version that wrote it, or a newer one", e.Version, Version)
}

// InvalidError: the checksum holds but the content contradicts itself.
type InvalidError struct{ What string }

// Error names what is wrong.
func (e *InvalidError) Error() string { return "invalid record: " + e.What }

func invalid(format string, args ...any) error {
	return &InvalidError{What: fmt.Sprintf(format, args...)}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC goes on with a checksum (start with 0) over p.
func CRC(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }

// Parse reads the header at the start of p. The payload need not be there; its checksum is Check's. A
// *NewerError comes with a Header whose lengths are valid, so that Check can tell it from damage.
func Parse(p []byte) (Header, error) {
	if len(p) < HeaderSize {
		return Header{}, ErrShort
	}
	le := binary.LittleEndian
	if le.Uint32(p) != magic {
		return Header{}, ErrNotBlock
	}
	h := Header{
		Kind: Kind(p[6]), Flags: p[7],
		Version: le.Uint16(p[4:]),
		Length:  int(le.Uint16(p[8:])),
		Payload: int(le.Uint32(p[12:])),
		crc:     le.Uint32(p[16:]),
		Events:  le.Uint32(p[20:]),
		Epoch:   le.Uint64(p[24:]),
		Base:    pipeline.Offset(le.Uint64(p[32:])),
		Ticket:  le.Uint64(p[40:]),
		Synced:  le.Uint64(p[48:]),
		Address: le.Uint64(p[56:]),
		Time:    int64(le.Uint64(p[64:])),
	}
	version := h.Version
	if version == 0 || h.Length < HeaderSize || h.Payload > MaxPayload {
		return Header{}, ErrNotBlock
	}
	if version > Version {
		return h, &NewerError{Version: version}
	}
	if h.Length != HeaderSize {
		return Header{}, ErrNotBlock
	}
	return h, nil
}

// Check compares the checksum of the whole block.
func (h *Header) Check(block []byte) error {
	n := h.Length + h.Payload
	if len(block) < n {
		return ErrShort
	}
	crc := CRC(0, block[h.Length:n])
	crc = CRC(crc, block[:16])
	crc = CRC(crc, block[20:h.Length])
	if crc != h.crc {
		return ErrChecksum
	}
	return nil
}

// Open parses and checks the block at the start of p and returns its payload, which aliases p.
func Open(p []byte) (Header, []byte, error) {
	h, err := Parse(p)
	if err != nil {
		if newer := (*NewerError)(nil); errors.As(err, &newer) && h.Check(p) != nil {
			err = ErrNotBlock // not a newer block but damaged bytes
		}
		return h, nil, err
	}
	if err := h.Check(p); err != nil {
		return h, nil, err
	}
	return h, p[h.Length : h.Length+h.Payload], nil
}

// Finish writes the header into the first HeaderSize bytes of head. crc is the checksum of the payload,
// payload its length; the payload's bytes follow the header, wherever they are now.
func Finish(head []byte, h *Header, crc uint32, payload int) {
	le := binary.LittleEndian
	p := head[:HeaderSize]
	le.PutUint32(p, magic)
	if h.Version == 0 {
		h.Version = h.Kind.version()
	}
	le.PutUint16(p[4:], h.Version)
	p[6], p[7] = byte(h.Kind), h.Flags
	le.PutUint16(p[8:], HeaderSize)
	le.PutUint16(p[10:], 0)
	le.PutUint32(p[12:], uint32(payload))
	le.PutUint32(p[20:], h.Events)
	le.PutUint64(p[24:], h.Epoch)
	le.PutUint64(p[32:], uint64(h.Base))
	le.PutUint64(p[40:], h.Ticket)
	le.PutUint64(p[48:], h.Synced)
	le.PutUint64(p[56:], h.Address)
	le.PutUint64(p[64:], uint64(h.Time))
	crc = CRC(crc, p[:16])
	crc = CRC(crc, p[20:])
	le.PutUint32(p[16:], crc)
	h.crc, h.Payload, h.Length = crc, payload, HeaderSize
}

// AppendBlock appends a whole block with the given payload, padded.
func AppendBlock(dst, payload []byte, h *Header) []byte {
	at := len(dst)
	var zero [HeaderSize]byte
	dst = append(dst, zero[:]...)
	dst = append(dst, payload...)
	Finish(dst[at:], h, CRC(0, payload), len(payload))
	return append(dst, zero[:Padded(len(dst)-at)-(len(dst)-at)]...)
}
