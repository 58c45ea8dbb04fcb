package partition

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"pgregory.net/rapid"
)

func numbered(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// balance runs the policy for so many seconds over a load and returns the maps and the number of changes.
func balance(t testing.TB, b *Balancer, maps *Maps, from time.Time, seconds int, load func(second int) []KeyLoad) (*Maps, time.Time, int) {
	changes := 0
	for s := range seconds {
		from = from.Add(time.Second)
		for _, c := range b.Step(from, maps, []Load{{"s", load(s)}}) {
			next, err := maps.Apply(c)
			if err != nil {
				t.Fatal(err)
			}
			maps, changes = next, changes+1
		}
	}
	return maps, from, changes
}

// Under a steady load the policy comes to rest: no range that could be split stays hot, nothing is merged that
// was split; when the load goes, one range is left.
func TestPolicyConvergesAndDoesNotFlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.IntRange(40, 150).Draw(t, "keys")
		total := float64(rapid.IntRange(500, 8000).Draw(t, "load"))
		skew := rapid.Float64Range(0, 0.9).Draw(t, "skew")
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		var loads []KeyLoad
		var weights float64
		for i := range keys {
			loads = append(loads, KeyLoad{numbered(i), math.Pow(float64(i+1), -skew)})
			weights += loads[i].Weight
		}
		steady := func(int) []KeyLoad {
			now := make([]KeyLoad, len(loads))
			for i, k := range loads {
				now[i] = KeyLoad{k.Key, k.Weight * total / weights * (0.95 + 0.1*rnd.Float64())}
			}
			return now
		}
		b := NewBalancer(Policy{Hot: 1000})
		maps, at, _ := balance(nil, b, new(Maps), time.Unix(0, 0), 1200, steady)
		checkTiles(t, maps)
		for _, r := range maps.Map("s").Ranges() {
			if rate, stuck := b.Heat("s", r.ID); rate > 1100 && stuck == "" {
				t.Fatalf("range %d is hot (%.0f) after 20 minutes and may be split", r.ID, rate)
			}
		}
		before := len(maps.Map("s").Ranges())
		maps, at, n := balance(nil, b, maps, at, 1800, steady)
		// Ranges right at the threshold may go over it by noise, each once: what was split is never merged.
		if grown := len(maps.Map("s").Ranges()) - before; n != grown || n > before {
			t.Fatalf("%d changes under a steady load that it had settled for; %d ranges, then %d more", n, before, grown)
		}
		maps, _, _ = balance(nil, b, maps, at, 3600, func(int) []KeyLoad { return nil })
		if n := len(maps.Map("s").Ranges()); n != 1 {
			t.Fatalf("%d ranges without load", n)
		}
	})
}

func TestPolicyTiming(t *testing.T) {
	b := NewBalancer(Policy{Hot: 100})
	hot := func(int) []KeyLoad {
		return []KeyLoad{{numbered(1), 100}, {numbered(2), 100}, {numbered(3), 100}, {numbered(4), 100}}
	}
	maps, at, n := balance(t, b, new(Maps), time.Unix(0, 0), 3, hot) // the first step only begins
	if n != 0 {
		t.Fatal("split before three hot samples")
	}
	if maps, at, n = balance(t, b, maps, at, 1, hot); n != 1 || string(maps.Map("s").Ranges()[1].Start) != string(numbered(3)) {
		t.Fatalf("%d changes, %+v", n, maps.Map("s").Ranges())
	}
	if maps, at, n = balance(t, b, maps, at, 60, hot); n != 0 {
		t.Fatal("split again within the cooldown")
	}
	if maps, at, n = balance(t, b, maps, at, 120, hot); n != 2 {
		t.Fatalf("%d changes after the cooldown", n)
	}
	none := func(int) []KeyLoad { return nil }
	if maps, at, n = balance(t, b, maps, at, 300, none); n != 0 {
		t.Fatal("merged before five cold minutes")
	}
	if _, _, n = balance(t, b, maps, at, 10, none); n == 0 {
		t.Fatal("not merged after five cold minutes")
	}
}

func TestOneDominantKeyIsNotSplit(t *testing.T) {
	b := NewBalancer(Policy{Hot: 100})
	maps, _, n := balance(t, b, new(Maps), time.Unix(0, 0), 100, func(int) []KeyLoad {
		return []KeyLoad{{numbered(1), 100}, {numbered(2), 1000}, {numbered(3), 100}}
	})
	if _, why := b.Heat("s", pipeline.WholeRange); n != 0 || why == "" {
		t.Fatalf("%d changes, %q, %v", n, why, maps.Map("s").Ranges())
	}
}

func sampledBatch(space string, n int) *pipeline.Batch {
	b := pipeline.NewBatch()
	b.Tables = append(b.Tables, &schemas.Table{KeySpace: space})
	for i := range n {
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpInsert, Key: b.Put(numbered(i)), Before: pipeline.Nowhere, After: pipeline.Nowhere})
	}
	return b
}

// The samples weigh what the events did, however many there were, and cost no memory once warm.
func TestSamplerWeighsTheLoad(t *testing.T) {
	var s Sampler
	for _, rounds := range []int{1, 10, 500, 3} {
		b := sampledBatch("s", 100)
		for range rounds {
			s.Add(b)
		}
		loads := s.Take()
		if len(loads) != 1 || loads[0].Space != "s" {
			t.Fatalf("%+v", loads)
		}
		if got, want := sum(loads[0].Keys), float64(rounds*100); got < want*0.9-64 || got > want*1.1+64 {
			t.Errorf("%d rounds: the samples weigh %.0f, want about %.0f", rounds, got, want)
		}
		b.Release()
	}
	b := sampledBatch("s", 100)
	defer b.Release()
	for range 1000 {
		s.Add(b)
	}
	if n := testing.AllocsPerRun(100, func() { s.Add(b) }); n > 0 {
		t.Errorf("%v allocations per batch", n)
	}
}
