package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Metrics, by the names that stand in the JSON file.
const (
	rowsPerSecond = "rows_per_second"              // from the start of the process to the last event
	steadyRate    = "rows_per_second_steady"       // from the first event to the last
	firstEvent    = "first_event_ms"               // from the start of the process
	cpuPerEvent   = "cpu_us_per_event"             // user and system, of the reader alone
	subscriberCPU = "subscribers_cpu_us_per_event" // of the bench's own pull subscribers together
	peakMemory    = "anonymous_peak_mib"
	p50Millis     = "p50_ms" // from before the insert to the subscriber
	p99Millis     = "p99_ms"
	txPerSecond   = "transactions_per_second"
	idlePercent   = "idle_percent_of_a_core"
)

// report is everything that was measured.
type report struct {
	Time    time.Time
	Machine machine
	Servers map[string]string
	Options map[string]any
	// Values by database, case, metric, in the order of runs.
	Values map[string]map[string]map[string][]float64

	order []string // cases as they came
}

type machine struct {
	OS, Arch, Go string
	Cores        int
	CPU          string
}

func newReport(o options) *report {
	return &report{Time: time.Now().UTC().Truncate(time.Second), Servers: map[string]string{}, Values: map[string]map[string]map[string][]float64{},
		Machine: machine{OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(), Cores: runtime.NumCPU(), CPU: cpuModel()},
		Options: map[string]any{"rows": o.rows, "runs": o.runs, "fan": o.fan, "memory": o.memory}}
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), "model name")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(line, " \t:")
}

func (r *report) add(db, name, metric string, v float64) {
	if r.Values[db] == nil {
		r.Values[db] = map[string]map[string][]float64{}
	}
	if r.Values[db][name] == nil {
		r.Values[db][name] = map[string][]float64{}
		if !slices.Contains(r.order, name) {
			r.order = append(r.order, name)
		}
	}
	r.Values[db][name][metric] = append(r.Values[db][name][metric], v)
}

// values of a metric in ascending order.
func (r *report) values(db, name, metric string) []float64 {
	return slices.Sorted(slices.Values(r.Values[db][name][metric]))
}

func median(sorted []float64) float64 {
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// spread is "min  median  max" in columns.
func spread(sorted []float64, format string) string {
	if len(sorted) == 0 {
		return "–\t–\t–"
	}
	return fmt.Sprintf(format+"\t"+format+"\t"+format, sorted[0], median(sorted), sorted[len(sorted)-1])
}

// middle is the median, or a dash.
func middle(sorted []float64, format string) string {
	if len(sorted) == 0 {
		return "–"
	}
	return fmt.Sprintf(format, median(sorted))
}

func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s; %d cores (%s), %s/%s, %s; %v rows, %v runs\n", r.Time.Format(time.DateTime+" MST"), r.Machine.Cores, r.Machine.CPU, r.Machine.OS,
		r.Machine.Arch, r.Machine.Go, r.Options["rows"], r.Options["runs"])
	databases := slices.Sorted(maps.Keys(r.Values))
	for _, db := range databases {
		fmt.Fprintf(out, "\n%s\n", r.Servers[db])
		r.throughput(out, db)
		r.delays(out, db)
	}
	r.verdicts(out, databases)
}

func (r *report) throughput(out io.Writer, db string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	header := false
	fan := float64(r.Options["fan"].(int))
	for _, name := range r.order {
		rates := r.values(db, name, rowsPerSecond)
		if len(rates) == 0 {
			continue
		}
		if !header {
			fmt.Fprintln(w, "case\trows/s min\tmedian\tmax\t× own\tsteady rows/s\tfirst event ms\tCPU µs/event min\tmedian\tmax\teach further sub µs\tsubscribers' CPU µs\tpeak anon MiB\t")
			header = true
		}
		own := "own"
		if strings.HasPrefix(name, "mix") {
			own = "mix own"
		}
		ratio := "–"
		if base := r.values(db, own, rowsPerSecond); len(base) > 0 && name != own && name != "webhook" {
			ratio = fmt.Sprintf("%.2f", median(rates)/median(base))
		}
		further := "–"
		one := r.values(db, "pull", cpuPerEvent)
		if many := r.values(db, name, cpuPerEvent); strings.HasPrefix(name, "pull ×") && len(one) > 0 && len(many) > 0 {
			further = fmt.Sprintf("%.2f", (median(many)-median(one))/(fan-1))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, spread(rates, "%.0f"), ratio, middle(r.values(db, name, steadyRate), "%.0f"),
			middle(r.values(db, name, firstEvent), "%.0f"), spread(r.values(db, name, cpuPerEvent), "%.2f"), further,
			middle(r.values(db, name, subscriberCPU), "%.2f"), r.most(db, name, peakMemory))
	}
	w.Flush()
}

// most is the greatest value: a peak's median would hide it.
func (r *report) most(db, name, metric string) string {
	v := r.values(db, name, metric)
	if len(v) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f", v[len(v)-1])
}

func (r *report) delays(out io.Writer, db string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	header := false
	for _, name := range r.order {
		p50, p99 := r.values(db, name, p50Millis), r.values(db, name, p99Millis)
		if len(p50) == 0 {
			continue
		}
		if !header {
			fmt.Fprintln(w, "case\tp50 ms min\tmedian\tmax\tp99 ms min\tmedian\tmax\ttransactions/s\t")
			header = true
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", name, spread(p50, "%.1f"), spread(p99, "%.1f"), middle(r.values(db, "latency pull", txPerSecond), "%.0f"))
	}
	w.Flush()
	if idle := r.values(db, "idle", idlePercent); len(idle) > 0 {
		fmt.Fprintf(out, "idle: %.2f %% of a core\n", median(idle))
	}
}

// write makes the JSON file.
func (r *report) write(folder string) (string, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("make the folder of results: %w", err)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, r.Time.Format("20060102T150405Z")+".json")
	return path, os.WriteFile(path, append(text, '\n'), 0o644)
}
