package disklog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// filled makes a log of several segments and closes it.
func filled(t testing.TB, batches int) (dir string, next pipeline.Offset) {
	dir = t.TempDir()
	l := mustOpen(t, Options{Dir: dir, SegmentSize: 16 << 10})
	var ticket uint64
	for i := range batches {
		ticket = mustAppend(t, l, rows(testTable(uint32(i%3+1), 1), uint64(i), 10))
	}
	s := waitSynced(t, l, ticket)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, s.Next
}

func flip(t testing.TB, name string, off int64) {
	t.Helper()
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p[off] ^= 1 << (off % 8)
	if err := os.WriteFile(name, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInfoVerifyDump(t *testing.T) {
	dir, next := filled(t, 100)
	ctx := testContext(t)
	damage, sum, err := Verify(ctx, dir)
	if err != nil || len(damage) != 0 {
		t.Fatal(damage, err)
	}
	info, err := Info(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Next != next || sum.Next != next || info.Last != sum.Last || len(info.Segments) != len(sum.Segments) || len(info.Tables) != 3 || len(info.Segments) < 4 {
		t.Fatalf("info %+v\nverify %+v", info, sum)
	}
	for i, s := range sum.Segments {
		o := info.Segments[i]
		if s.First != o.First || s.Next != o.Next || s.Used != o.Used || s.Oldest != o.Oldest || s.Newest != o.Newest {
			t.Fatalf("segment %d: info %+v, verify %+v", i, o, s)
		}
	}
	events := 0
	if err := Dump(ctx, dir, 0, 0, func(e Entry) error {
		if e.Batch != nil {
			events += len(e.Batch.Events)
		}
		return nil
	}); err != nil || events != 1000 {
		t.Fatalf("dumped %d events, %v", events, err)
	}
	events = 0
	if err := Dump(ctx, dir, info.Oldest+200, info.Oldest+300, func(e Entry) error {
		if e.Batch != nil && len(e.Batch.Events) > 0 {
			events += len(e.Batch.Events)
		}
		return nil
	}); err != nil || events < 100 || events > 120 {
		t.Fatalf("dumped %d events, %v", events, err)
	}
}

// A bit that flips anywhere below the proof is told by Verify, and by Open where Open reads, else by the reader.
func TestBitFlips(t *testing.T) {
	dir, next := filled(t, 30)
	info, err := Info(dir)
	if err != nil {
		t.Fatal(err)
	}
	for n, s := range info.Segments {
		lastProof := s.Used
		if n == len(info.Segments)-1 {
			lastProof -= record.HeaderSize // the closing proof is not proven itself
		}
		for _, off := range []int64{3, 40, firstBlock, firstBlock + 30, firstBlock + 200, (firstBlock + lastProof) / 2, lastProof - 9} {
			flip(t, s.File, off)
			damage, _, err := Verify(context.Background(), dir)
			if err != nil || len(damage) == 0 || damage[0].File != s.File || damage[0].Offset > off {
				t.Errorf("segment %d byte %d: verify says %+v, %v", s.Number, off, damage, err)
			}
			if err := openAndRead(t, dir, info.Oldest, next); err == nil {
				// the padding and the footer's region are not read
				t.Errorf("segment %d byte %d: neither opening nor reading tells", s.Number, off)
			} else if d := (*DamageError)(nil); !errors.As(err, &d) || d.File != s.File || d.Offset > off {
				t.Errorf("segment %d byte %d: %v", s.Number, off, err)
			}
			flip(t, s.File, off)
		}
	}
	if damage, _, err := Verify(context.Background(), dir); err != nil || len(damage) > 0 {
		t.Fatal(damage, err)
	}
	if err := os.Remove(info.Segments[1].File); err != nil {
		t.Fatal(err)
	}
	if err := openAndRead(t, dir, info.Oldest, next); err == nil {
		t.Fatal("a missing segment is not told")
	}
}

func openAndRead(t *testing.T, dir string, from, next pipeline.Offset) error {
	t.Helper()
	copied := t.TempDir() // opening writes
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Dir: copied, Source: "db", SegmentSize: 16 << 10})
	if err != nil {
		return rename(err, copied, dir)
	}
	defer l.Close()
	r, err := l.Read(from)
	if err != nil {
		return err
	}
	defer r.Close()
	for at := from; at < next; {
		b, err := r.Next(testContext(t))
		if err != nil {
			return rename(err, copied, dir)
		}
		at = b.Next()
		b.Release()
	}
	return nil
}

func rename(err error, from, to string) error {
	var d *DamageError
	if errors.As(err, &d) && filepath.Dir(d.File) == from {
		d.File = filepath.Join(to, filepath.Base(d.File))
	}
	return err
}
