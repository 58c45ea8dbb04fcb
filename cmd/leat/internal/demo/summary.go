package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
)

// summary of a demo; also the document of --json.
type summary struct {
	Complete bool   `json:"complete"`
	Database string `json:"database"`
	Seed     uint64 `json:"seed"`
	// Changes are rows; a change of key is two events.
	Changes      int64 `json:"changes"`
	Transactions int64 `json:"transactions"`
	Largest      int64 `json:"largest_transaction"`
	Events       int64 `json:"events"`
	// Rows that the source's tables hold at the end.
	Rows        int                 `json:"rows"`
	Subscribers []subscriberSummary `json:"subscribers"`
	LogBytes    int64               `json:"log_bytes"`
	// SlotBytes is the most that the replication slot held; null where the database does not say.
	SlotBytes *int64 `json:"slot_bytes_most"`
	// CPU of Leat's process in all; per event: of what was delivered.
	CPUSeconds  float64 `json:"cpu_seconds"`
	CPUPerEvent float64 `json:"cpu_us_per_delivered_event"`
	// MemoryBytes is anonymous memory, at most; 0 where the system does not say.
	MemoryBytes int64 `json:"memory_bytes_most"`
}

type subscriberSummary struct {
	Name       string  `json:"name"`
	Kind       string  `json:"kind"`
	Equal      bool    `json:"equal"`
	Delivered  int64   `json:"delivered"`
	Duplicates int64   `json:"duplicates"`
	Refused    int64   `json:"refused_requests"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Behind     uint64  `json:"most_behind_events"`
	CaughtUp   float64 `json:"caught_up_after_s"`
	// Differences are the first few of DifferencesInAll.
	Differences      []string `json:"differences"`
	DifferencesInAll int64    `json:"differences_in_all"`
}

func (d *demo) summarize(ctx context.Context) (*summary, error) {
	s := &summary{Complete: true, Database: d.place.name, Seed: d.o.seed, Changes: d.work.Rows.Load(), Transactions: d.work.Transactions.Load(),
		Largest: d.work.Largest.Load(), Events: d.work.Events(), LogBytes: d.view.log, CPUSeconds: d.leat.cpu().Seconds(), MemoryBytes: d.view.memory}
	if d.view.holds {
		s.SlotBytes = &d.view.held
	}
	truth := map[rowKey][]string{}
	for i, t := range tables {
		if err := d.place.rows(ctx, t, func(row []string) error {
			truth[rowKey{i, row[0]}] = row
			return nil
		}); err != nil {
			return nil, err
		}
	}
	s.Rows = len(truth)
	var delivered int64
	for _, sub := range d.subscribers {
		x := sub.check(truth, s.Events)
		if sub.name == d.features.name && d.features.why.Load() != nil && !x.Equal {
			x.Differences = append(x.Differences, "its last stream ended: "+*d.features.why.Load())
		}
		s.Complete = s.Complete && x.Equal
		delivered += x.Delivered
		s.Subscribers = append(s.Subscribers, x)
	}
	for _, r := range []*receiver{d.search, d.slow} {
		if n := r.forged.Load(); n > 0 {
			return nil, fmt.Errorf("%d requests to %s had a signature that does not fit", n, r.url)
		}
	}
	if delivered > 0 {
		s.CPUPerEvent = s.CPUSeconds * 1e6 / float64(delivered)
	}
	return s, nil
}

// check compares a copy with the source's rows, and what came with what happened.
func (s *subscriber) check(truth map[rowKey][]string, events int64) subscriberSummary {
	r := s.replica
	r.mu.Lock()
	defer r.mu.Unlock()
	x := subscriberSummary{Name: s.name, Kind: s.kind, Delivered: r.events, Duplicates: r.repeats, Refused: s.refused(),
		P50: r.latency.quantile(0.5).Seconds() * 1e3, P99: r.latency.quantile(0.99).Seconds() * 1e3, Behind: s.behind, CaughtUp: s.settled.Seconds(),
		Differences: append([]string{}, r.wrong...), DifferencesInAll: r.broken}
	differ := func(format string, args ...any) {
		x.DifferencesInAll++
		if len(x.Differences) < 2*worst {
			x.Differences = append(x.Differences, fmt.Sprintf(format, args...))
		}
	}
	if r.events != events {
		differ("%s events came, %s were made", screen.Count(r.events), screen.Count(events))
	}
	for k, row := range truth {
		copied, there := r.rows[k]
		switch {
		case !there:
			differ("%s %s is missing", tables[k.table].name, k.key)
		case !slices.Equal(row, copied):
			for i, c := range tables[k.table].columns {
				if row[i] != copied[i] {
					differ("%s %s: %s is %q, the source has %q", tables[k.table].name, k.key, c.name, screen.Shorten(copied[i], 40), screen.Shorten(row[i], 40))
				}
			}
		}
	}
	for k := range r.rows {
		if _, there := truth[k]; !there {
			differ("%s %s is not in the source", tables[k.table].name, k.key)
		}
	}
	if n := len(r.moving); n > 0 {
		differ("%d rows left their key and did not arrive at another", n)
	}
	x.Equal = x.DifferencesInAll == 0
	return x
}

// summary prints what came of it.
func (v *view) summary(s *summary) error {
	if v.o.JSON {
		e := json.NewEncoder(v.o.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	v.Printf("%s changes in %s transactions (the largest of %s rows), %s events, on %s\n\n", screen.Count(s.Changes), screen.Count(s.Transactions),
		screen.Count(s.Largest), screen.Count(s.Events), s.Database)
	t := screen.NewTable("SUBSCRIBER", "BY", ">DELIVERED", ">TWICE", ">REFUSED", ">P50", ">P99", ">MOST BEHIND", "COPY")
	millis := func(ms float64) screen.Cell {
		return screen.Text(screen.Duration(time.Duration(ms * float64(time.Millisecond))))
	}
	for _, x := range s.Subscribers {
		equal := screen.Cell{Text: "equal", Style: screen.Green}
		if !x.Equal {
			equal = screen.Cell{Text: screen.Count(x.DifferencesInAll) + " differences", Style: screen.Red}
		}
		t.Row(screen.Text(x.Name), screen.Text(x.Kind), screen.Text(screen.Count(x.Delivered)), screen.Text(screen.Count(x.Duplicates)), screen.Text(screen.Count(x.Refused)),
			millis(x.P50), millis(x.P99), screen.Text(screen.Count(x.Behind)), equal)
		for _, line := range x.Differences {
			t.Note(screen.Red, line)
		}
	}
	v.Print(t)
	v.Printf("\nP50 and P99: from the commit to the subscriber. Refused: requests answered 503.\n")
	if strings.HasPrefix(s.Database, "MariaDB") {
		v.Printf("(MariaDB tells the time of a commit in whole seconds.)\n")
	}
	v.Printf("Leat used %s of CPU, %.0f µs per delivered event", screen.Duration(time.Duration(s.CPUSeconds*1e9)), s.CPUPerEvent)
	if s.MemoryBytes > 0 {
		v.Printf(", and at most %s of memory", screen.Size(uint64(s.MemoryBytes)))
	}
	v.Printf(".\nIts log has %s", screen.Size(uint64(s.LogBytes)))
	if s.SlotBytes != nil {
		v.Printf("; the slot held at most %s of WAL", screen.Size(uint64(*s.SlotBytes)))
	}
	v.Printf(".\n\n")
	if s.Complete {
		v.Printf("%s each copy equals the source, row for row (%s rows), and each row's events came in order.\n",
			v.Paint(screen.Green, "Complete:"), screen.Count(s.Rows))
	}
	return v.Err()
}
