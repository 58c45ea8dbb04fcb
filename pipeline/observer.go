package pipeline

import "time"

// Observer is told what happens; one adapter turns it into metrics and log lines. Each func may be nil
// until Fill; called once per batch at most, from any goroutine, and must not block.
type Observer struct {
	// SourceState: a source's stream changed state: connecting, streaming, retrying, stopped, closed.
	SourceState func(source, state string, err error)
	// Ingested: a batch was read and appended.
	Ingested func(source string, events, bytes int, end Position)
	// Synced: a group commit of n batches took d.
	Synced func(log string, batches, bytes int, took time.Duration)
	// LogFull: the log's disk is full (true) or has space again (false).
	LogFull func(log string, full bool)
	// Noticed: a table was quarantined, released or has a gap.
	Noticed func(source string, n Notice)
	// Warned: something that a person should know and that stops nothing.
	Warned func(place, what, cure string)
	// SubscriptionState: running, retrying, paused, blocked, waiting, stopped; and why.
	SubscriptionState func(subscription, state, reason string)
	// SubscriptionLag: how near a subscription is to what retention removes has changed: live, catch-up, at risk,
	// expired; policy is what then happens (hold, skip), why is for people.
	SubscriptionLag func(subscription, stage, policy, why string)
	// SnapshotState: a snapshot job began (running), or ended as done, cancelled or failed; why is for people.
	SnapshotState func(source, job, state, why string)
	// Delivered: a Delivery of n events came back after took; class is "ok" or why it failed; lag is the
	// time since the newest event's commit.
	Delivered func(subscription, class string, events, bytes int, took, lag time.Duration)
	// DeadLettered: an event was given up on.
	DeadLettered func(subscription string, d DeadLetter)
}

// Fill replaces nil funcs by ones that do nothing and returns the result.
func (o Observer) Fill() Observer {
	if o.SourceState == nil {
		o.SourceState = func(string, string, error) {}
	}
	if o.Ingested == nil {
		o.Ingested = func(string, int, int, Position) {}
	}
	if o.Synced == nil {
		o.Synced = func(string, int, int, time.Duration) {}
	}
	if o.LogFull == nil {
		o.LogFull = func(string, bool) {}
	}
	if o.Noticed == nil {
		o.Noticed = func(string, Notice) {}
	}
	if o.Warned == nil {
		o.Warned = func(string, string, string) {}
	}
	if o.SubscriptionState == nil {
		o.SubscriptionState = func(string, string, string) {}
	}
	if o.SubscriptionLag == nil {
		o.SubscriptionLag = func(string, string, string, string) {}
	}
	if o.SnapshotState == nil {
		o.SnapshotState = func(string, string, string, string) {}
	}
	if o.Delivered == nil {
		o.Delivered = func(string, string, int, int, time.Duration, time.Duration) {}
	}
	if o.DeadLettered == nil {
		o.DeadLettered = func(string, DeadLetter) {}
	}
	return o
}
