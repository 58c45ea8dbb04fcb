package search

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Check looks at the cluster, and at the indices of tables by their aliases; it changes nothing.
func (s *Sink) Check(ctx context.Context, aliases []string) (found []pipeline.Finding) {
	add := func(level, code, place, what, cure string) {
		found = append(found, pipeline.Finding{Level: level, Code: code, Place: place, What: what, Cure: cure})
	}
	var about struct {
		Version struct {
			Number       string `json:"number"`
			Distribution string `json:"distribution"`
		} `json:"version"`
	}
	err := s.c.ask(ctx, http.MethodGet, "/", nil, &about)
	switch st := status(err); {
	case st == http.StatusUnauthorized:
		add("error", "search_user", "", "the cluster does not know the user: "+pipeline.AsDeliveryError(err).Reason, "correct user and password in url, or api_key")
		return found
	case st == http.StatusForbidden: // it may write all the same
	case err != nil:
		add("warning", "unreachable", "", "the cluster does not answer: "+pipeline.AsDeliveryError(err).Reason, "start it, or correct the url; until then the subscription waits and loses nothing")
		return found
	case about.Version.Number == "":
		add("error", "search_server", "", "what answers at the url is neither Elasticsearch nor OpenSearch", "correct the url")
		return found
	}
	for _, alias := range aliases {
		t, err := s.find(ctx, alias)
		if err != nil {
			add("error", "search_index", "index "+alias, pipeline.AsDeliveryError(err).Reason, "give the user the rights manage, write and read on "+alias+"*")
			continue
		}
		if t == nil {
			continue // it will be made
		}
		if t.alias == "" {
			add("info", "search_index", "index "+alias, "it is an index and no alias: its mapping is left as it is, and it cannot be made anew in place", "")
		}
		s.checkDeletes(ctx, t, add)
	}
	return found
}

// checkDeletes says how long an index knows what was removed.
func (s *Sink) checkDeletes(ctx context.Context, t *target, add func(level, code, place, what, cure string)) {
	if s.o.Soft {
		return
	}
	var settings map[string]struct {
		Settings struct {
			Kept string `json:"index.gc_deletes"`
		} `json:"settings"`
		Defaults struct {
			Kept string `json:"index.gc_deletes"`
		} `json:"defaults"`
	}
	if err := s.c.ask(ctx, http.MethodGet, "/"+url.PathEscape(t.index)+"/_settings?include_defaults=true&flat_settings=true", nil, &settings); err != nil {
		add("error", "search_index", "index "+t.index, pipeline.AsDeliveryError(err).Reason, "give the user the rights manage, write and read on it")
		return
	}
	text := settings[t.index].Settings.Kept
	if text == "" {
		text = settings[t.index].Defaults.Kept
	}
	if kept, ok := duration(text); ok && kept < s.o.Tombstones {
		add("warning", "gc_deletes", "index "+t.index, fmt.Sprintf("it knows for %s what was removed (index.gc_deletes), gc_deletes here is %ds: an event that comes later than that, as in a replay, brings a deleted row back", text, int(s.o.Tombstones.Seconds())),
			fmt.Sprintf("PUT %s/_settings {\"index.gc_deletes\": \"%ds\"}, or deletes: soft", t.index, int(s.o.Tombstones.Seconds())))
	}
}

// duration reads 60s, 3600000ms, 1h, 2d.
func duration(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		return time.Duration(n * float64(24*time.Hour)), err == nil
	}
	d, err := time.ParseDuration(strings.Replace(text, "micros", "us", 1))
	return d, err == nil
}
