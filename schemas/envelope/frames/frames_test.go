package frames

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func sample(n int) *leatv1.Events {
	e := &leatv1.Events{Lease: 7, Epoch: 9, Source: "files", Tables: []*leatv1.Table{{Id: 1, Name: "files"}}}
	for i := range n {
		e.Events = append(e.Events, &leatv1.Event{Offset: uint64(100 + i), Op: leatv1.Op_OP_INSERT, Position: "0/1"})
	}
	return e
}

func TestEventsStayRaw(t *testing.T) {
	var c Codec
	for _, n := range []int{0, 1, 500} {
		for _, m := range []proto.Message{&leatv1.PullResponse{Message: &leatv1.PullResponse_Events{Events: sample(n)}}, &leatv1.ReceiveResponse{Lease: "l", Events: sample(n)}} {
			data, err := c.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var got *leatv1.Events
			switch m.(type) {
			case *leatv1.PullResponse:
				var out leatv1.PullResponse
				err = c.Unmarshal(data, &out)
				got = out.GetEvents()
			default:
				var out leatv1.ReceiveResponse
				err = c.Unmarshal(data, &out)
				got = out.Events
				if out.Lease != "l" {
					t.Error("the lease is lost")
				}
			}
			clear(data) // the codec must not keep it
			if err != nil || got.GetLease() != 7 || got.Source != "files" || len(got.Tables) != 1 || len(got.Events) != 0 {
				t.Fatalf("%v: %v", got, err)
			}
			i := 0
			for raw := range Raw(got) {
				var e leatv1.Event
				if err := proto.Unmarshal(raw, &e); err != nil || e.Offset != uint64(100+i) {
					t.Fatalf("event %d: %v, %v", i, &e, err)
				}
				i++
			}
			if i != n {
				t.Fatalf("%d events, want %d", i, n)
			}
		}
	}
	data, _ := c.Marshal(&leatv1.PullResponse{Message: &leatv1.PullResponse_Revoked{Revoked: &leatv1.Revoked{Reason: "r"}}})
	var out leatv1.PullResponse
	if err := c.Unmarshal(data, &out); err != nil || out.GetRevoked().GetReason() != "r" {
		t.Fatal(&out, err)
	}
}

// Whatever protobuf accepts the codec accepts, with the same meaning; the rest is an error, never a panic.
func FuzzCodec(f *testing.F) {
	data, _ := proto.Marshal(&leatv1.PullResponse{Message: &leatv1.PullResponse_Events{Events: sample(2)}})
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte{0x0a})
	f.Add([]byte{0x08, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var want, got leatv1.PullResponse
		wantErr := proto.Unmarshal(data, &want)
		gotErr := Codec{}.Unmarshal(data, &got)
		if wantErr != nil || gotErr != nil {
			if wantErr == nil {
				t.Fatalf("refused what is fine: %v", gotErr)
			}
			return
		}
		n := 0
		for range Raw(got.GetEvents()) {
			n++
		}
		if want.GetEvents() != nil && n > len(want.GetEvents().Events) {
			t.Fatalf("%d events, want %d", n, len(want.GetEvents().Events))
		}
	})
}

func BenchmarkUnmarshal(b *testing.B) {
	e := sample(500)
	for _, v := range e.Events {
		v.Position = strings.Repeat("0", 180)
	}
	data, err := proto.Marshal(&leatv1.PullResponse{Message: &leatv1.PullResponse_Events{Events: e}})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := (Codec{}).Unmarshal(data, &leatv1.PullResponse{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestReleasedMemoryIsUsedAgain: a message that was released leaves nothing of itself behind in the next.
func TestReleasedMemoryIsUsedAgain(t *testing.T) {
	var c Codec
	large, err := c.Marshal(&leatv1.PullResponse{Message: &leatv1.PullResponse_Events{Events: sample(500)}})
	if err != nil {
		t.Fatal(err)
	}
	small, err := c.Marshal(&leatv1.PullResponse{Message: &leatv1.PullResponse_Events{Events: sample(3)}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		for want, data := range map[int][]byte{500: large, 3: small} {
			var m leatv1.PullResponse
			if err := c.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			n := 0
			for raw := range Raw(m.GetEvents()) {
				var e leatv1.Event
				if err := proto.Unmarshal(raw, &e); err != nil || e.Offset != uint64(100+n) {
					t.Fatalf("round %d, event %d: %v, %v", i, n, &e, err)
				}
				n++
			}
			if n != want {
				t.Fatalf("round %d: %d events, want %d", i, n, want)
			}
			Release(m.GetEvents())
			for range Raw(m.GetEvents()) {
				t.Fatal("a released message still has events")
			}
		}
	}
	Release(&leatv1.Events{})
	Release(nil)
}
