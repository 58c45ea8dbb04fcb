// Command snapshot measures what `issues show 5` asks of snapshots, from outside, between the real `leat run` and a real
// database: `make bench-snapshot` (BENCH_FLAGS="-quick").
//
//   - speed: a whole table with pace max, by turns with the database's own client that reads it into nothing.
//   - pace: what a backfill at the default pace costs the queries of others, and the changes that are streamed meanwhile.
//   - crash: kill -9 every few seconds through a snapshot, while others write: the subscriber's table equals the
//     source's at the end, and how many rows were read more than once.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/leat-cdc/leat/bench/process"
)

type options struct {
	databases, cases []string
	rows, runs       int
	phase, every     time.Duration
	rate             int
	pace             string
	dir, out, leat   string
	profile          string
}

var cases = []struct {
	name string
	do   func(ctx context.Context, b *bench) error
}{{"speed", speed}, {"pace", paced}, {"crash", crash}}

// bench measures one database.
type bench struct {
	o    options
	name string
	leat string
	db   *database
	r    *report
}

// line of the report: what was asked, what was measured.
type line struct {
	Database, What, Asked, Measured string
	Holds                           bool
	Values                          []float64
}

type report struct {
	Time    time.Time
	Options map[string]any
	Servers map[string]string
	Lines   []line
}

func (b *bench) add(holds bool, what, asked, measured string, values ...float64) {
	b.r.Lines = append(b.r.Lines, line{b.name, what, asked, measured, holds, values})
	process.Say("%s: %s: %s", b.name, what, measured)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench-snapshot:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench-snapshot", flag.ContinueOnError)
	var databases, which string
	quick := f.Bool("quick", false, "200,000 rows, two runs, short phases: to see that it works")
	f.StringVar(&databases, "databases", "postgres,mariadb", "which databases: postgres, mariadb, mysql")
	f.StringVar(&which, "cases", "speed,pace,crash", "only these cases")
	f.IntVar(&o.rows, "rows", 10_000_000, "rows of the table, of about 180 bytes each")
	f.IntVar(&o.runs, "runs", 5, "how often speed runs, and how many phases with and without a backfill pace has; medians are compared")
	f.DurationVar(&o.phase, "phase", 20*time.Second, "how long a phase of the case pace lasts")
	f.DurationVar(&o.every, "every", 5*time.Second, "how often Leat is killed in the case crash")
	f.IntVar(&o.rate, "rate", 400, "transactions a second of the load beside snapshots")
	f.StringVar(&o.pace, "crash-pace", "default", "the pace of the case crash: default or max")
	f.StringVar(&o.dir, "dir", os.TempDir(), "Leat's data goes into this `folder`; it should be on a real disk")
	f.StringVar(&o.out, "out", filepath.Join("bench", "out"), "the JSON file goes into this `folder`")
	f.StringVar(&o.leat, "leat", "", "measure this `program` instead of building bin/leat")
	f.StringVar(&o.profile, "profile", "", "write a CPU profile of each run of speed into this `folder`")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	set := map[string]bool{}
	f.Visit(func(g *flag.Flag) { set[g.Name] = true })
	if *quick {
		for name, v := range map[string]string{"rows": "200000", "runs": "2", "phase": "4s", "every": "2s"} {
			if !set[name] {
				_ = f.Set(name, v) // a value of ours, which is valid
			}
		}
	}
	o.databases, o.cases = strings.Split(databases, ","), strings.Split(which, ",")
	for _, d := range o.databases {
		if starters[d] == nil {
			return o, fmt.Errorf("-databases: %q is none of postgres, mariadb, mysql", d)
		}
	}
	for _, c := range o.cases {
		if c != "speed" && c != "pace" && c != "crash" {
			return o, fmt.Errorf("-cases: %q is none of speed, pace, crash", c)
		}
	}
	if o.rows < 1000 || o.runs < 1 || o.rate < 1 || o.pace != "default" && o.pace != "max" || f.NArg() > 0 {
		return o, errors.New("-rows is at least 1000, -runs and -rate 1, -crash-pace default or max, and there are no arguments but flags")
	}
	return o, nil
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.dir, err = os.MkdirTemp(o.dir, "leat-bench-"); err != nil {
		return fmt.Errorf("make a folder for Leat's data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
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
	r := &report{Time: time.Now().UTC(), Servers: map[string]string{}, Options: map[string]any{"rows": o.rows, "runs": o.runs, "phase": o.phase.String(), "every": o.every.String(), "rate": o.rate, "crash-pace": o.pace}}
	var failed []error
	for _, name := range o.databases {
		b := &bench{o: o, name: name, leat: leat, r: r}
		if err := b.all(ctx); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	r.print()
	return errors.Join(append(failed, r.write(o.out))...)
}

func (b *bench) all(ctx context.Context) (err error) {
	process.Say("%s: starting a server", b.name)
	if b.db, err = starters[b.name](ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.db.stop(context.WithoutCancel(ctx))) }()
	b.r.Servers[b.name] = b.db.server.Version
	process.Say("%s: filling a table with %d rows", b.name, b.o.rows)
	if err := b.db.fill(ctx, b.o.rows); err != nil {
		return fmt.Errorf("fill the table: %w", err)
	}
	var failed []error
	for _, c := range cases {
		if slices.Contains(b.o.cases, c.name) && ctx.Err() == nil {
			if err := c.do(ctx, b); err != nil {
				process.Say("%s: FAILED %s: %v", b.name, c.name, err)
				failed = append(failed, fmt.Errorf("%s: %w", c.name, err))
			}
		}
	}
	return errors.Join(failed...)
}

func (r *report) print() {
	w := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nDATABASE\tWHAT\tASKED\tMEASURED\t")
	for _, l := range r.Lines {
		note := ""
		if !l.Holds {
			note = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Database, l.What, l.Asked, l.Measured, note)
	}
	_ = w.Flush() // standard output
}

func (r *report) write(folder string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	path := filepath.Join(folder, "snapshot-"+r.Time.Format("20060102T150405Z")+".json")
	process.Say("written to %s", path)
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// quantile of values, which are sorted in place.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}
