package pull

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// crowd is several clients of one subscription, of whom some are slow, forgetful or gone.
type crowd struct {
	v *service

	mu    sync.Mutex
	holds map[int]int // key → the client that may work on it now, counted from 1
	done  []uint64    // offsets, as they were acked
	late  int         // completions that were refused
}

// work is one client until the subscription is closed.
func (c *crowd) work(t *testing.T, id int, r *rand.Rand, keys []int, base uint64) {
	for {
		m, err := c.v.Receive(t.Context(), connect.NewRequest(&leatv1.ReceiveRequest{Subscription: "sub", MaxEvents: uint32(1 + r.IntN(5)), Wait: durationpb.New(time.Second)}))
		if err != nil {
			return
		}
		if m.Msg.Events == nil {
			continue
		}
		var got leatv1.Events
		if err := proto.Unmarshal(m.Msg.Events.ProtoReflect().GetUnknown(), &got); err != nil {
			t.Error(err)
			return
		}
		deadline := time.Now().Add(10 * time.Second)
		c.mu.Lock()
		for _, e := range got.Events {
			key := keys[e.Offset-base]
			if other := c.holds[key]; other != 0 && other != id {
				t.Errorf("key %d is with %d and %d", key, other, id)
			}
			c.holds[key] = id
		}
		c.mu.Unlock()
		free := func() {
			for _, e := range got.Events {
				if key := keys[e.Offset-base]; c.holds[key] == id {
					delete(c.holds, key)
				}
			}
		}
		work := time.Duration(r.IntN(20)) * time.Second
		if r.IntN(2) == 0 && work > 8*time.Second {
			time.Sleep(8 * time.Second)
			if x, err := c.v.Extend(t.Context(), connect.NewRequest(&leatv1.ExtendRequest{Subscription: "sub", Leases: []string{m.Msg.Lease}})); err != nil || len(x.Msg.Refused) > 0 {
				t.Error("extend in time", err)
			}
			deadline = time.Now().Add(10 * time.Second)
			work -= 8 * time.Second
		}
		// As the contract asks: it stops before the deadline, and answers whenever it can.
		time.Sleep(min(work, time.Until(deadline)-time.Nanosecond))
		late := !time.Now().Add(time.Nanosecond).Before(deadline)
		if late {
			c.mu.Lock()
			free()
			c.mu.Unlock()
			time.Sleep(time.Duration(1+r.IntN(30)) * time.Second)
		}
		c.mu.Lock()
		err = c.v.ack(t, m.Msg.Lease)
		switch {
		case connect.CodeOf(err) == connect.CodeNotFound: // all is done and the subscription closed
			c.mu.Unlock()
			return
		case late && (connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "expired")):
			t.Errorf("a late completion: %v", err)
		case late:
			c.late++
		case err != nil:
			t.Errorf("in time: %v", err)
		default:
			for _, e := range got.Events {
				c.done = append(c.done, e.Offset)
			}
			free()
		}
		c.mu.Unlock()
	}
}

// Several clients share a subscription: a key is with one at a time, its events are completed once and in order,
// and who completes after its lease ended is told so and changes nothing.
func TestClientsShareASubscription(t *testing.T) {
	late := 0
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			v, s := newSink(Options{Lease: 10 * time.Second})
			const base = 100
			var keys []int
			for range 60 {
				keys = append(keys, r.IntN(8))
			}
			all := delivery(1, base, keys...)
			c := &crowd{v: v, holds: map[int]int{}}
			var wg sync.WaitGroup
			for id := range 4 {
				own := rand.New(rand.NewPCG(seed, uint64(10+id)))
				wg.Go(func() { c.work(t, id+1, own, keys, base) })
			}
			left := make([]int, len(keys))
			for i := range left {
				left[i] = i
			}
			for number := uint64(1); len(left) > 0; number++ {
				d := &pipeline.Delivery{Number: number, Events: len(left)}
				for _, i := range left {
					d.Runs = append(d.Runs, pipeline.Run{Batch: all.Runs[0].Batch, From: uint32(i), To: uint32(i + 1)})
				}
				out, err := s.Deliver(t.Context(), d)
				if err != nil {
					t.Fatal(err)
				}
				var again []int
				for i, o := range out {
					if o.Class != pipeline.OK {
						again = append(again, left[i])
					}
				}
				left = again
			}
			s.Close()
			wg.Wait()
			newest := map[int]uint64{}
			for _, o := range c.done {
				key := keys[o-base]
				if o <= newest[key] {
					t.Fatalf("seed %d: offset %d of key %d after %d", seed, o, key, newest[key])
				}
				newest[key] = o
			}
			slices.Sort(c.done)
			if len(slices.Compact(c.done)) != len(keys) {
				t.Fatalf("seed %d: %d completions of %d events", seed, len(c.done), len(keys))
			}
			late += c.late
		})
	}
	if late < 30 {
		t.Fatalf("only %d late completions: the test asks too little", late)
	}
}
