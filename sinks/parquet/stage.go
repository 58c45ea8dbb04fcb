package parquet

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
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

// A stage is a head (magic, a random id, time of its first event in microseconds, their CRC-32C) and frames: the stage's id, length,
// CRC-32C of what follows, what kind of Delivery it was, a leat.v1.Events. The id finds frames behind a damaged one.
const (
	stageMagic = "leatstg2"
	headSize   = len(stageMagic) + idSize + 8 + 4
	idSize     = 16
	frameHead  = idSize + 9
	// mostFrame bounds what is believed of a length: a Delivery has at most 64 MiB, and grows when it is encoded.
	mostFrame = 1 << 30
)

// stageKey is a stage's id.
type stageKey [idSize]byte

// String implements fmt.Stringer.
func (k stageKey) String() string { return hex.EncodeToString(k[:]) }

// frame is a Delivery's. Its Events stand at bytes of the stage.
type frame struct {
	*leatv1.Events
	redriven bool
	body     int64 // where the Events begin
	bytes    []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stage is the file that Deliveries are appended to.
type stage struct {
	f     *os.File
	seq   uint64
	id    stageKey
	since time.Time
	size  int64
	// known are the table versions that it describes.
	known map[version]bool
	// rest: behind size stands what an append left that failed.
	rest bool
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
	_, _ = rand.Read(s.id[:]) // never fails
	head := binary.LittleEndian.AppendUint64(append([]byte(stageMagic), s.id[:]...), uint64(now.UnixMicro()))
	_, err = f.Write(binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, castagnoli)))
	if err = errors.Join(err, f.Sync(), syncFolder(folder)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return s, nil
}

// append writes a frame: head's fields and the entries, which are encoded Events.events. It is on the disk when append
// returns nil, and not there at all otherwise.
func (s *stage) append(head *leatv1.Events, entries [][]byte, redriven bool) error {
	frame := make([]byte, frameHead, 512)
	copy(frame, s.id[:])
	if redriven {
		frame[frameHead-1] = 1
	}
	frame, err := proto.MarshalOptions{}.MarshalAppend(frame, head)
	if err != nil {
		return err
	}
	n, sum := len(frame)-frameHead, crc32.Checksum(frame[frameHead-1:], castagnoli)
	for _, p := range entries {
		n, sum = n+len(p), crc32.Update(sum, castagnoli, p)
	}
	binary.LittleEndian.PutUint32(frame[idSize:], uint32(n))
	binary.LittleEndian.PutUint32(frame[idSize+4:], sum)
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
		terr := s.f.Truncate(s.size)
		s.rest = s.rest || terr != nil
		return errors.Join(err, terr)
	}
	s.size = at
	for _, t := range head.Tables {
		s.known[version{t.Id, t.Version}] = true
	}
	return nil
}

// end closes a stage that nothing is appended to any more.
func (s *stage) end() error {
	if s.rest {
		if err := errors.Join(s.f.Truncate(s.size), s.f.Sync()); err != nil {
			return err
		}
	}
	_ = s.f.Close() // it is on the disk
	return nil
}

// contents is what readStage learns of a stage.
type contents struct {
	id    stageKey
	since time.Time
	// whole is its length without what a crash tore off, which was never reported as delivered; 0: torn while it was made.
	whole int64
}

// readStage calls each for the frames of a stage, in order. Only its end may be torn; else it is damaged.
func readStage(path string, each func(f frame) error) (c contents, err error) {
	f, err := os.Open(path)
	if err != nil {
		return c, err
	}
	defer f.Close()
	if c, err = readHead(f, path); err != nil || c.whole == 0 {
		return c, err
	}
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		m, n, err := readFrame(r, c.id)
		if err != nil {
			return c, fmt.Errorf("%s at byte %d: %w", path, c.whole, err)
		}
		if n == 0 {
			behind, err := frameBehind(f, c.whole, c.id)
			if err == nil && behind {
				err = damaged(path, c.whole)
			}
			return c, err
		}
		m.body = c.whole + frameHead
		if err := each(m); err != nil {
			return c, err
		}
		c.whole += n
	}
}

func damaged(path string, at int64) error {
	return fmt.Errorf("%s is damaged at byte %d (a fault of the disk?): put a whole copy in its place, or move it away and bring what it held once more with `leat replay`", path, at)
}

// readHead reads the head of a stage, and leaves the file behind it.
func readHead(f *os.File, path string) (c contents, err error) {
	head := make([]byte, headSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return c, torn(err)
	}
	if string(head[:len(stageMagic)]) != stageMagic {
		return c, fmt.Errorf("%s is not a stage of ours: move it away", path)
	}
	if crc32.Checksum(head[:headSize-4], castagnoli) != binary.LittleEndian.Uint32(head[headSize-4:]) {
		info, err := f.Stat()
		if err == nil && info.Size() > int64(headSize) { // frames come after the head is on the disk
			err = damaged(path, 0)
		}
		return c, err
	}
	copy(c.id[:], head[len(stageMagic):])
	c.since = time.UnixMicro(int64(binary.LittleEndian.Uint64(head[headSize-12:])))
	c.whole = int64(headSize)
	return c, nil
}

// stageID reads that of a stage.
func stageID(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	c, err := readHead(f, path)
	return c.id.String(), err
}

// readFrame returns its length, 0 at the end and for what is not whole.
func readFrame(r io.Reader, id stageKey) (f frame, n int64, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, 0, torn(err)
	}
	size := binary.LittleEndian.Uint32(head[idSize:])
	if stageKey(head[:idSize]) != id || size > mostFrame {
		return f, 0, nil
	}
	body := make([]byte, 0, min(size, 1<<20))
	for len(body) < int(size) { // as much as there is, not as much as a length claims
		n := min(int(size)-len(body), 1<<20)
		body = slices.Grow(body, n)
		if _, err := io.ReadFull(r, body[len(body):len(body)+n]); err != nil {
			return f, 0, torn(err)
		}
		body = body[:len(body)+n]
	}
	if crc32.Update(crc32.Checksum(head[frameHead-1:], castagnoli), castagnoli, body) != binary.LittleEndian.Uint32(head[idSize+4:]) {
		return f, 0, nil
	}
	f = frame{Events: &leatv1.Events{}, redriven: head[frameHead-1] == 1, bytes: body}
	if err := proto.Unmarshal(body, f.Events); err != nil {
		return f, 0, fmt.Errorf("a whole frame that is no leat.v1.Events: %w", err)
	}
	return f, frameHead + int64(size), nil
}

// frameBehind reports whether a whole frame stands behind at: then what stands there was once whole, too.
func frameBehind(f io.ReaderAt, at int64, id stageKey) (bool, error) {
	buf := make([]byte, 1<<20)
	for at++; ; {
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		i := bytes.Index(buf[:n], id[:])
		if i < 0 {
			if n < len(buf) {
				return false, nil
			}
			at += int64(n - idSize + 1)
			continue
		}
		_, size, err := readFrame(io.NewSectionReader(f, at+int64(i), 1<<40), id)
		if err != nil || size > 0 {
			return true, nil
		}
		at += int64(i) + 1
	}
}

func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// reopen goes on with a stage of before. Only the newest may be torn: what came before it was whole when it ended.
func reopen(folder string, seq uint64, newest bool, see func(f frame)) (*stage, error) {
	path := stageName(folder, seq)
	s := &stage{seq: seq, known: map[version]bool{}}
	c, err := readStage(path, func(f frame) error {
		for _, t := range f.Tables {
			s.known[version{t.Id, t.Version}] = true
		}
		see(f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	info, err := s.f.Stat()
	switch {
	case err != nil:
	case !newest && info.Size() != c.whole:
		err = damaged(path, c.whole)
	case c.whole == 0:
		return nil, errors.Join(s.f.Close(), os.Remove(path))
	default:
		err = errors.Join(s.f.Truncate(c.whole), s.f.Sync())
	}
	if err != nil {
		return nil, errors.Join(err, s.f.Close())
	}
	s.id, s.since, s.size = c.id, c.since, c.whole
	return s, nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
