package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// snapshotStates are those of jobs that have not ended.
var snapshotStates = []string{"running", "waiting", "paused"}

// snapshots are the gauges of a source's snapshot jobs that have not ended.
type snapshots struct {
	jobs *prometheus.Desc
	sums []gauge[*leatv1.Job]
}

func newSnapshots() snapshots {
	sum := func(name, help string, v func(*leatv1.Job) float64) gauge[*leatv1.Job] {
		return gauge[*leatv1.Job]{prometheus.NewDesc(name, help, []string{"source"}, nil), v}
	}
	return snapshots{
		jobs: prometheus.NewDesc("leat_snapshot_jobs", "Snapshot jobs that have not ended, by state.", []string{"source", "state"}, nil),
		sums: []gauge[*leatv1.Job]{
			sum("leat_snapshot_rows", "Rows that the snapshot jobs which have not ended brought so far.", func(j *leatv1.Job) float64 { return float64(j.GetDone()) }),
			sum("leat_snapshot_rows_expected", "Rows that these jobs have to bring in all, as the database guesses.", func(j *leatv1.Job) float64 { return float64(j.GetTotal()) }),
			sum("leat_snapshot_bytes", "Bytes of the rows that these jobs brought.", func(j *leatv1.Job) float64 { return float64(j.GetBytes()) }),
			sum("leat_snapshot_rows_per_second", "Rows a second that these jobs bring.", func(j *leatv1.Job) float64 { return j.GetEventsPerSecond() }),
			sum("leat_snapshot_faulty_tables", "Tables of these jobs that cannot be read: leat jobs says why.", faulty),
		},
	}
}

func faulty(j *leatv1.Job) (n float64) {
	for _, t := range j.GetTables() {
		n += oneIf(t.GetFault() != "")
	}
	return n
}

func (s *snapshots) describe(c chan<- *prometheus.Desc) {
	c <- s.jobs
	for i := range s.sums {
		c <- s.sums[i].desc
	}
}

// collect gives each family, so that none is missing while there are no jobs.
func (s *snapshots) collect(c chan<- prometheus.Metric, source *leatv1.SourceStatus) {
	states := map[string]float64{}
	for _, j := range source.GetSnapshots() {
		states[j.GetState()]++
	}
	for _, state := range snapshotStates {
		c <- prometheus.MustNewConstMetric(s.jobs, prometheus.GaugeValue, states[state], source.GetName(), state)
	}
	for i := range s.sums {
		all := 0.0
		for _, j := range source.GetSnapshots() {
			all += s.sums[i].value(j)
		}
		c <- prometheus.MustNewConstMetric(s.sums[i].desc, prometheus.GaugeValue, all, source.GetName())
	}
}
