package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/leat-cdc/leat/bench/process"
)

// finding is one line of the table.
type finding struct {
	experiment, what, asked, measured string
	holds                             bool
}

type report struct {
	findings []finding
	drawings []string
}

// found keeps a line and says it.
func (r *rig) found(what, asked string, holds bool, format string, args ...any) {
	f := finding{r.name, what, asked, fmt.Sprintf(format, args...), holds}
	r.report.findings = append(r.report.findings, f)
	process.Say("%s: %s: %s (asked: %s)%s", f.experiment, f.what, f.measured, f.asked, map[bool]string{false: "  SHORT"}[holds])
}

// draw makes the experiment's drawing.
func (r *rig) draw(charts ...*chart) error {
	path, err := drawing(r.o.out, "flow-"+r.name, charts)
	if err == nil {
		r.report.drawings = append(r.report.drawings, path)
	}
	return err
}

func (r *report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nEXPERIMENT\tWHAT\tASKED\tMEASURED\t")
	for _, f := range r.findings {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.experiment, f.what, f.asked, f.measured, map[bool]string{true: "holds", false: "SHORT"}[f.holds])
	}
	w.Flush()
	for _, d := range r.drawings {
		fmt.Fprintln(out, "drawn:", d)
	}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// spread is "median (min–max)".
func spread(v []float64, format string) string {
	return fmt.Sprintf(format+" ("+format+"–"+format+")", median(v), slices.Min(v), slices.Max(v))
}

// percentile of sorted microseconds, in milliseconds.
func percentile(sorted []int64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]) / 1000
}

func seconds(since time.Time) float64 { return time.Since(since).Seconds() }
