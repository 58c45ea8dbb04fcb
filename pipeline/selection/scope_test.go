package selection

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
)

// batch of random changes of two tables; the key of an event is its id.
func batch(r *rand.Rand, base pipeline.Offset, tables []*schemas.Table) *pipeline.Batch {
	var changes []pipetest.Change
	for range 1 + r.IntN(60) {
		id := fmt.Sprint(10 + r.IntN(30))
		changes = append(changes, pipetest.Change{Op: []pipeline.Op{pipeline.OpInsert, pipeline.OpUpdate}[r.IntN(2)], Table: tables[r.IntN(2)], After: pipetest.Row{id, "2", "x"}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 1, Token: "t"}, time.Unix(1e9, 0), changes)
	b.Base = base
	for i := range b.Events {
		e := &b.Events[i]
		id := changes[i].After[0]
		e.Key, e.Hash = b.PutString(id), uint64(id[0])<<8|uint64(id[1])
	}
	return b
}

// TestSelectsWhatIsMeant: any scope and any own filter select the events that each for itself is meant, or, once keys
// are followed, what comes of a key from its first such event on.
func TestSelectsWhatIsMeant(t *testing.T) {
	files, users := pipetest.FilesTable("files"), pipetest.FilesTable("users")
	users.ID = 2
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		var s pipeline.Scope
		if r.IntN(3) == 0 {
			s.Tables = []string{"public.files"}
		}
		if r.IntN(3) == 0 {
			s.Keys = []pipeline.Key{{Space: "public.files", Encoded: []byte("12")}, {Space: "public.users", Encoded: []byte("25")}}
		}
		if r.IntN(3) == 0 {
			s.Ranges = []pipeline.KeyInterval{{Space: "public.files", Start: []byte("20"), End: []byte("30")}, {Space: "public.users", Start: []byte("35")}}
		}
		if r.IntN(3) == 0 {
			s.Filter = `op == "update"`
		}
		var own *filter.Program
		if r.IntN(3) == 0 {
			own, _ = filter.Compile(filter.Options{Tables: []string{"public.users"}})
		}
		scope, err := Compile(s, pipetest.PGForm)
		if err != nil {
			t.Fatal(err)
		}
		sel, until := New("sub", own, scope), pipeline.Offset(0)
		if r.IntN(2) == 0 {
			until = 80
			sel.Follow(false, until)
		}
		met := map[uint64]bool{}
		for base := pipeline.Offset(1); base < 150; {
			b := batch(r, base, []*schemas.Table{files, users})
			from := r.IntN(len(b.Events))
			to := from + r.IntN(len(b.Events)-from+1)
			var want, got []int
			for i := from; i < to; i++ {
				e, table := &b.Events[i], b.TableOf(i)
				key := b.Bytes(e.Key)
				named := len(s.Keys)+len(s.Ranges) == 0 || slices.ContainsFunc(s.Keys, func(k pipeline.Key) bool { return k.Space == table.KeySpace && bytes.Equal(k.Encoded, key) }) ||
					slices.ContainsFunc(s.Ranges, func(k pipeline.KeyInterval) bool {
						return k.Space == table.KeySpace && bytes.Compare(key, k.Start) >= 0 && (k.End == nil || bytes.Compare(key, k.End) < 0)
					})
				in := named && (own == nil || table.Name == "users") && (s.Tables == nil || table.Name == "files")
				passes := s.Filter == "" || e.Op == pipeline.OpUpdate
				if in && passes && b.Offset(i) < until {
					met[e.Hash] = true
				}
				if in && (until == 0 && passes || until > 0 && met[e.Hash]) {
					want = append(want, i)
				}
			}
			for _, run := range sel.Select(b, from, to, nil) {
				for i := run.From; i < run.To; i++ {
					got = append(got, int(i))
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d, %+v, until %d: selected %v, want %v", seed, s, until, got, want)
			}
			base = b.Next()
			b.Release()
		}
	}
}

// A scope that cannot be is refused.
func TestCompileRefuses(t *testing.T) {
	for _, s := range []pipeline.Scope{{Filter: "op =="}, {Tables: []string{"["}}, {Ranges: []pipeline.KeyInterval{{Start: []byte("b"), End: []byte("a")}}}} {
		if _, err := Compile(s, pipetest.PGForm); err == nil {
			t.Errorf("%+v was taken", s)
		}
	}
}
