package verify

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// run is the comparison of all tables: they share the books, the reading of the log and a connection.
type run struct {
	o       *Options
	tables  []*comparison
	named   map[[2]string]*comparison
	disk    *quota
	source  *book
	other   *book // what the log says, or the target
	file    *os.File
	keys    *bufio.Writer
	kept    uint64          // bytes in keys
	end     pipeline.Offset // the log is read up to here
	doubted int64           // bytes that doubts take
}

// begin opens the books: each, one part of both, and the doubts have a quarter of the memory.
func begin(o *Options, dir string) (*run, error) {
	v := &run{o: o, named: map[[2]string]*comparison{}, disk: &quota{most: o.Disk}}
	v.source, v.other = newBook(dir, o.Memory/4, v.disk), newBook(dir, o.Memory/4, v.disk)
	for n, t := range o.Tables {
		c := &comparison{run: v, table: t, number: uint32(n), report: TableReport{Table: schemas.Subject(t.Schema, t.Name)}, ranges: map[uint32]*RangeReport{}}
		v.tables, v.named[[2]string{t.Schema, t.Name}] = append(v.tables, c), c
	}
	var err error
	if v.file, err = os.Create(filepath.Join(dir, "keys")); err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	v.keys = bufio.NewWriterSize(v.file, 64<<10)
	return v, nil
}

func (v *run) close() error {
	return errors.Join(v.source.Close(), v.other.Close(), v.file.Close())
}

// each does something with every table that is not at fault; what is wrong with one is noted there.
func (v *run) each(f func(c *comparison) error) error {
	for _, c := range v.tables {
		if c.report.Error == "" {
			if err := c.fails(f(c)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *run) compare(ctx context.Context) error {
	if err := v.look(ctx, func(c *comparison, s snapshot.Session) error { return c.begin(ctx, s) }); err != nil {
		return err
	}
	var first pipeline.Offset
	first, v.end = v.o.Log.Bounds()
	if v.o.Target == nil {
		if err := v.fold(ctx, first, v.end, (*comparison).keep); err != nil {
			return err
		}
	}
	err := v.look(ctx, func(c *comparison, s snapshot.Session) error { return c.read(ctx, s, c.table, "source", v.source) })
	if err != nil {
		return err
	}
	if v.o.Target != nil {
		err = v.each(func(c *comparison) error { return c.readTarget(ctx) })
	} else {
		err = v.forward(ctx, (*comparison).keep)
	}
	if err == nil {
		err = v.keys.Flush()
	}
	if err == nil {
		err = v.match()
	}
	if err != nil {
		return err
	}
	return v.settle(ctx)
}

// look has a connection to the source looked at with, table by table.
func (v *run) look(ctx context.Context, f func(c *comparison, s snapshot.Session) error) error {
	s, err := v.o.Source(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return v.each(func(c *comparison) error { return f(c, s) })
}

// forward folds what the log gained up to a fence.
func (v *run) forward(ctx context.Context, f step) error {
	to, err := v.o.Fence(ctx)
	if err != nil {
		return err
	}
	from := v.end
	v.end = max(v.end, to)
	return v.fold(ctx, from, v.end, f)
}

// keep writes a key down and returns its place.
func (v *run) keep(raw []byte) (at uint64, err error) {
	if err := v.disk.take(int64(len(raw)) + 4); err != nil {
		return 0, err
	}
	at = v.kept
	v.kept += uint64(len(raw)) + 4
	_, err = v.keys.Write(binary.LittleEndian.AppendUint32(v.keys.AvailableBuffer(), uint32(len(raw))))
	if err == nil {
		_, err = v.keys.Write(raw)
	}
	if err != nil {
		return 0, fmt.Errorf("write to a temporary file in the data folder: %w", err)
	}
	return at, nil
}

func (v *run) rawAt(at uint64) ([]byte, error) {
	var n [4]byte
	if _, err := v.file.ReadAt(n[:], int64(at)); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.LittleEndian.Uint32(n[:]))
	_, err := v.file.ReadAt(raw, int64(at)+4)
	return raw, err
}

// match compares the books, a part after the other: what differs becomes a doubt.
func (v *run) match() error {
	for p := range parts {
		passes := v.source.passes(p) + v.other.passes(p) - 1
		for n := range passes {
			source, err := v.source.part(p, n, passes)
			if err != nil {
				return err
			}
			other, err := v.other.part(p, n, passes)
			if err != nil {
				return err
			}
			if err := v.matchPart(source, other); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *run) matchPart(source, other map[uint64]line) error {
	for key, l := range source {
		c := v.tables[l.table]
		if c.report.Error != "" {
			continue
		}
		o, known := other[key]
		known = known && !o.gone
		if known && c.same(&l, &o) {
			c.equal(&l, &o)
			continue
		}
		raw, err := v.rawAt(l.at)
		if err != nil {
			return err
		}
		if err := c.fails(c.doubt(key, &doubt{raw: raw, other: o, known: known})); err != nil {
			return err
		}
	}
	for key, o := range other {
		c := v.tables[o.table]
		if _, ok := source[key]; ok || o.gone || c.report.Error != "" {
			continue
		}
		d := &doubt{other: o, known: true}
		if v.o.Target != nil {
			var err error
			if d.raw, err = v.rawAt(o.at); err != nil {
				return err
			}
		}
		if err := c.fails(c.doubt(key, d)); err != nil {
			return err
		}
	}
	return nil
}
