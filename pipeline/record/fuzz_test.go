package record

import (
	"testing"

	"github.com/leat-cdc/leat/pipeline"
)

// FuzzBlock feeds any bytes, with a checksum that fits them, to every decoder. What is decoded must be
// safe to walk over and must encode to a block that decodes to the same.
func FuzzBlock(f *testing.F) {
	for _, p := range golden() {
		h, err := Parse(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(h.Kind), h.Events, p[HeaderSize:HeaderSize+h.Payload])
	}
	f.Fuzz(func(t *testing.T, kind uint8, events uint32, payload []byte) {
		h := Header{Kind: Kind(kind), Events: events}
		p := AppendBlock(nil, payload, &h)
		got, body, err := Open(p)
		if err != nil || got != h {
			t.Fatalf("%+v, %v; want %+v", got, err, h)
		}
		_, _ = DecodeCatalog(body)
		_, _ = DecodeEpoch(body)
		if foot, err := DecodeFooter(body); err == nil && string(AppendFooter(nil, foot)) != string(body) {
			t.Fatal("footer changes")
		}
		if tab, err := DecodeSchema(body); err == nil {
			for _, c := range tab.Identity {
				_ = tab.Columns[c]
			}
		}
		b := new(pipeline.Batch)
		chunks, err := Decode(p, &got, b, resolve, nil)
		if err != nil {
			return
		}
		for i := range b.Events {
			_, _ = b.Seq(i)
			_ = b.TableOf(i)
			for _, s := range []pipeline.Span{b.Events[i].Key, b.Events[i].Before, b.Events[i].After} {
				_ = b.Bytes(s)
			}
		}
		for i := range b.Txs {
			_, _ = b.Bytes(b.Txs[i].ID), b.Bytes(b.Txs[i].Position)
		}
		q, err := Append(nil, b, chunks, &h)
		if err != nil {
			t.Fatal(err)
		}
		again := new(pipeline.Batch)
		if _, err := Decode(q, &h, again, resolve, nil); err != nil {
			t.Fatal(err)
		}
		same(t, b, again)
	})
}

// FuzzOpen feeds any bytes to the header's parser.
func FuzzOpen(f *testing.F) {
	for _, p := range golden() {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		h, body, err := Open(p)
		if err == nil && h.Length+len(body) > len(p) {
			t.Fatal("reads beyond")
		}
	})
}
