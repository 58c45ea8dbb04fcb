package telemetry

import (
	"github.com/rs/zerolog"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
)

// say writes a line unless the like was said; f adds its fields.
func (t *Telemetry) say(level zerolog.Level, key, text, message string, f func(*zerolog.Event) *zerolog.Event) {
	if t.log.GetLevel() > level {
		return
	}
	ok, hidden := t.once.allow(key, text)
	if !ok {
		return
	}
	e := f(t.log.WithLevel(level))
	if hidden > 0 {
		e = e.Int("hidden", hidden)
	}
	e.Msg(message)
}

func (t *Telemetry) sourceState(source, state string, err error) {
	level, text := zerolog.InfoLevel, state
	switch state {
	case "connecting":
		// Takes turns with retrying while a server is away.
		level = zerolog.DebugLevel
	case "retrying":
		level = zerolog.WarnLevel
		t.m.sources.get(source).reconnects.Inc()
	case "stopped":
		level = zerolog.ErrorLevel
	}
	if err != nil {
		text += err.Error()
	}
	t.say(level, "source/"+source, text, "source is "+state, func(e *zerolog.Event) *zerolog.Event {
		e = e.Str("source", source).Str("state", state)
		if err != nil {
			e = e.Str("reason", err.Error())
		}
		return e
	})
}

func (t *Telemetry) subscriptionState(subscription, state, reason string) {
	level := zerolog.InfoLevel
	switch state {
	case "retrying":
		level = zerolog.WarnLevel
	case "blocked", "stopped":
		if reason != "" {
			level = zerolog.ErrorLevel
		}
	}
	t.say(level, "subscription/"+subscription, state+reason, "subscription is "+state, func(e *zerolog.Event) *zerolog.Event {
		e = e.Str("subscription", subscription).Str("state", state)
		if reason != "" {
			e = e.Str("reason", reason)
		}
		return e
	})
}

func (t *Telemetry) subscriptionLag(subscription, stage, policy, why string) {
	level, message := zerolog.InfoLevel, "subscription is "+stage
	switch stage {
	case "live":
		message = "subscription has caught up"
	case "catch-up":
		message = "subscription is behind the tail and catches up"
	case "at risk":
		level, message = zerolog.WarnLevel, "subscription is at risk: retention may remove what it has not read"
	case "expired":
		level, message = zerolog.ErrorLevel, "subscription is expired: retention has removed what it had not read; that is skipped and listed"
	}
	t.say(level, "lag/"+subscription, stage, message, func(e *zerolog.Event) *zerolog.Event {
		return fields(e, "subscription", subscription, "laggard", policy, "reason", why)
	})
}

func (t *Telemetry) snapshotState(source, job, state, why string) {
	level := zerolog.InfoLevel
	if state == string(pipeline.JobFailed) {
		level = zerolog.ErrorLevel
	}
	if pipeline.JobState(state).Ended() {
		t.m.snapshotEnds.WithLabelValues(strings.ToValidUTF8(source, "?"), state).Inc()
	}
	t.say(level, "snapshot/"+job, state, "snapshot is "+state, func(e *zerolog.Event) *zerolog.Event {
		return fields(e, "source", source, "job", job, "reason", why)
	})
}

func (t *Telemetry) logFull(log string, full bool) {
	level, message := zerolog.InfoLevel, "there is space for the log again: reading goes on"
	if full {
		level, message = zerolog.ErrorLevel, "the log's disk is full: the source is not confirmed and reading waits for space"
	}
	t.say(level, "full/"+log, message, message, func(e *zerolog.Event) *zerolog.Event { return e.Str("source", log) })
}

func (t *Telemetry) noticed(source string, n pipeline.Notice) {
	level, message := zerolog.WarnLevel, "table noticed"
	switch n.Kind {
	case pipeline.NoticeQuarantined:
		level, message = zerolog.ErrorLevel, "table is quarantined: its rows do not enter the log"
	case pipeline.NoticeReleased:
		level, message = zerolog.InfoLevel, "table is read again"
	case pipeline.NoticeFilled:
		level, message = zerolog.InfoLevel, "a snapshot brought what a gap had left out"
	case pipeline.NoticeGap:
		message = "earlier changes of the table did not enter the log"
	}
	t.say(level, "notice/"+source, n.Table+message+n.Code, message, func(e *zerolog.Event) *zerolog.Event {
		return fields(e.Str("source", source), "table", n.Table, "code", n.Code, "position", n.Position, "reason", n.Reason, "cure", n.Cure)
	})
}

func (t *Telemetry) warned(place, what, cure string) {
	t.m.warnings.Inc()
	t.say(zerolog.WarnLevel, "warning/"+place, what, what, func(e *zerolog.Event) *zerolog.Event {
		return fields(e, "place", place, "cure", cure)
	})
}

func (t *Telemetry) deadLettered(subscription string, d pipeline.DeadLetter) {
	t.m.subscriptions.get(subscription).dead.Inc()
	// Neither key nor content: they are the users' data, and `leat parked` shows them to who may see them.
	t.say(zerolog.WarnLevel, "dead/"+subscription, d.ID, "event was given up on", func(e *zerolog.Event) *zerolog.Event {
		return fields(e, "subscription", subscription, "event", d.ID, "table", d.Table, "reason", d.Reason).Int("attempts", len(d.Attempts))
	})
}

// fields adds those that are not empty.
func fields(e *zerolog.Event, pairs ...string) *zerolog.Event {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			e = e.Str(pairs[i], pairs[i+1])
		}
	}
	return e
}
