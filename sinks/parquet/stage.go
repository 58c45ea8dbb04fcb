package parquet

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// A stage is a head (magic, time of its first event in microseconds) and frames: length, CRC-32C, a leat.v1.Events.
const (
	stageMagic = "leatstg1"
	headSize   = len(stageMagic) + 8
	frameHead  = 8
	// mostFrame bounds what is believed of a length: a Delivery has at most 64 MiB, and grows when it is encoded.
	mostFrame = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stage is the file that Deliveries are appended to.
type stage struct {
	f     *os.File
	seq   uint64
	since time.Time
	size  int64
	// known are the table versions that it describes.
	known map[version]bool
}

type version struct{ id, version uint32 }

func stageName(folder string, seq uint64) string {
	return filepath.Join(folder, fmt.Sprintf("%020d.stage", seq))
}

// stages lists those of a folder, in order.
func stages(folder string) (seqs []uint64, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".stage")
		if n, err := strconv.ParseUint(name, 10, 64); ok && err == nil {
			seqs = append(seqs, n)
		}
	}
	slices.Sort(seqs)
	return seqs, nil
}

func newStage(folder string, seq uint64, now time.Time) (*stage, error) {
	f, err := os.OpenFile(stageName(folder, seq), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	s := &stage{f: f, seq: seq, since: now, size: int64(headSize), known: map[version]bool{}}
	_, err = f.Write(binary.LittleEndian.AppendUint64([]byte(stageMagic), uint64(now.UnixMicro())))
	if err = errors.Join(err, f.Sync(), syncFolder(folder)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return s, nil
}

// append writes a frame: head's fields and the entries, which are encoded Events.events. It is on the disk when append
// returns nil, and not there at all otherwise.
func (s *stage) append(head *leatv1.Events, entries [][]byte) error {
	frame, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, frameHead, 512), head)
	if err != nil {
		return err
	}
	n, sum := len(frame)-frameHead, crc32.Checksum(frame[frameHead:], castagnoli)
	for _, p := range entries {
		n, sum = n+len(p), crc32.Update(sum, castagnoli, p)
	}
	binary.LittleEndian.PutUint32(frame, uint32(n))
	binary.LittleEndian.PutUint32(frame[4:], sum)
	_, err = s.f.WriteAt(frame, s.size)
	at := s.size + int64(len(frame))
	for _, p := range entries {
		if err == nil {
			_, err = s.f.WriteAt(p, at)
			at += int64(len(p))
		}
	}
	if err == nil {
		err = s.f.Sync()
	}
	if err != nil {
		return errors.Join(err, s.f.Truncate(s.size))
	}
	s.size = at
	for _, t := range head.Tables {
		s.known[version{t.Id, t.Version}] = true
	}
	return nil
}

// readStage calls each for the frames of a stage, in order, and returns the time of the head and the length of what is
// whole: what a crash tore off was never reported as delivered. at is where a frame begins.
func readStage(path string, each func(at int64, m *leatv1.Events) error) (since time.Time, whole int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return time.Time{}, 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	head := make([]byte, headSize)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:len(stageMagic)]) != stageMagic {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return time.Time{}, 0, nil // torn while it was made
		}
		return time.Time{}, 0, fmt.Errorf("%s is not a stage of ours: move it away", path)
	}
	since, whole = time.UnixMicro(int64(binary.LittleEndian.Uint64(head[len(stageMagic):]))), int64(headSize)
	for {
		m, n, err := readFrame(r)
		if err != nil || m == nil {
			return since, whole, err
		}
		if err := each(whole, m); err != nil {
			return since, whole, err
		}
		whole += n
	}
}

// readFrame returns nil at the end, and for what is torn.
func readFrame(r io.Reader) (m *leatv1.Events, n int64, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, torn(err)
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > mostFrame {
		return nil, 0, nil
	}
	body := make([]byte, 0, min(size, 1<<20))
	for len(body) < int(size) { // as much as there is, not as much as a length claims
		n := min(int(size)-len(body), 1<<20)
		body = slices.Grow(body, n)
		if _, err := io.ReadFull(r, body[len(body):len(body)+n]); err != nil {
			return nil, 0, torn(err)
		}
		body = body[:len(body)+n]
	}
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, 0, nil
	}
	m = &leatv1.Events{}
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, 0, fmt.Errorf("a whole frame that is no leat.v1.Events: %w", err)
	}
	return m, int64(frameHead) + int64(size), nil
}

func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// reopen goes on with a stage of before.
func reopen(folder string, seq uint64, see func(m *leatv1.Events)) (*stage, error) {
	path := stageName(folder, seq)
	s := &stage{seq: seq, known: map[version]bool{}}
	since, whole, err := readStage(path, func(_ int64, m *leatv1.Events) error {
		for _, t := range m.Tables {
			s.known[version{t.Id, t.Version}] = true
		}
		see(m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if whole == 0 {
		return nil, os.Remove(path)
	}
	if s.f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if err := errors.Join(s.f.Truncate(whole), s.f.Sync()); err != nil {
		return nil, errors.Join(err, s.f.Close())
	}
	s.since, s.size = since, whole
	return s, nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
