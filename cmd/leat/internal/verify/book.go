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

// parts is into how many files a book is divided, by key: one after the other fits in memory.
const parts = 64

// line is what is known of one key.
type line struct {
	key uint64
	// at is where it comes from: the offset of its last event, or the number of the row as it was read.
	at   uint64
	span uint32 // the range that it lies in
	gone bool   // deleted
	sums []uint64
}

// book keeps a line for each key of a table, the last one that was put: in memory up to a bound, and in files of its
// own beyond. Not for concurrent use; Close removes the files.
type book struct {
	width int // sums of a line
	max   int // lines in memory
	dir   string
	lines map[uint64]int
	order []line
	flat  []uint64
	files [parts]*bufio.Writer
	open  [parts]*os.File
}

// newBook keeps at most memory bytes; files go into dir, which exists.
func newBook(dir string, width int, memory int64) *book {
	return &book{width: width, max: max(1024, int(memory/int64(8*width+96))), dir: dir, lines: map[uint64]int{}}
}

// put takes a line; the sums are copied. Columns that it does not know keep what was known of them.
func (b *book) put(l line) error {
	if n, ok := b.lines[l.key]; ok {
		b.order[n].merge(l)
		return nil
	}
	if len(b.order) >= b.max {
		if err := b.flush(); err != nil {
			return err
		}
	}
	at := len(b.flat)
	b.flat = append(b.flat, l.sums...)
	if cap(b.flat) > 0 { // earlier lines may point into the old array: that is still theirs
		l.sums = b.flat[at : at+b.width : at+b.width]
	}
	b.lines[l.key] = len(b.order)
	b.order = append(b.order, l)
	return nil
}

// merge brings a line up to a later one of the same key.
func (l *line) merge(next line) {
	l.at, l.span = next.at, next.span
	for i, s := range next.sums {
		if s != unknown || next.gone || l.gone {
			l.sums[i] = s
		}
	}
	l.gone = next.gone
}

// forget drops every line: the table was emptied.
func (b *book) forget() error {
	b.lines, b.order, b.flat = map[uint64]int{}, b.order[:0], b.flat[:0]
	var errs []error
	for i, f := range b.open {
		if f != nil {
			b.files[i].Reset(f)
			_, err := f.Seek(0, io.SeekStart)
			errs = append(errs, err, f.Truncate(0))
		}
	}
	return errors.Join(errs...)
}

func (b *book) flush() error {
	for i := range b.order {
		if err := b.write(&b.order[i]); err != nil {
			return fmt.Errorf("write to a temporary file in the data folder: %w", err)
		}
	}
	b.lines, b.order, b.flat = make(map[uint64]int, len(b.order)), b.order[:0], b.flat[:0]
	return nil
}

func (b *book) write(l *line) error {
	p := l.key >> 58
	if b.open[p] == nil {
		f, err := os.OpenFile(filepath.Join(b.dir, fmt.Sprintf("%p-%02d", b, p)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		b.open[p], b.files[p] = f, bufio.NewWriterSize(f, 16<<10)
	}
	buf := b.files[p].AvailableBuffer()
	buf = binary.LittleEndian.AppendUint64(buf, l.key)
	buf = binary.LittleEndian.AppendUint64(buf, l.at)
	span := uint64(l.span) << 1
	if l.gone {
		span |= 1
	}
	buf = binary.LittleEndian.AppendUint64(buf, span)
	for _, s := range l.sums {
		buf = binary.LittleEndian.AppendUint64(buf, s)
	}
	_, err := b.files[p].Write(buf)
	return err
}

// part returns the lines of one part, by key, and forgets them.
func (b *book) part(p int) (map[uint64]line, error) {
	out := map[uint64]line{}
	if f := b.open[p]; f != nil {
		if err := b.files[p].Flush(); err != nil {
			return nil, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		r := bufio.NewReaderSize(f, 64<<10)
		rec := make([]byte, 8*(3+b.width))
		for {
			if _, err := io.ReadFull(r, rec); err == io.EOF {
				break
			} else if err != nil {
				return nil, err
			}
			l := line{key: binary.LittleEndian.Uint64(rec), at: binary.LittleEndian.Uint64(rec[8:]), sums: make([]uint64, b.width)}
			span := binary.LittleEndian.Uint64(rec[16:])
			l.span, l.gone = uint32(span>>1), span&1 != 0
			for i := range l.sums {
				l.sums[i] = binary.LittleEndian.Uint64(rec[24+8*i:])
			}
			add(out, l)
		}
	}
	for i := range b.order {
		if l := b.order[i]; int(l.key>>58) == p {
			add(out, l)
		}
	}
	return out, nil
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
