package telemetry

import (
	"bytes"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// maxTables is how many quarantined tables of a source are named; the count has all.
const maxTables = 20

var (
	sourceStates       = []string{"connecting", "streaming", "retrying", "stopped", "closed", "gone"}
	subscriptionStates = []string{"running", "retrying", "waiting", "blocked", "paused", "stopped", "closed", "gone"}
	laggardStages      = []string{"live", "catch-up", "at risk", "expired"}
	diskStages         = []string{"replays", "laggards", "reading"}
)

// gauge is one family that is read from a T of the status.
type gauge[T any] struct {
	desc  *prometheus.Desc
	value func(T) float64
}

// gauges is a Collector over the status.
type gauges struct {
	status *atomic.Pointer[func() *leatv1.StatusResponse]

	whole                                               []gauge[*leatv1.StatusResponse]
	source                                              []gauge[*leatv1.SourceStatus]
	subscription                                        []gauge[*leatv1.SubscriptionStatus]
	sourceState, subscriptionState, tables, quarantined *prometheus.Desc
	laggard                                             *prometheus.Desc
	turns, turnsWaited, turnsWait                       *prometheus.Desc
	snapshots                                           snapshots
}

func newGauges(status *atomic.Pointer[func() *leatv1.StatusResponse]) *gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	src := func(name, help string, v func(*leatv1.SourceStatus) float64) gauge[*leatv1.SourceStatus] {
		return gauge[*leatv1.SourceStatus]{desc(name, help, "source"), v}
	}
	sub := func(name, help string, v func(*leatv1.SubscriptionStatus) float64) gauge[*leatv1.SubscriptionStatus] {
		return gauge[*leatv1.SubscriptionStatus]{desc(name, help, "subscription"), v}
	}
	type source = leatv1.SourceStatus
	type subscription = leatv1.SubscriptionStatus
	return &gauges{
		status:    status,
		snapshots: newSnapshots(),
		whole: []gauge[*leatv1.StatusResponse]{
			{desc("leat_memory_budget_bytes", "The configured budget of all buffers."), func(s *leatv1.StatusResponse) float64 { return float64(s.GetMemoryBudget()) }},
			{desc("leat_start_time_seconds", "When Leat started, since 1970."), func(s *leatv1.StatusResponse) float64 {
				return float64(s.GetStarted().AsTime().UnixMilli()) / 1e3
			}},
		},
		source: []gauge[*leatv1.SourceStatus]{
			src("leat_source_lag_seconds", "Time from commit to durable in the log, of the newest batch.", func(s *source) float64 { return s.GetLag().AsDuration().Seconds() }),
			src("leat_source_tables", "Tables that the source's log knows.", func(s *source) float64 { return float64(s.GetTables()) }),
			src("leat_log_size_bytes", "Bytes of the source's log on disk.", func(s *source) float64 { return float64(s.GetLogBytes()) }),
			src("leat_log_oldest_offset", "First offset that the log keeps.", func(s *source) float64 { return float64(s.GetOldest()) }),
			src("leat_log_next_offset", "Offset that the next event will get.", func(s *source) float64 { return float64(s.GetNext()) }),
			src("leat_source_reading_ratio", "Share of the time in which the source is read; below 1 while load or a throttle slows it.", reading),
			src("leat_source_time_to_loss_seconds", "Time until the database may remove what is not read; +Inf when nothing is in danger.", timeToLoss),
			src("leat_source_behind_bytes", "Bytes that the database has written behind what was read.", func(s *source) float64 { return float64(s.GetPressure().GetBehindBytes()) }),
			src("leat_source_headroom_bytes", "Bytes that the database can write until it may remove what is not read; +Inf when no size limits that.", headroom),
			src("leat_source_slot_lost", "1 when the WAL of the slot is lost or may go with the next checkpoint.", func(s *source) float64 {
				return oneIf(slices.Contains([]string{"unreserved", "lost"}, s.GetPressure().GetWalStatus()))
			}),
			src("leat_source_catalog_xmin_age", "Transactions by which the slot keeps the vacuum of the database's catalogue back.", func(s *source) float64 { return float64(s.GetPressure().GetCatalogXminAge()) }),
			src("leat_source_binlog_age_ratio", "Age of what is to be read next, as a share of that at which the database removes it; 0 when nothing goes by age.", binlogAge),
			src("leat_source_active_sessions", "Sessions of the database at work besides Leat's; 0 when they cannot be seen.", func(s *source) float64 { return float64(s.GetPressure().GetActiveSessions()) }),
			src("leat_disk_stage", "What our own disk, which fills, forbids: 0 nothing, 1 replays (80 %), 2 the log grows no more (90 %), 3 reading (95 %).", func(s *source) float64 { return float64(1 + slices.Index(diskStages, s.GetDisk())) }),
			src("leat_log_full", "1 while the log's disk is full and reading waits.", func(s *source) float64 { return oneIf(s.GetLogFull()) }),
		},
		subscription: []gauge[*leatv1.SubscriptionStatus]{
			sub("leat_subscription_lag_seconds", "Time since the commit of the oldest event that is not done; 0 when there is none.", func(s *subscription) float64 { return s.GetLag().AsDuration().Seconds() }),
			sub("leat_subscription_lag_events", "Events behind the end of the log.", func(s *subscription) float64 { return float64(s.GetLagEvents()) }),
			sub("leat_subscription_lag_bytes", "Bytes of the log between the cursor and the end, about.", func(s *subscription) float64 { return float64(s.GetLagBytes()) }),
			sub("leat_subscription_low_offset", "Offset below which everything is done.", func(s *subscription) float64 { return float64(s.GetLow()) }),
			sub("leat_subscription_resolved_offset", "Offset below which everything is acked or listed.", func(s *subscription) float64 { return float64(s.GetResolved()) }),
			sub("leat_subscription_in_flight", "Deliveries in flight.", func(s *subscription) float64 { return float64(s.GetInFlight()) }),
			sub("leat_subscription_limit", "Deliveries that may be in flight now, by what the endpoint takes.", func(s *subscription) float64 { return float64(s.GetLimit()) }),
			sub("leat_subscription_pace", "Deliveries per second that may leave; 0: no bound.", func(s *subscription) float64 { return s.GetPace() }),
			sub("leat_subscription_throttle_ratio", "Share of its speed that throttles leave to the subscription; 1: all.", func(s *subscription) float64 { return throttleRatio(s.GetThrottles()) }),
			sub("leat_subscription_parked_keys", "Keys that are parked.", func(s *subscription) float64 { return float64(s.GetParked()) }),
			sub("leat_subscription_hosts_ejected", "Hosts of the webhook that get nothing, as they fail.", hostsEjected),
			sub("leat_subscription_waits", "Reasons for which the subscription waits or is slowed: see leat status.", func(s *subscription) float64 { return float64(len(s.GetWaits())) }),
			sub("leat_subscription_open_events", "Events that were read and are not done.", func(s *subscription) float64 { return float64(s.GetOpen()) }),
			sub("leat_subscription_held_events", "Events that wait for an earlier one.", func(s *subscription) float64 { return float64(s.GetHeld()) }),
			sub("leat_subscription_buffered_bytes", "Bytes of events in memory.", func(s *subscription) float64 { return float64(s.GetBufferedBytes()) }),
			sub("leat_subscription_dead_letters", "Events that were given up on and are kept.", func(s *subscription) float64 { return float64(s.GetDead()) }),
			sub("leat_subscription_expired_events", "Events that retention removed before they were delivered, since the start; listed as skipped.", func(s *subscription) float64 { return float64(s.GetLaggard().GetExpiredEvents()) }),
			sub("leat_subscription_cursor_unsaved", "1 while the cursor cannot be saved.", func(s *subscription) float64 { return oneIf(s.GetSaveError() != "") }),
		},
		sourceState:       desc("leat_source_state", "1 for the state that the source is in.", "source", "state"),
		subscriptionState: desc("leat_subscription_state", "1 for the state that the subscription is in.", "subscription", "state"),
		laggard:           desc("leat_subscription_laggard", "1 for how near the subscription is to what retention removes.", "subscription", "stage"),
		turns:             desc("leat_delivery_turns_total", "Deliveries that were encoded, by the priority of their subscription.", "priority"),
		turnsWaited:       desc("leat_delivery_turns_waited_total", "Those of them that waited for their turn, since others used the CPU.", "priority"),
		turnsWait:         desc("leat_delivery_turns_wait_seconds_total", "How long those waited, together.", "priority"),
		tables:            desc("leat_source_quarantined_tables", "Tables whose rows do not enter the log.", "source"),
		quarantined:       desc("leat_source_table_quarantined", "1 for a table whose rows do not enter the log; the first twenty of a source.", "source", "table"),
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe names all families.
func (g *gauges) Describe(c chan<- *prometheus.Desc) {
	for i := range g.whole {
		c <- g.whole[i].desc
	}
	g.snapshots.describe(c)
	for i := range g.source {
		c <- g.source[i].desc
	}
	for i := range g.subscription {
		c <- g.subscription[i].desc
	}
	for _, d := range []*prometheus.Desc{g.sourceState, g.subscriptionState, g.tables, g.quarantined, g.laggard, g.turns, g.turnsWaited, g.turnsWait} {
		c <- d
	}
}

// Collect reads the status once.
func (g *gauges) Collect(c chan<- prometheus.Metric) {
	f := g.status.Load()
	if f == nil {
		return
	}
	s := (*f)()
	if s == nil {
		return
	}
	emit(c, g.whole, s)
	for _, x := range s.GetTurns() {
		c <- prometheus.MustNewConstMetric(g.turns, prometheus.CounterValue, float64(x.GetTaken()), x.GetPriority())
		c <- prometheus.MustNewConstMetric(g.turnsWaited, prometheus.CounterValue, float64(x.GetWaited()), x.GetPriority())
		c <- prometheus.MustNewConstMetric(g.turnsWait, prometheus.CounterValue, x.GetWait().AsDuration().Seconds(), x.GetPriority())
	}
	for i, x := range s.GetSources() {
		if i >= maxNames {
			break
		}
		emit(c, g.source, x, x.GetName())
		g.oneHot(c, g.sourceState, sourceStates, x.GetName(), x.GetState())
		g.quarantines(c, x)
		g.snapshots.collect(c, x)
	}
	for i, x := range s.GetSubscriptions() {
		if i >= maxNames {
			break
		}
		emit(c, g.subscription, x, x.GetName())
		g.oneHot(c, g.subscriptionState, subscriptionStates, x.GetName(), x.GetState())
		if l := x.GetLaggard(); l != nil {
			g.oneHot(c, g.laggard, laggardStages, x.GetName(), l.GetStage())
		}
	}
}

func emit[T any](c chan<- prometheus.Metric, gs []gauge[T], x T, labels ...string) {
	for i := range gs {
		c <- prometheus.MustNewConstMetric(gs[i].desc, prometheus.GaugeValue, gs[i].value(x), labels...)
	}
}

// oneHot gives a series per known state, so that a state is never missing, and one for all others.
func (g *gauges) oneHot(c chan<- prometheus.Metric, d *prometheus.Desc, states []string, name, state string) {
	known := false
	for _, s := range states {
		known = known || s == state
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, oneIf(s == state), name, s)
	}
	c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, oneIf(!known), name, other)
}

func (g *gauges) quarantines(c chan<- prometheus.Metric, x *leatv1.SourceStatus) {
	named := map[string]bool{}
	for _, n := range x.GetNotices() {
		if n.GetKind() != "quarantined" || named[n.GetTable()] {
			continue
		}
		named[n.GetTable()] = true
		if len(named) <= maxTables {
			c <- prometheus.MustNewConstMetric(g.quarantined, prometheus.GaugeValue, 1, x.GetName(), strings.ToValidUTF8(n.GetTable(), "?"))
		}
	}
	c <- prometheus.MustNewConstMetric(g.tables, prometheus.GaugeValue, float64(len(named)), x.GetName())
}

// anonymous is a Collector of the memory that the process holds for itself: what `memory` bounds. Pages
// of files (the log) are the system's to take back and do not count.
type anonymous struct{}

var anonymousDesc = prometheus.NewDesc("leat_process_anonymous_bytes", "Anonymous resident memory of the process.", nil, nil)

// Describe names it.
func (anonymous) Describe(c chan<- *prometheus.Desc) { c <- anonymousDesc }

// Collect reads it; systems that do not tell show none.
func (anonymous) Collect(c chan<- prometheus.Metric) {
	if n, ok := AnonymousMemory(); ok {
		c <- prometheus.MustNewConstMetric(anonymousDesc, prometheus.GaugeValue, float64(n))
	}
}

// AnonymousMemory is the anonymous resident memory of the process in bytes (RssAnon of Linux); ok false
// where the system does not tell.
func AnonymousMemory() (n uint64, ok bool) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		if rest, is := bytes.CutPrefix(line, []byte("RssAnon:")); is {
			kb, err := strconv.ParseUint(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			return kb << 10, err == nil
		}
	}
	return 0, false
}

func timeToLoss(s *leatv1.SourceStatus) float64 {
	if d := s.GetPressure().GetTimeToLoss(); d != nil {
		return d.AsDuration().Seconds()
	}
	return math.Inf(1)
}

func headroom(s *leatv1.SourceStatus) float64 {
	if p := s.GetPressure(); p != nil && p.HeadroomBytes != nil {
		return float64(p.GetHeadroomBytes())
	}
	return math.Inf(1)
}

func binlogAge(s *leatv1.SourceStatus) float64 {
	if e := s.GetPressure().GetBinlogExpiry().AsDuration(); e > 0 {
		return s.GetPressure().GetBinlogAge().AsDuration().Seconds() / e.Seconds()
	}
	return 0
}

// reading is 1 of a source that is not read at all: nobody slows it.
func reading(s *leatv1.SourceStatus) float64 {
	if p := s.GetPressure(); p != nil {
		return p.GetReading()
	}
	return 1
}

func throttleRatio(all []*leatv1.ThrottleState) float64 {
	r := 1.0
	for _, t := range all {
		r = min(r, t.GetRatio())
	}
	return r
}

func hostsEjected(s *leatv1.SubscriptionStatus) (n float64) {
	for _, h := range s.GetHosts() {
		n += oneIf(h.GetEjected())
	}
	return n
}
