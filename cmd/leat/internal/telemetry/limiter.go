package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// again is how long a line that says the same as the last of its key is not shown again.
	again = time.Minute
	// burst is how many lines of one key are shown in that time, whatever they say.
	burst = 10
	// maxKeys bounds what is remembered.
	maxKeys = 4096
)

// limiter keeps log lines from repeating without end.
type limiter struct {
	mu   sync.Mutex
	keys map[string]*spoken
}

// spoken is what was last said under a key.
type spoken struct {
	text   string
	at     time.Time // of the last line shown
	since  time.Time // begin of the minute that shown counts
	shown  int
	hidden int
}

func newLimiter() *limiter { return &limiter{keys: map[string]*spoken{}} }

// allow reports whether a line may be shown, and how many of its key were not since the last one.
func (l *limiter) allow(key, text string) (ok bool, hidden int) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.keys[key]
	if s == nil {
		if len(l.keys) >= maxKeys {
			clear(l.keys)
		}
		s = &spoken{since: now}
		l.keys[key] = s
	}
	if now.Sub(s.since) >= again {
		s.since, s.shown = now, 0
	}
	if s.shown >= burst || s.text == text && !s.at.IsZero() && now.Sub(s.at) < again {
		s.hidden++
		return false, 0
	}
	hidden = s.hidden
	s.text, s.at, s.hidden = text, now, 0
	s.shown++
	return true, hidden
}

// bridge is a slog.Handler before zerolog's.
type bridge struct {
	inner slog.Handler
	once  *limiter
	part  string
	least slog.Level
}

// Enabled asks both.
func (b *bridge) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= b.least && b.inner.Enabled(ctx, l)
}

// Handle leaves out repeated lines.
func (b *bridge) Handle(ctx context.Context, r slog.Record) error {
	ok, hidden := b.once.allow("slog/"+b.part+"/"+r.Level.String(), r.Message)
	if !ok {
		return nil
	}
	if hidden > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("hidden", hidden))
	}
	return b.inner.Handle(ctx, r)
}

// WithAttrs adds attributes.
func (b *bridge) WithAttrs(a []slog.Attr) slog.Handler {
	c := *b
	c.inner = b.inner.WithAttrs(a)
	return &c
}

// WithGroup opens a group.
func (b *bridge) WithGroup(name string) slog.Handler {
	c := *b
	c.inner = b.inner.WithGroup(name)
	return &c
}
