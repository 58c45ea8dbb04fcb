package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// aim is what one database's runs are to reach.
type aim struct {
	what, asked string
	least       bool // asked is the least, else the most
	bound       float64
	format      string
	values      []float64 // one per run
	// worst: all runs count; else their median does.
	worst bool
}

// aims of a database, of those cases that ran.
func (r *report) aims(db string) (all []aim) {
	add := func(a aim) {
		if len(a.values) > 0 {
			slices.Sort(a.values)
			sign := "≤"
			if a.least {
				sign = "≥"
			}
			a.asked = fmt.Sprintf("%s "+a.format, sign, a.bound)
			all = append(all, a)
		}
	}
	ratio, cpu := 0.3, 1.2
	if db == "postgres" {
		ratio, cpu = 2, 1.5
	}
	pull := r.Values[db]["pull"]
	add(aim{what: "pull, × own client in the same run", least: true, bound: ratio, format: "%.2f", values: quotients(pull[rowsPerSecond], r.Values[db]["own"][rowsPerSecond])})
	if db != "postgres" {
		add(aim{what: "pull, rows/s", least: true, bound: 700_000, format: "%.0f", values: slices.Clone(pull[rowsPerSecond])})
	}
	add(aim{what: "pull, CPU µs/event", bound: cpu, format: "%.2f", values: slices.Clone(pull[cpuPerEvent])})
	fan := r.Options["fan"].(int)
	add(aim{what: "each further pull subscriber, CPU µs/event", bound: 0.35, format: "%.2f", values: further(r.Values[db][fmt.Sprintf("pull ×%d", fan)][cpuPerEvent], r.values(db, "pull", cpuPerEvent), fan)})
	add(aim{what: "webhook from a filled log, events/s", least: true, bound: 350_000, format: "%.0f", values: r.values(db, "webhook", rowsPerSecond)})
	for _, by := range []string{"pull", "webhook"} {
		add(aim{what: "p99 from the commit, 1,000 tx/s, " + by + ", ms", bound: 20, format: "%.1f", values: r.values(db, "latency "+by+" from the commit", p99Millis)})
	}
	add(aim{what: "idle, % of a core", bound: 1, format: "%.2f", values: r.values(db, "idle", idlePercent)})
	var peaks []float64
	for name, metrics := range r.Values[db] {
		if !strings.HasSuffix(name, " versus") {
			peaks = append(peaks, metrics[peakMemory]...)
		}
	}
	if budget, ok := mebibytes(r.Options["memory"].(string)); ok {
		add(aim{what: "anonymous memory, all cases, MiB", bound: budget + 150, format: "%.0f", values: peaks, worst: true})
	}
	return all
}

// holds says whether the runs reached it.
func (a *aim) holds() bool {
	v := median(a.values)
	if a.worst {
		v = a.values[len(a.values)-1]
	}
	if a.least {
		return v >= a.bound
	}
	return v <= a.bound
}

// quotients run by run; nothing where a run failed, as then it is not known which belong together.
func quotients(of, by []float64) (all []float64) {
	if len(of) != len(by) {
		return nil
	}
	for i := range of {
		all = append(all, of[i]/by[i])
	}
	return all
}

// further is what a subscriber beyond the first takes, by the median of those with one.
func further(many, one []float64, fan int) (all []float64) {
	if len(one) == 0 {
		return nil
	}
	for _, v := range many {
		all = append(all, (v-median(one))/float64(fan-1))
	}
	return all
}

// mebibytes of a size as the configuration writes it.
func mebibytes(size string) (float64, bool) {
	for unit, factor := range map[string]float64{"MiB": 1, "GiB": 1024} {
		var n float64
		if number, ok := strings.CutSuffix(size, unit); ok {
			_, err := fmt.Sscanf(number, "%g", &n)
			return n * factor, err == nil
		}
	}
	return 0, false
}

// verdicts prints what was asked beside what was measured.
func (r *report) verdicts(out io.Writer, databases []string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nDATABASE\tWHAT\tASKED\tMIN\tMEDIAN\tMAX\tVERDICT\t")
	rows := 0
	for _, db := range databases {
		for _, a := range r.aims(db) {
			verdict := "ok"
			if !a.holds() {
				verdict = "short"
			}
			rows++
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", db, a.what, a.asked, spread(a.values, a.format), verdict)
		}
	}
	if rows > 0 {
		w.Flush()
		fmt.Fprintln(out, "by the median of the runs; memory by the most")
	}
}
