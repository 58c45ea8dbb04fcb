package report

import (
	"errors"
	"sync"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/status"
)

// Feeds are the status sources of an installation. Safe for concurrent use.
type Feeds struct {
	mu       sync.Mutex
	sources  map[string]*status.Source
	sourceOf map[string]string // by subscription
}

// NewFeeds has none.
func NewFeeds() *Feeds {
	return &Feeds{sources: map[string]*status.Source{}, sourceOf: map[string]string{}}
}

// Open makes the status sources those that cfg names, before anything starts that they tell about.
func (f *Feeds) Open(cfg *config.Config) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.sources {
		if src := cfg.Sources[name]; src == nil || src.Status == nil {
			delete(f.sources, name)
		}
	}
	for name, src := range cfg.Sources {
		if src.Status != nil && f.sources[name] == nil {
			f.sources[name] = status.New()
		}
	}
	for name := range f.sourceOf {
		if cfg.Subscriptions[name] == nil {
			delete(f.sourceOf, name)
			for _, s := range f.sources {
				s.Forget(name)
			}
		}
	}
	for name, sub := range cfg.Subscriptions {
		f.sourceOf[name] = sub.Source
	}
}

// Of returns a status source that Open was told of.
func (f *Feeds) Of(name string) *status.Source {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sources[name]
}

// tell all of them, unless it is about one of them or who subscribes to one: that would never end.
func (f *Feeds) tell(c status.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	about := c.Name
	if c.Kind != "source" {
		c.Source = f.sourceOf[c.Name]
		about = c.Source
	}
	if f.sources[about] != nil {
		return
	}
	c.Time = time.Now().UTC()
	for _, s := range f.sources {
		s.Changed(c)
	}
}

// Observe adds the telling to an observer that is filled.
func (f *Feeds) Observe(obs pipeline.Observer) pipeline.Observer {
	subscription, lag, source := obs.SubscriptionState, obs.SubscriptionLag, obs.SourceState
	obs.SubscriptionState = func(name, state, reason string) {
		f.tell(status.Change{Kind: "subscription", Name: name, State: state, Reason: reason})
		subscription(name, state, reason)
	}
	obs.SubscriptionLag = func(name, stage, policy, why string) {
		f.tell(status.Change{Kind: "laggard", Name: name, State: stage, Policy: policy, Reason: why})
		lag(name, stage, policy, why)
	}
	obs.SourceState = func(name, state string, err error) {
		c := status.Change{Kind: "source", Name: name, State: state}
		if err != nil {
			c.Reason = err.Error()
		}
		var se *pipeline.SourceError
		if errors.As(err, &se) {
			c.Code = se.Code
		}
		f.tell(c)
		source(name, state, err)
	}
	return obs
}
