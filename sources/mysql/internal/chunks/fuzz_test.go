package chunks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// recorded is a connection that says what is given.
type recorded struct {
	net.Conn
	*bytes.Reader
}

func (r recorded) Read(b []byte) (int, error)      { return r.Reader.Read(b) }
func (recorded) SetReadDeadline(_ time.Time) error { return nil }

func packet(body ...byte) []byte {
	return append([]byte{byte(len(body)), byte(len(body) >> 8), byte(len(body) >> 16), 0}, body...)
}

// FuzzAnswers: whatever a server answers, there are rows or an error, and nothing is made of lengths that lie.
func FuzzAnswers(f *testing.F) {
	eof := packet(0xfe, 0, 0, 2, 0)
	column := packet(append([]byte{3, 'd', 'e', 'f', 0, 0, 0, 1, 'a', 0, 12, 63, 0, 4, 0, 0, 0}, binlog.TypeLong, 0, 0, 0, 0, 0)...)
	prepared := packet(0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	whole := bytes.Join([][]byte{prepared, column, eof, packet(1), column, eof, packet(0, 0, 7, 0, 0, 0), eof}, nil)
	f.Add(whole)
	f.Add(packet(append([]byte{0xff, 0x7a, 4}, "#42S02no such table"...)...))
	f.Add(append(bytes.Clone(prepared), 0xff, 0xff, 0xff, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := newPackets(recorded{Reader: bytes.NewReader(b)}, time.Second)
		if _, err := p.prepared(); err != nil {
			return
		}
		codes, err := p.columns()
		if err != nil {
			return
		}
		if len(codes)*4 > len(b) {
			t.Fatalf("%d columns of %d bytes", len(codes), len(b))
		}
		for {
			row, err := p.answer()
			if err != nil || over(row) {
				return
			}
		}
	})
}

// A packet may be larger than the buffer, come in pieces, and go on in the next one.
func TestPackets(t *testing.T) {
	var all []byte
	var want [][]byte
	for _, n := range []int{1, gulp - 5, gulp, 3 * gulp, maxPacket, maxPacket + 7, 2} {
		body := bytes.Repeat([]byte{byte(n)}, n)
		want = append(want, body)
		for {
			part := body[:min(len(body), maxPacket)]
			all = append(all, byte(len(part)), byte(len(part)>>8), byte(len(part)>>16), 0)
			all = append(all, part...)
			if body = body[len(part):]; len(part) < maxPacket {
				break
			}
		}
	}
	p := newPackets(recorded{Reader: bytes.NewReader(all)}, time.Second)
	for i, w := range want {
		if b, err := p.next(); err != nil || !bytes.Equal(b, w) {
			t.Fatalf("packet %d: %d bytes, want %d: %v", i, len(b), len(w), err)
		}
	}
	if _, err := p.next(); err == nil || p.left() != 0 {
		t.Fatalf("behind the last: %v, %d bytes left", err, p.left())
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("\x011\x02'x"), 2)
	f.Add(binary.AppendUvarint(nil, 1<<63), 1)
	f.Fuzz(func(t *testing.T, key []byte, columns int) {
		list, err := split(key, columns)
		if err != nil {
			return
		}
		var again []byte
		for _, lit := range list {
			again = append(binary.AppendUvarint(again, uint64(len(lit))), lit...)
		}
		if len(again) > len(key) || len(list) != columns {
			t.Fatalf("%q is %q", key, list)
		}
	})
}

func TestWhoIsUnseen(t *testing.T) {
	const a, b = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
	under := owned(strings.ToUpper(a) + ":4#12:6#13,\n" + b + ":7#1:tag:9#2")
	gone, err := notIn(a + ":1-5:7,\n" + b + ":1:tag:2-3:4")
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string][2]bool{
		a + ":4": {true, false}, a + ":5": {false, false}, a + ":6": {true, true}, a + ":7": {false, false}, b + ":7": {true, true}, b + ":1": {false, false},
		b + ":tag:9": {true, true}, b + ":9": {false, true}, b + ":tag:4": {false, false}, b + ":tag:1": {false, true}, "binlog.000001:4": {false, true}, "": {false, false},
	} {
		if got := [2]bool{under([]byte(id)), gone([]byte(id))}; got != want {
			t.Errorf("%s: owned %t, not executed %t; want %v", id, got[0], got[1], want)
		}
	}
	if _, err := notIn(a + ":1-x"); err == nil {
		t.Error("a set that cannot be read was read")
	}
	for _, g := range []string{"", "0-1", "0-1-x", "a"} {
		if _, _, ok := domainSeq(g); ok {
			t.Errorf("%q is a GTID", g)
		}
	}
	if fmt.Sprint(before(Place{"b.999999", 9}, Place{"b.1000000", 4}), before(Place{"b.2", 4}, Place{"b.2", 4}), before(Place{"b.3", 4}, Place{"b.2", 9})) != "true false false" {
		t.Error("places are not in order")
	}
}
