package disklog

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"
)

// holes is the real file system without the zeros: pages of nothing else become holes, so that a log of
// 100 GB fits where tests run. What is read back is the same, bit for bit.
type holes struct{ diskfs.OS }

type holesFile struct{ diskfs.File }

func (holes) OpenFile(name string, flag int) (diskfs.File, error) {
	f, err := diskfs.OS{}.OpenFile(name, flag)
	return holesFile{f}, err
}

var hole = make([]byte, 64<<10)

// WriteVec writes what is not zero. Files are new here: what is left out was never written.
func (f holesFile) WriteVec(pieces [][]byte, off int64) error {
	for _, p := range pieces {
		for len(p) > 0 {
			n := min(len(p), len(hole))
			if !bytes.Equal(p[:n], hole[:n]) {
				if err := f.File.WriteVec([][]byte{p[:n]}, off); err != nil {
					return err
				}
			}
			p, off = p[n:], off+int64(n)
		}
	}
	size, err := f.Size()
	if err == nil && off > size {
		err = f.Truncate(off)
	}
	return err
}

// BenchmarkTimeToOffset finds moments in a log of 100 GB, after it was opened anew (that is timed too): images of
// 256 KiB of zeros in batches of 1 MiB, holes on the disk. Making it takes minutes.
func BenchmarkTimeToOffset(b *testing.B) {
	const (
		total   = 100 << 30
		image   = 256 << 10
		each    = 4
		batches = total / image / each
		step    = 5 * time.Millisecond
	)
	opt := Options{Dir: b.TempDir(), Source: "db", Memory: 1, FS: holes{}}
	l := mustOpen(b, opt)
	begin := time.Now().Add(-batches * step).Truncate(time.Millisecond)
	tab := testTable(1, 1)
	oldest, _ := l.Bounds()
	var ticket uint64
	for i := range batches {
		c := pipeline.NewBatch()
		ti, _ := c.TableIndex(tab)
		c.Txs = append(c.Txs, pipeline.Tx{ID: c.PutString("t"), Position: c.PutString("0/1"), Time: begin.Add(time.Duration(i) * step).UnixMicro(), Ends: true})
		key := c.PutString("k")
		at := uint32(len(c.Arena))
		c.Arena = slices.Grow(c.Arena, each*image)[:len(c.Arena)+each*image]
		clear(c.Arena[at:])
		for range each {
			c.Events = append(c.Events, pipeline.Event{Op: pipeline.OpInsert, Table: ti, Hash: 1, Key: key, Before: pipeline.Nowhere, After: pipeline.Span{Off: at, Len: image}})
			at += image
		}
		c.End = pipeline.Position{Counter: uint64(i) + 1, Token: "t"}
		ticket = mustAppend(b, l, c)
	}
	waitSynced(b, l, ticket)
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	l = mustOpen(b, opt)
	opening := time.Since(began)
	if l.Bytes() < total {
		b.Fatalf("the log has %d bytes", l.Bytes())
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var took []time.Duration
	b.ResetTimer()
	for range b.N {
		i := rnd.IntN(batches)
		from := time.Now()
		o, err := l.At(b.Context(), begin.Add(time.Duration(i)*step-time.Microsecond))
		took = append(took, time.Since(from))
		if err != nil || o != oldest+pipeline.Offset(i*each) {
			b.Fatalf("batch %d begins at %d, found %d: %v", i, oldest+pipeline.Offset(i*each), o, err)
		}
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(opening.Microseconds())/1000, "open-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
	if err := os.RemoveAll(opt.Dir); err != nil {
		b.Fatal(err)
	}
}
