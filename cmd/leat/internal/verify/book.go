package verify

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// parts is into how many files a book is divided, by key.
const parts = 64

// quota bounds the temporary files of a run.
type quota struct{ used, most int64 }

func (q *quota) take(n int64) error {
	if q.most > 0 && q.used+n > q.most {
		return fmt.Errorf("the temporary files of the comparison would take more than %d MiB, a quarter of what is free on the disk of the data folder: free space there, or compare fewer tables at once (--table)", q.most>>20)
	}
	q.used += n
	return nil
}

// line is what is known of one key.
type line struct {
	key uint64
	// at is where it comes from: the offset of its last event, or the place of its key as it was read.
	at    uint64
	table uint32
	span  uint32 // the range that it lies in
	gone  bool   // deleted
	anew  bool   // was deleted and came again: nothing of what was known before counts
	sums  []uint64
}

// lineBytes is what a line takes in memory beside its sums.
const lineBytes = 128

// block is how many sums are allocated at once.
const block = 8 << 10

// book keeps a line for each key, the last one that was put: in memory up to a bound, and in files of its own beyond.
// Not for concurrent use; Close removes the files.
type book struct {
	memory, used int64 // of the lines in memory
	dir          string
	disk         *quota
	lines        map[uint64]int
	order        []line
	flat         []uint64
	files        [parts]*bufio.Writer
	open         [parts]*os.File
	size         [parts]int64
	made         int // files
}

// newBook keeps at most memory bytes; files go into dir, which exists, as disk allows.
func newBook(dir string, memory int64, disk *quota) *book {
	return &book{memory: max(memory, 1), dir: dir, disk: disk, lines: map[uint64]int{}}
}

// put takes a line; the sums are copied. Columns that it does not know keep what was known of them.
func (b *book) put(l line) error {
	if n, ok := b.lines[l.key]; ok {
		b.order[n].merge(l)
		return nil
	}
	if b.used >= b.memory && b.used > 0 {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if cap(b.flat)-len(b.flat) < len(l.sums) {
		b.flat = make([]uint64, 0, max(block, len(l.sums)))
	}
	at := len(b.flat)
	b.flat = append(b.flat, l.sums...)
	l.sums = b.flat[at:len(b.flat):len(b.flat)]
	b.used += int64(8*len(l.sums)) + lineBytes
	b.lines[l.key] = len(b.order)
	b.order = append(b.order, l)
	return nil
}

// merge brings a line up to a later one of the same key.
func (l *line) merge(next line) {
	l.at, l.span = next.at, next.span
	anew := l.gone || next.gone || next.anew
	l.anew = l.anew || anew
	for i, s := range next.sums {
		if s != unknown || anew {
			l.sums[i] = s
		}
	}
	l.gone = next.gone
}

// empty drops every line of a table. In files a line without sums says so.
func (b *book) empty(table uint32) error {
	kept := b.order[:0]
	clear(b.lines)
	for _, l := range b.order {
		if l.table != table {
			b.lines[l.key] = len(kept)
			kept = append(kept, l)
		}
	}
	b.order = kept
	if err := b.fit(parts * recordHead); err != nil {
		return err
	}
	for p, f := range b.open {
		if f != nil {
			if err := b.write(&line{key: uint64(p) << 58, table: table, gone: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush writes the lines in memory to the files.
func (b *book) flush() error {
	if err := b.fit(b.inFiles()); err != nil {
		return err
	}
	for i := range b.order {
		if err := b.write(&b.order[i]); err != nil {
			return err
		}
	}
	b.lines, b.order, b.flat, b.used = make(map[uint64]int, len(b.order)), b.order[:0], nil, 0
	return nil
}

// fit makes room for so many bytes in the files, if it can.
func (b *book) fit(n int64) error {
	if b.disk.most == 0 || b.disk.used+n <= b.disk.most {
		return nil
	}
	return b.compact()
}

// inFiles is what the lines in memory will take there.
func (b *book) inFiles() (n int64) {
	for i := range b.order {
		n += recordBytes(len(b.order[i].sums))
	}
	return n
}

// A record is the key, where it comes from, span<<2 + anew<<1 + gone, table<<16 + how many sums, the sums.
const recordHead = 4 * 8

func recordBytes(sums int) int64 { return recordHead + 8*int64(sums) }

func (b *book) write(l *line) error {
	n := recordBytes(len(l.sums))
	if err := b.disk.take(n); err != nil {
		return err
	}
	return b.append(l, n)
}

func (b *book) append(l *line, n int64) error {
	p := l.key >> 58
	if b.open[p] == nil {
		b.made++
		f, err := os.OpenFile(filepath.Join(b.dir, fmt.Sprintf("%p-%02d-%d", b, p, b.made)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("write to a temporary file in the data folder: %w", err)
		}
		b.open[p], b.files[p] = f, bufio.NewWriterSize(f, 16<<10)
	}
	b.size[p] += n
	span := uint64(l.span) << 2
	if l.gone {
		span |= 1
	}
	if l.anew {
		span |= 2
	}
	buf := b.files[p].AvailableBuffer()
	for _, w := range [4]uint64{l.key, l.at, span, uint64(l.table)<<16 | uint64(len(l.sums))} {
		buf = binary.LittleEndian.AppendUint64(buf, w)
	}
	for _, s := range l.sums {
		buf = binary.LittleEndian.AppendUint64(buf, s)
	}
	if _, err := b.files[p].Write(buf); err != nil {
		return fmt.Errorf("write to a temporary file in the data folder: %w", err)
	}
	return nil
}

// compact leaves one line of each key in the files. An error when that does not make room for long.
func (b *book) compact() error {
	for p, f := range b.open {
		if f == nil {
			continue
		}
		passes := b.passes(p)
		size := b.size[p]
		if err := b.files[p].Flush(); err != nil {
			return fmt.Errorf("write to a temporary file in the data folder: %w", err)
		}
		b.open[p], b.size[p] = nil, 0 // what is written now goes into a new one
		for n := range passes {
			lines := map[uint64]line{}
			if err := load(f, n, passes, lines); err != nil {
				return err
			}
			for _, l := range lines {
				if err := b.append(&l, recordBytes(len(l.sums))); err != nil {
					return err
				}
			}
		}
		b.disk.used += b.size[p] - size
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			return err
		}
	}
	return b.disk.room()
}

// room returns an error where less than an eighth is left: it would be looked for all the time.
func (q *quota) room() error {
	used := q.used
	err := q.take(q.most / 8)
	q.used = used
	return err
}

// passes is in how many goes a part is read so that its lines fit in memory.
func (b *book) passes(p int) int { return 1 + int(3*b.size[p]/b.memory) }

// part returns the lines of one part, by key: those of one pass of so many.
func (b *book) part(p, pass, passes int) (map[uint64]line, error) {
	out := map[uint64]line{}
	if f := b.open[p]; f != nil {
		if err := b.files[p].Flush(); err != nil {
			return nil, fmt.Errorf("write to a temporary file in the data folder: %w", err)
		}
		if err := load(f, pass, passes, out); err != nil {
			return nil, err
		}
	}
	for i := range b.order {
		if l := b.order[i]; int(l.key>>58) == p && l.key%uint64(passes) == uint64(pass) {
			add(out, l)
		}
	}
	return out, nil
}

func load(f *os.File, pass, passes int, out map[uint64]line) error {
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, 1<<62), 64<<10)
	var head [recordHead]byte
	var body []byte
	for {
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a temporary file in the data folder: %w", err)
		}
		word := func(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
		l := line{key: word(head[:], 0), at: word(head[:], 1), table: uint32(word(head[:], 3) >> 16)}
		span := word(head[:], 2)
		l.span, l.gone, l.anew = uint32(span>>2), span&1 != 0, span&2 != 0
		n := int(word(head[:], 3) & 0xffff)
		if n == 0 {
			for key, old := range out {
				if old.table == l.table {
					delete(out, key)
				}
			}
			continue
		}
		if l.key%uint64(passes) != uint64(pass) {
			if _, err := r.Discard(8 * n); err != nil {
				return fmt.Errorf("read a temporary file in the data folder: %w", err)
			}
			continue
		}
		body = append(body[:0], make([]byte, 8*n)...)
		if _, err := io.ReadFull(r, body); err != nil {
			return fmt.Errorf("read a temporary file in the data folder: %w", err)
		}
		l.sums = make([]uint64, n)
		for i := range l.sums {
			l.sums[i] = word(body, i)
		}
		add(out, l)
	}
}

func add(out map[uint64]line, l line) {
	if old, ok := out[l.key]; ok {
		old.merge(l)
		l = old
	}
	out[l.key] = l
}

// Close removes the files.
func (b *book) Close() error {
	var errs []error
	for i, f := range b.open {
		if f != nil {
			errs = append(errs, f.Close(), os.Remove(f.Name()))
			b.open[i] = nil
		}
	}
	return errors.Join(errs...)
}
