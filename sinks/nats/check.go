package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Check looks at the server, the stream, and whether it takes the subjects of the tables; it changes nothing.
func (s *Sink) Check(ctx context.Context, tables []*schemas.Table) (found []pipeline.Finding) {
	find := func(level, code, what, cure string) {
		found = append(found, pipeline.Finding{Level: level, Code: code, What: what, Cure: cure})
	}
	c, err := s.dial(ctx)
	if err != nil {
		if s.hasCure(err) {
			find("error", "nats", s.reason(nil, err), "")
		} else {
			find("warning", "unreachable", s.reason(nil, err), "start the server, or correct url; until then the subscription waits and loses nothing")
		}
		return found
	}
	defer c.close()
	stream, err := c.js.Stream(ctx, s.o.Stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && s.o.Create != nil:
		find("info", "nats_create", fmt.Sprintf("the stream %s is not there: it will be made for %s", s.o.Stream, Wildcard(s.o.Subject, s.o.Source, s.o.Subscription)), "")
		return found
	case err != nil:
		find("error", "nats_stream", s.reason(c, fmt.Errorf("stream %s: %w", s.o.Stream, err)), "")
		return found
	}
	s.checkStream(stream.CachedInfo().Config, tables, find)
	return found
}

func (s *Sink) checkStream(o jetstream.StreamConfig, tables []*schemas.Table, find func(level, code, what, cure string)) {
	switch {
	case o.NoAck:
		find("error", "nats_no_ack", "the stream "+o.Name+" acknowledges nothing", "take no_ack from it")
	case o.Sealed, o.Mirror != nil:
		find("error", "nats_closed", "the stream "+o.Name+" is sealed or a mirror: it takes no messages", "name another one")
	}
	if o.Retention != jetstream.LimitsPolicy {
		find("warning", "nats_takes_away", fmt.Sprintf("the stream's messages go when they are consumed (retention %s): what was delivered right before a crash, and consumed since, comes again once the duplicate window (%s) is over", o.Retention, o.Duplicates),
			"use retention limits, or widen the window (nats stream edit --dupe-window)")
	}
	seen := map[string]bool{}
	for _, t := range tables {
		subject := s.subject(t)
		if !seen[subject] && !slices.ContainsFunc(o.Subjects, func(p string) bool { return covers(p, subject) }) {
			find("error", "nats_subject", fmt.Sprintf("the stream %s does not take the subject %s", o.Name, subject), "add it to the stream's subjects (nats stream edit --subjects), or change subject")
		}
		seen[subject] = true
	}
}

func (s *Sink) hasCure(err error) bool {
	cure, _ := s.cure(err)
	return cure != ""
}

// reason is what a Delivery would be told.
func (s *Sink) reason(c *connection, err error) string {
	return pipeline.AsDeliveryError(s.classify(c, err)).Reason
}
