package event

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

func TestInflate(t *testing.T) {
	want := bytes.Repeat([]byte("row "), 1000)
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, _ = w.Write(want)
	_ = w.Close()
	p := append([]byte{0x82, 4000 >> 8, 4000 & 0xff}, z.Bytes()...)
	var f Inflater
	for range 2 {
		got, err := f.Inflate(p, 1<<20)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if _, err := f.Inflate(p, 100); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	if _, err := f.Inflate([]byte{0x84, 0x3f, 0xff, 0xff, 0xff, 1}, 1<<30); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

// one is an event of the given size.
func one(size int) []byte {
	b := make([]byte, size)
	b[4] = byte(XID)
	binary.LittleEndian.PutUint32(b[9:], uint32(size))
	return b
}

func TestPayload(t *testing.T) {
	inner := append(one(40), one(3<<20)...)
	enc, _ := zstd.NewWriter(nil)
	body := append([]byte{2, 1, 0, 0}, enc.EncodeAll(inner, nil)...)
	plain := append([]byte{2, 3, 0xfc, 255, 0, 0}, inner...)
	var p Payload
	defer p.Close()
	for _, b := range [][]byte{body, plain, body} {
		if err := p.Open(b); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{40, 3 << 20} {
			ev, err := p.Next(1 << 30)
			if err != nil || len(ev) != n {
				t.Fatalf("%d bytes, %v", len(ev), err)
			}
		}
		if _, err := p.Next(1 << 30); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
}

func TestTaggedGTID(t *testing.T) {
	// Fields as the server numbers them; small integers are value<<1, in one byte.
	b := []byte{1 << 1, 80 << 1, 12 << 1, 0 << 1, 0, 1 << 1}
	want := Transaction{SID: gtid.SID{Tag: "ab"}, GNO: 7, Committed: 20}
	for i := range 16 {
		want.SID.UUID[i] = byte(i * 16)
		if v := i * 16; v < 128 {
			b = append(b, byte(v<<1))
		} else {
			b = append(b, byte(v<<2)|1, byte(v>>6))
		}
	}
	b = append(b, 2<<1, 7<<2, 3<<1, 2<<1, 'a', 'b', 4<<1, 5<<2, 5<<1, 6<<2, 6<<1, 20<<1)
	got, err := ReadTaggedGTID(b, func(b []byte) string { return string(b) })
	if err != nil || got != want {
		t.Fatalf("%+v, %v; want %+v", got, err, want)
	}
}

func FuzzBodies(f *testing.F) {
	f.Add(byte(Query), []byte("\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00d\x00BEGIN"))
	f.Add(byte(WriteRows), []byte("\x01\x00\x00\x00\x00\x00\x01\x00\x02\x00\x01\xff\x00\x01"))
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		h := Header{Type: Type(kind)}
		_, _ = ReadFormat(b)
		_, _, _ = ReadRotate(b)
		_, _, _ = ReadIncident(b)
		_, _ = ReadGTID(b)
		_, _ = ReadTaggedGTID(b, func(b []byte) string { return string(b) })
		_, _, _ = ReadMariaGTID(h, b)
		_, _, _ = ReadHeartbeat(h, b)
		_, _ = ReadQuery(b)
		_, _ = ReadExecuteLoad(b)
		_, _ = ReadRows(h.Type, b)
		_, _ = new(Inflater).Inflate(b, 1<<20)
		var p Payload
		if p.Open(b) == nil {
			for range 10 {
				if _, err := p.Next(1 << 20); err != nil {
					break
				}
			}
		}
		p.Close()
	})
}
