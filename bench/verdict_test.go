package main

import (
	"strings"
	"testing"
)

// TestVerdicts: a ratio is taken run by run, the median decides, the most of memory does, and what did not run says nothing.
func TestVerdicts(t *testing.T) {
	r := newReport(options{rows: 1000, runs: 3, fan: 16, memory: "512MiB"})
	for i, own := range []float64{100, 400, 200} {
		r.add("mariadb", "own", rowsPerSecond, own)
		r.add("mariadb", "pull", rowsPerSecond, own*[]float64{0.31, 0.32, 0.1}[i])
		r.add("mariadb", "pull", cpuPerEvent, []float64{1, 1.3, 1.4}[i])
		r.add("mariadb", "pull ×16", cpuPerEvent, 1.3+15*0.2)
		r.add("mariadb", "null", peakMemory, []float64{100, 900, 100}[i])
	}
	var out strings.Builder
	r.verdicts(&out, []string{"mariadb", "postgres"})
	for _, want := range []string{
		"pull, × own client in the same run ≥ 0.30 0.10 0.31 0.32 ok",
		"pull, CPU µs/event ≤ 1.20 1.00 1.30 1.40 short",
		"each further pull subscriber, CPU µs/event ≤ 0.35 0.20 0.20 0.20 ok",
		"anonymous memory, all cases, MiB ≤ 662 100 100 900 short",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "webhook") || strings.Contains(out.String(), "postgres") {
		t.Errorf("what did not run has a verdict:\n%s", out.String())
	}
}
