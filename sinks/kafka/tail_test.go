package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
)

// built makes a batch of records of the sink, one for each offset, as a lane does.
func built(t *rapid.T, s *Sink, offsets []uint64, high uint64, c Compression, replay string) []byte {
	var b batch
	b.reset(high)
	for i, o := range offsets {
		body := appendBytes(nil, []byte("k"), i%2 == 0)
		body = appendBytes(body, bytes.Repeat([]byte("v"), i), true)
		r := record{headers: uint32(len(body)), offset: o, time: int64(1000 - i)}
		body = s.appendHeaders(body, pipeline.OpInsert, o, replay, false)
		r.end = uint32(len(body))
		b.add(&r, body)
	}
	if err := b.seal(c); err != nil {
		t.Fatal(err)
	}
	b.sign(7, 1, 0, false)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b.out))), b.out...)
}

// What a lane wrote is read back by its tail: each offset, and the highest so far on the first record alone.
func TestTailReadsBatches(t *testing.T) {
	s, _ := packed(t)
	rapid.Check(t, func(rt *rapid.T) {
		offsets := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 1<<62), 1, 20, rapid.ID).Draw(rt, "offsets")
		high := rapid.Uint64Range(0, 1<<62).Draw(rt, "high")
		c := Compression(rapid.IntRange(0, 4).Draw(rt, "compression"))
		read := func(seen *tail, replay string) {
			var set protocol.RecordSet
			if _, err := set.ReadFrom(bytes.NewReader(built(rt, s, offsets, high, c, replay))); err != nil {
				rt.Fatal(err)
			}
			next, err := seen.batches(set.Records, math.MaxInt64)
			if err != nil || next != int64(len(offsets)) {
				rt.Fatal(next, err)
			}
		}
		seen := &tail{producer: s.id}
		if read(seen, ""); !slices.Equal(seen.offsets, offsets) || seen.high != max(high, slices.Max(offsets)) {
			rt.Fatalf("read %v high %d of %v high %d", seen.offsets, seen.high, offsets, high)
		}
		other := &tail{producer: "other"}
		if read(other, ""); len(other.offsets) > 0 || other.high > 0 {
			rt.Fatal("another producer's records count")
		}
		copies := &tail{producer: s.id}
		if read(copies, "job"); len(copies.offsets) > 0 || copies.high != seen.high {
			rt.Fatal("copies count as delivered")
		}
	})
}

// However records got into a partition, walking back from its end finds each one that a restart may bring again.
func TestTailReachesFarEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sent [][]uint64 // batches
		var highs []uint64
		high := uint64(0)
		next := uint64(1)
		var waiting []uint64 // read, not sent yet
		low := uint64(1)
		var after map[uint64]bool // sent since the cursor was saved
		cursor := pipeline.Cursor{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			for range rapid.IntRange(0, 5).Draw(t, "new") {
				waiting = append(waiting, next)
				next++
			}
			var batch []uint64
			for i := 0; i < len(waiting); {
				if rapid.Bool().Draw(t, "goes") {
					batch = append(batch, waiting[i])
					waiting = slices.Delete(waiting, i, i+1)
					continue
				}
				i++
			}
			if len(batch) > 0 {
				high = max(high, slices.Max(batch))
				sent, highs = append(sent, batch), append(highs, high)
				for _, o := range batch {
					if after != nil {
						after[o] = true
					}
				}
			}
			if low = next; len(waiting) > 0 {
				low = waiting[0]
			}
			if rapid.IntRange(0, 3).Draw(t, "save") == 0 {
				cursor = pipeline.Cursor{Low: pipeline.Offset(low), High: pipeline.Offset(next)}
				after = map[uint64]bool{}
			}
		}
		seen := &tail{cursor: cursor}
		for i := len(sent) - 1; i >= 0 && (i == len(sent)-1 || !seen.reaches); i-- {
			seen.batchSeen(sent[i], highs[i])
		}
		for o := range after {
			if !slices.Contains(seen.offsets, o) {
				t.Fatalf("offset %d, sent behind the cursor %v, is not found in %v", o, cursor, sent)
			}
		}
	})
}

func FuzzTailRecord(f *testing.F) {
	f.Add("p", "12", "00000000000000000012")
	f.Add("", "", "")
	f.Add("p", "18446744073709551616", "-1")
	f.Fuzz(func(t *testing.T, producer, offset, high string) {
		seen := &tail{producer: "p"}
		o, h, ours := seen.record([]protocol.Header{{Key: headerProducer, Value: []byte(producer)}, {Key: headerOffset, Value: []byte(offset)}, {Key: headerHigh, Value: []byte(high)}})
		if ours && (producer != "p" || o == 0 || len(offset) > 0 && offset[0] != '0' && fmt.Sprint(o) != offset) {
			t.Errorf("%q %q %q: %d, %d", producer, offset, high, o, h)
		}
	})
}
