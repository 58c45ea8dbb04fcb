package telemetry

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leat-cdc/leat/pipeline"
)

// maxNames bounds the series of a family, whatever the names come from; what is beyond counts as "other".
const (
	maxNames   = 1000
	maxClasses = 16
	other      = "other"
)

// metrics are what the Observer feeds.
type metrics struct {
	sources       handles[*source]
	subscriptions handles[*subscription]

	sourceEvents, sourceBytes, reconnects *prometheus.CounterVec
	snapshotEnds                          *prometheus.CounterVec
	sync                                  *prometheus.HistogramVec
	syncBatches, syncBytes                *prometheus.CounterVec
	deliveries, delivered, deliveredBytes *prometheus.CounterVec
	delivery, lag                         *prometheus.HistogramVec
	dead                                  *prometheus.CounterVec
	warnings                              prometheus.Counter
}

// source holds the series of one source and its log.
type source struct {
	events, bytes, reconnects, batches, synced prometheus.Counter
	sync                                       prometheus.Observer
	rate                                       *Rate
}

// subscription holds the series of one subscription.
type subscription struct {
	delivery, lag prometheus.Observer
	dead          prometheus.Counter
	classes       handles[*class]
	rate          *Rate
}

type class struct{ deliveries, events, bytes prometheus.Counter }

func newMetrics(r *prometheus.Registry) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	// 100 µs to 105 s, and to 1.2 h for lags: factors of 2 and 4.
	histogram := func(name, help string, first, factor float64, n int, label string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, factor, n)}, []string{label})
		r.MustRegister(v)
		return v
	}
	m := &metrics{
		sourceEvents:   counter("leat_source_events_total", "Events read from the source and appended to its log.", "source"),
		sourceBytes:    counter("leat_source_bytes_total", "Bytes of the events read from the source.", "source"),
		reconnects:     counter("leat_source_reconnects_total", "Times that the source's stream was lost and is tried again.", "source"),
		snapshotEnds:   counter("leat_snapshot_jobs_ended_total", "Snapshot jobs that ended, by how: done, cancelled, failed.", "source", "state"),
		sync:           histogram("leat_log_sync_seconds", "Duration of a group commit of the log.", 1e-4, 2, 18, "source"),
		syncBatches:    counter("leat_log_synced_batches_total", "Batches made durable in the log.", "source"),
		syncBytes:      counter("leat_log_synced_bytes_total", "Bytes made durable in the log.", "source"),
		deliveries:     counter("leat_subscription_deliveries_total", "Deliveries, by what came of them.", "subscription", "class"),
		delivered:      counter("leat_subscription_events_total", "Events in deliveries, by what came of them; those tried again count again.", "subscription", "class"),
		deliveredBytes: counter("leat_subscription_bytes_total", "Bytes of the events in deliveries, by what came of them.", "subscription", "class"),
		delivery:       histogram("leat_subscription_delivery_seconds", "Duration of a delivery, until the subscriber answered or took it.", 1e-4, 2, 20, "subscription"),
		lag:            histogram("leat_subscription_delivery_lag_seconds", "Time from the commit of the newest event of a delivery to its end.", 1e-3, 2, 22, "subscription"),
		dead:           counter("leat_subscription_dead_lettered_total", "Events that were given up on.", "subscription"),
		warnings:       prometheus.NewCounter(prometheus.CounterOpts{Name: "leat_warnings_total", Help: "Things that a person should know and that stopped nothing."}),
	}
	r.MustRegister(m.warnings)
	m.sources.make, m.sources.most = m.newSource, maxNames
	m.subscriptions.make, m.subscriptions.most = m.newSubscription, maxNames
	return m
}

func (m *metrics) newSource(name string) *source {
	return &source{
		events: m.sourceEvents.WithLabelValues(name), bytes: m.sourceBytes.WithLabelValues(name), reconnects: m.reconnects.WithLabelValues(name),
		sync: m.sync.WithLabelValues(name), batches: m.syncBatches.WithLabelValues(name), synced: m.syncBytes.WithLabelValues(name), rate: new(Rate),
	}
}

func (m *metrics) newSubscription(name string) *subscription {
	s := &subscription{delivery: m.delivery.WithLabelValues(name), lag: m.lag.WithLabelValues(name), dead: m.dead.WithLabelValues(name), rate: new(Rate)}
	s.classes.most = maxClasses
	s.classes.make = func(c string) *class {
		return &class{m.deliveries.WithLabelValues(name, c), m.delivered.WithLabelValues(name, c), m.deliveredBytes.WithLabelValues(name, c)}
	}
	return s
}

func (m *metrics) ingested(name string, events, bytes int, _ pipeline.Position) {
	s := m.sources.get(name)
	s.events.Add(float64(events))
	s.bytes.Add(float64(bytes))
	s.rate.Add(events, bytes)
}

func (m *metrics) synced(log string, batches, bytes int, took time.Duration) {
	s := m.sources.get(log)
	s.sync.Observe(took.Seconds())
	s.batches.Add(float64(batches))
	s.synced.Add(float64(bytes))
}

func (m *metrics) observeDelivery(name, cls string, events, bytes int, took, lag time.Duration) {
	s := m.subscriptions.get(name)
	s.delivery.Observe(took.Seconds())
	c := s.classes.get(cls)
	c.deliveries.Inc()
	c.events.Add(float64(events))
	c.bytes.Add(float64(bytes))
	if cls == "ok" {
		// Clocks of two machines: a negative lag is none.
		s.lag.Observe(max(lag.Seconds(), 0))
		s.rate.Add(events, bytes)
	}
}

func (m *metrics) forgetSource(name string) {
	m.sources.drop(name)
	l := prometheus.Labels{"source": name}
	m.sync.DeletePartialMatch(l)
	for _, v := range []*prometheus.CounterVec{m.sourceEvents, m.sourceBytes, m.reconnects, m.snapshotEnds, m.syncBatches, m.syncBytes} {
		v.DeletePartialMatch(l)
	}
}

func (m *metrics) forgetSubscription(name string) {
	m.subscriptions.drop(name)
	l := prometheus.Labels{"subscription": name}
	m.delivery.DeletePartialMatch(l)
	m.lag.DeletePartialMatch(l)
	for _, v := range []*prometheus.CounterVec{m.deliveries, m.delivered, m.deliveredBytes, m.dead} {
		v.DeletePartialMatch(l)
	}
}

// handles are the series by name. Finding one neither locks nor allocates: the map is copied when it
// grows, which is seldom. (sync.Map would allocate the key's interface.)
type handles[T any] struct {
	make func(name string) T
	most int

	now atomic.Pointer[map[string]T]
	mu  sync.Mutex
}

func (h *handles[T]) peek(name string) (t T, ok bool) {
	if m := h.now.Load(); m != nil {
		t, ok = (*m)[name]
	}
	return t, ok
}

func (h *handles[T]) get(name string) T {
	if t, ok := h.peek(name); ok {
		return t
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	name = strings.ToValidUTF8(name, "?") // a label must be UTF-8
	if t, ok := h.peek(name); ok {
		return t
	}
	grown := map[string]T{}
	if m := h.now.Load(); m != nil {
		if len(*m) >= h.most {
			name = other
			if t, ok := (*m)[name]; ok {
				return t
			}
		}
		for k, v := range *m {
			grown[k] = v
		}
	}
	t := h.make(name)
	grown[name] = t
	h.now.Store(&grown)
	return t
}

func (h *handles[T]) drop(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.now.Load(); m != nil {
		less := map[string]T{}
		for k, v := range *m {
			if k != name {
				less[k] = v
			}
		}
		h.now.Store(&less)
	}
}
