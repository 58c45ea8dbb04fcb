// Command flow shows what Leat does when subscribers are slow, sick or many and when the database is busy:
// `make bench-flow` (BENCH_FLAGS="-quick"). Each experiment runs the real `leat run` between a real PostgreSQL
// and webhook receivers in a process of their own, checks that nothing was lost or came out of order, prints
// a table of what was asked and what was measured, and draws what happened over time into bench/out.
//
// Start at an experiment (fanout.go, step.go, …); rig.go is what they stand on, receivers.go the other end.
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
	experiments    []string
	runs           int
	rows           int
	outage, hang   time.Duration
	phase          time.Duration
	quick          bool
	out, dir, leat string
}

// experiment does one of them.
type experiment struct {
	name string
	do   func(ctx context.Context, r *rig) error
}

var experiments = []experiment{{"fanout", fanout}, {"step", step}, {"poison", poison}, {"outage", outage}, {"load", load}, {"replay", replay}, {"parks", parks}, {"hang", hang}, {"crowd", crowd}}

func names() []string {
	var all []string
	for _, e := range experiments {
		all = append(all, e.name)
	}
	return all
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "receivers" {
		if err := receiversRole(os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "bench-flow receivers: %v\n", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench-flow:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench-flow", flag.ContinueOnError)
	var which string
	f.StringVar(&which, "experiments", "", "only these ("+strings.Join(names(), ", ")+")")
	f.IntVar(&o.runs, "runs", 2, "how often what is compared runs, in turn; medians are compared")
	f.IntVar(&o.rows, "rows", 200_000, "row changes of the backlog")
	f.DurationVar(&o.outage, "outage", time.Minute, "how long the endpoint is away in the experiment outage")
	f.DurationVar(&o.hang, "hang", time.Minute, "how long one of eight subscribers hangs in the experiment hang; 10m is the full length")
	f.DurationVar(&o.phase, "phase", 12*time.Second, "how long a phase of the experiments with live load lasts")
	f.BoolVar(&o.quick, "quick", false, "one run, 50,000 rows, short phases: to see that it works")
	f.StringVar(&o.out, "out", filepath.Join("bench", "out"), "the drawings go into this `folder`")
	f.StringVar(&o.dir, "dir", os.TempDir(), "Leat's data goes into this `folder`; it should be on a real disk")
	f.StringVar(&o.leat, "leat", "", "measure this `program` instead of building bin/leat")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	set := map[string]bool{}
	f.Visit(func(g *flag.Flag) { set[g.Name] = true })
	if o.quick {
		short := func(name string, do func()) {
			if !set[name] {
				do()
			}
		}
		short("runs", func() { o.runs = 1 })
		short("rows", func() { o.rows = 50_000 })
		short("outage", func() { o.outage = 10 * time.Second })
		short("hang", func() { o.hang = 15 * time.Second })
		short("phase", func() { o.phase = 5 * time.Second })
	}
	o.experiments = strings.FieldsFunc(which, func(r rune) bool { return r == ',' || r == ' ' })
	for _, e := range o.experiments {
		if !slices.Contains(names(), e) {
			return o, fmt.Errorf("-experiments: %q is none of %s", e, strings.Join(names(), ", "))
		}
	}
	if o.runs < 1 || o.rows < 1000 || o.phase < time.Second || o.outage < time.Second || o.hang < time.Second || f.NArg() > 0 {
		return o, errors.New("-runs is at least 1, -rows 1000, -phase, -outage and -hang 1s, and there are no arguments but flags")
	}
	return o, nil
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make the folder of drawings: %w", err)
	}
	if o.dir, err = os.MkdirTemp(o.dir, "leat-flow-"); err != nil {
		return fmt.Errorf("make a folder for Leat's data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	if o.leat == "" {
		process.Say("building bin/leat")
		if o.leat, err = process.Build(ctx); err != nil {
			return err
		}
	}
	rep := &report{}
	var failed []error
	for _, e := range experiments {
		if len(o.experiments) > 0 && !slices.Contains(o.experiments, e.name) || ctx.Err() != nil {
			continue
		}
		process.Say("%s", e.name)
		if err := one(ctx, o, rep, e); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", e.name, err))
			process.Say("FAILED %s: %v", e.name, err)
		}
	}
	rep.print(os.Stdout)
	return errors.Join(failed...)
}

// one runs an experiment on servers of its own.
func one(ctx context.Context, o options, rep *report, e experiment) (err error) {
	r, err := newRig(ctx, o, rep, e.name)
	if err != nil {
		return err
	}
	err = e.do(ctx, r)
	return errors.Join(err, r.close(context.WithoutCancel(ctx)))
}
