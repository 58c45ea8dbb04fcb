// Command bench measures Leat from outside, beside the databases' own clients, so that the ratio holds on a
// noisy machine: `make bench` (BENCH_FLAGS="-quick"). docs/performance.md says what the numbers mean.
//
// Words used here:
//
//   - Case: one piece of work that is timed: the database's own client reads a backlog, or Leat does and
//     hands it to subscribers.
//   - Run: one pass over all cases of a workload. Cases are alternated, not repeated in a row: what else the machine
//     does then hits all of them.
//   - Workload: a backlog of changes that the database keeps; every case reads the same one.
//   - Versus: a second build of Leat that runs the same cases in turn with the first.
//   - Role: what a child process of this binary does (a pull subscriber, a webhook receiver). Subscribers are
//     processes of their own, so that Leat's CPU time is only Leat's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/leat-cdc/leat/bench/process"
)

type options struct {
	rows, runs, fan int
	large           int
	tables          int
	pace            int
	databases       []string
	cases           []string
	quick           bool
	profile         string
	dir, out, leat  string
	versus          string
	memory          string
	timeout         time.Duration
	beatTime, idle  time.Duration
}

func main() {
	if len(os.Args) > 1 {
		if role := roles[os.Args[1]]; role != nil {
			if err := role(os.Args[2:]); err != nil {
				fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			return
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	o := options{timeout: 10 * time.Minute}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	var databases, cases string
	f.IntVar(&o.rows, "rows", 1_000_000, "rows of the backlog of inserts; the mix has half of it, that of many subscribers a quarter")
	f.IntVar(&o.runs, "runs", 5, "how often each case runs; min, median and max are shown")
	f.IntVar(&o.fan, "fan", 16, "how many subscribers the cases with many have")
	f.IntVar(&o.large, "large", 5_000_000, "rows of the transaction of the case large, which runs once, and only where -cases names it (with -memory 256MiB)")
	f.IntVar(&o.pace, "pace", 0, "rows per second of PostgreSQL's large transaction; 0: as fast as the session can")
	f.IntVar(&o.tables, "tables", 10_000, "tables of the case tables, which runs once, and only where -cases names it")
	f.StringVar(&databases, "databases", "postgres,mariadb", "which databases: postgres, mariadb, mysql")
	f.StringVar(&cases, "cases", "", "only these cases ("+strings.Join(allCases, ", ")+")")
	f.BoolVar(&o.quick, "quick", false, "200,000 rows, two runs, short latency and idle measurements")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of Leat for each case and run into this `folder`")
	f.StringVar(&o.dir, "dir", os.TempDir(), "Leat's data goes into this `folder`; it should be on a real disk")
	f.StringVar(&o.out, "out", filepath.Join("bench", "out"), "the JSON file goes into this `folder`")
	f.StringVar(&o.leat, "leat", "", "measure this `program` instead of building bin/leat")
	f.StringVar(&o.versus, "versus", "", "run the cases null, pull and latency with this `program` too, in turn with the other: lines that end in \"versus\"")
	f.StringVar(&o.memory, "memory", "512MiB", "Leat's memory budget")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	set := map[string]bool{}
	f.Visit(func(g *flag.Flag) { set[g.Name] = true })
	o.beatTime, o.idle = 5*time.Second, 10*time.Second
	if o.quick {
		if !set["rows"] {
			o.rows = 200_000
		}
		if !set["runs"] {
			o.runs = 2
		}
		o.beatTime, o.idle = 3*time.Second, 3*time.Second
	}
	o.databases, o.cases = split(databases), split(cases)
	for _, d := range o.databases {
		if starters[d] == nil {
			return o, fmt.Errorf("-databases: %q is none of postgres, mariadb, mysql", d)
		}
	}
	for _, c := range o.cases {
		if !slices.Contains(allCases, c) {
			return o, fmt.Errorf("-cases: %q is none of %s", c, strings.Join(allCases, ", "))
		}
	}
	if o.rows < 1000 || o.runs < 1 || o.fan < 2 || f.NArg() > 0 {
		return o, errors.New("-rows is at least 1000, -runs 1, -fan 2, and there are no arguments but flags")
	}
	o.rows -= o.rows % 1000
	return o, nil
}

func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// wants says whether a case was asked for.
func (o *options) wants(names ...string) bool {
	if len(o.cases) == 0 {
		return len(names) > 1 || !slices.Contains(onlyByName, names[0])
	}
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(o.cases, n) })
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "leat-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for Leat's data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.dir = dir
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return fmt.Errorf("make the folder of profiles: %w", err)
		}
	}
	leat := o.leat
	if leat == "" {
		process.Say("building bin/leat")
		if leat, err = process.Build(ctx); err != nil {
			return err
		}
	}
	r := newReport(o)
	var failed []error
	for _, name := range o.databases {
		b := &bench{o: o, leat: leat, report: r, name: name}
		if err := b.database(ctx); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
		failed = append(failed, b.failed...)
		if ctx.Err() != nil {
			break
		}
	}
	r.print(os.Stdout)
	path, err := r.write(o.out)
	if err == nil {
		process.Say("written to %s", path)
	}
	return errors.Join(append(failed, err)...)
}
