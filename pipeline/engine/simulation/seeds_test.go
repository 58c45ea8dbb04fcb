package simulation

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	seeds    = flag.Int("seeds", 0, "how many seeds TestSeeds runs; 0: a few, as for each change of the code")
	firstArg = flag.Uint64("first", 1, "the first seed")
	workers  = flag.Int("workers", 2, "seeds at a time")
	tracing  = flag.Bool("trace", false, "print each step")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSeeds runs seeds. Each invariant holds after each step of each.
func TestSeeds(t *testing.T) {
	n := *seeds
	if n == 0 {
		n = 25
	}
	began := time.Now()
	var next, done, steps atomic.Int64
	var all sync.WaitGroup
	for range min(n, *workers) {
		all.Go(func() {
			for !t.Failed() {
				k := next.Add(1) - 1
				if k >= int64(n) {
					return
				}
				seed := *firstArg + uint64(k)
				var line func(string)
				if *tracing { // for one seed
					line = func(s string) { fmt.Fprintln(os.Stderr, s) }
				}
				r := simulate(t, seed, plant{}, line)
				if r.err != nil {
					t.Error(r.report(seed))
				}
				steps.Add(int64(r.steps))
				if d := done.Add(1); *seeds > 0 && d%100 == 0 {
					fmt.Printf("%d of %d seeds, %d steps, %s\n", d, n, steps.Load(), time.Since(began).Round(time.Second))
				}
			}
		})
	}
	all.Wait()
	if *seeds > 0 && !t.Failed() {
		fmt.Printf("%d seeds from %d, %d steps in %s: no invariant was broken\n", done.Load(), *firstArg, steps.Load(), time.Since(began).Round(time.Second))
	}
}

// TestASeedIsOneRun: the whole trace is the same each time, so that a seed replays what it found.
func TestASeedIsOneRun(t *testing.T) {
	n := *seeds
	if n == 0 {
		n = 3
	}
	for k := range n {
		seed := *firstArg + uint64(k)
		var a, b []string
		first := simulate(t, seed, plant{}, func(s string) { a = append(a, s) })
		again := simulate(t, seed, plant{}, func(s string) { b = append(b, s) })
		if first.hash == again.hash {
			continue
		}
		at := 0
		for at < min(len(a), len(b)) && a[at] == b[at] {
			at++
		}
		from, to := max(0, at-20), at+3
		t.Errorf("seed %d is two runs: after\n%s\nit goes on with\n%s\nor with\n%s", seed, strings.Join(a[from:at], "\n"),
			strings.Join(a[at:min(to, len(a))], "\n"), strings.Join(b[at:min(to, len(b))], "\n"))
	}
}
