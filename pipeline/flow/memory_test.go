package flow

import (
	"math/rand/v2"
	"testing"
)

// holder is a reader of the model: what it holds, in order, and whether it ever delivers.
type holder struct {
	s       *Share
	a       *Account
	holds   []int64
	stalled bool
	granted bool
	asked   bool
	moved   int64
}

func newHolder(m *Memory, credit, most int64) *holder {
	h := &holder{}
	h.s = m.Share(credit, most, func() { h.asked = true })
	h.a = h.s.Account(most, func() { h.granted = true })
	return h
}

func (h *holder) total() int64 {
	n := h.a.paid
	for _, x := range h.holds {
		n += x
	}
	return n
}

// step lets a reader do one thing.
func (h *holder) step(r *rand.Rand, size int64) {
	if h.asked { // all but the oldest, which is out
		h.asked = false
		for len(h.holds) > 1 {
			n := h.holds[len(h.holds)-1]
			h.holds = h.holds[:len(h.holds)-1]
			h.a.Give(n, false)
		}
	}
	switch {
	case len(h.holds) > 0 && !h.stalled && r.IntN(2) == 0:
		n := h.holds[0]
		h.holds = h.holds[1:]
		h.moved += n
		h.a.Give(n, true)
	case h.a.wants > 0:
	case !h.a.Room():
	case h.a.Take(size):
		h.holds = append(h.holds, size)
	default:
		h.a.Wait(size)
	}
	h.granted = false
}

// TestMemorySums: whatever is taken, given, dropped and left in whatever order, what is counted is what is held, it
// stays within the total but for accounts of one piece, and all returns to zero.
func TestMemorySums(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		const credit, total = 1000, 40_000
		m := NewMemory(total)
		var hs []*holder
		for range 1 + r.IntN(20) {
			hs = append(hs, newHolder(m, credit, 16_000))
		}
		for i := range 1500 {
			h := hs[r.IntN(len(hs))]
			if r.IntN(200) == 0 {
				h.stalled = !h.stalled
			}
			if r.IntN(50) == 0 {
				h.a.Leave()
			}
			size := int64(1 + r.IntN(900))
			if r.IntN(300) == 0 {
				size = 50_000
			}
			h.step(r, size)
			if i%8 > 0 {
				continue
			}
			held, reserved, over := int64(0), int64(0), int64(0)
			for _, h := range hs {
				n := h.total()
				if n != h.a.Used() || n != h.s.Used() {
					t.Fatalf("seed %d: an account says %d and holds %d", seed, h.a.Used(), n)
				}
				held, reserved = held+n, reserved+max(n, h.s.credit)
				if len(h.holds) == 1 || len(h.holds) == 0 {
					over += max(0, n-credit)
				} else if h.holds[0] > 16_000 {
					over += h.holds[0]
				}
			}
			if held != m.Used() || reserved != m.used {
				t.Fatalf("seed %d: %d held, %d counted; %d reserved, %d counted", seed, held, m.Used(), reserved, m.used)
			}
			if reserved-over > total {
				t.Fatalf("seed %d: %d of %d, %d of it in accounts of one piece", seed, reserved, total, over)
			}
		}
		for _, h := range hs {
			h.a.Leave()
			for _, n := range h.holds {
				h.a.Give(n, true)
			}
			h.s.Close()
		}
		if m.used != 0 || m.Used() != 0 || m.Waiting() != 0 {
			t.Fatalf("seed %d: all is given back, and %d is used, %d wait", seed, m.used, m.Waiting())
		}
	}
}

// TestStalledGiveBack: forty readers that stand still with all they could get, and one that moves: it gets what it
// can use, they keep their credits, and never is more counted than the total.
func TestStalledGiveBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	m := NewMemory(100_000)
	var stalled []*holder
	for range 40 {
		h := newHolder(m, 1000, 25_000)
		stalled = append(stalled, h)
	}
	for i := range 20_000 {
		h := stalled[r.IntN(len(stalled))]
		h.stalled = i > 10_000
		h.step(r, 500)
	}
	if m.used < 85_000 {
		t.Fatalf("they left %d of the float", 100_000-m.used)
	}
	quick := newHolder(m, 0, 25_000)
	alone := newHolder(NewMemory(100_000), 1000, 25_000)
	for range 5_000 {
		quick.step(r, 500)
		alone.step(r, 500)
		for _, h := range stalled {
			if h.asked {
				h.step(r, 500)
			}
		}
		if m.used > 100_000+500 { // quick joined when nothing was left for its credit
			t.Fatalf("%d used", m.used)
		}
	}
	if quick.moved < alone.moved*95/100 {
		t.Errorf("beside those that stand still it moved %d, alone %d", quick.moved, alone.moved)
	}
}

// TestLargeWaitsItsTurn: a piece that needs much of the float is not overtaken for ever by small ones.
func TestLargeWaitsItsTurn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	m := NewMemory(20_000)
	var hs []*holder
	for range 10 {
		hs = append(hs, newHolder(m, 500, 10_000))
	}
	large := newHolder(m, 500, 10_000)
	large.step(r, 400)
	large.stalled = true
	for range 3000 {
		hs[r.IntN(len(hs))].step(r, 900)
	}
	large.a.Wait(6000)
	for n := 0; large.a.paid == 0; n++ {
		if n > 500 {
			t.Fatal("it still waits")
		}
		hs[r.IntN(len(hs))].step(r, 900)
	}
}
