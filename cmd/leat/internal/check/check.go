// Package check looks at what a configuration, or a URL, names before anything runs: folders, databases, filters,
// endpoints. It says what stands in the way and what cures it; it changes nothing.
package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/form"
	"github.com/leat-cdc/leat/sinks/parquet"
	"github.com/leat-cdc/leat/sinks/search"
	"github.com/leat-cdc/leat/sinks/webhook"
)

// checkTime bounds the look at one source or sink.
const checkTime = 20 * time.Second

// Config looks at every source and sink of a config, side by side; it changes nothing. Findings come in the
// order of the names, sources first.
func Config(ctx context.Context, cfg *config.Config) []pipeline.Finding {
	var jobs []func(context.Context) []pipeline.Finding
	jobs = append(jobs, func(context.Context) []pipeline.Finding { return checkData(cfg) })
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		jobs = append(jobs, func(ctx context.Context) []pipeline.Finding { return checkSource(ctx, cfg, name) })
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Subscriptions)) {
		jobs = append(jobs, func(ctx context.Context) []pipeline.Finding {
			return append(checkSubscription(ctx, cfg, name), checkContract("subscriptions."+name, cfg.Subscriptions[name])...)
		})
	}
	jobs = append(jobs, func(ctx context.Context) []pipeline.Finding { return checkRegistry(ctx, cfg) })
	found := make([][]pipeline.Finding, len(jobs))
	var all sync.WaitGroup
	for i, job := range jobs {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTime)
			defer cancel()
			found[i] = job(ctx)
		})
	}
	all.Wait()
	return slices.Concat(found...)
}

func finding(level, code, place, what, cure string) pipeline.Finding {
	return pipeline.Finding{Level: level, Code: code, Place: place, What: what, Cure: cure}
}

// checkData sees whether the data folder can be written.
func checkData(cfg *config.Config) []pipeline.Finding {
	if cfg.Data == "" {
		return []pipeline.Finding{finding("error", "data_missing", "data", "no data folder is named", "add `data: ./leat-data`")}
	}
	return checkFolder("data", cfg.Data)
}

// checkFolder looks at the nearest folder that exists.
func checkFolder(place, dir string) []pipeline.Finding {
	for at := dir; ; at = filepath.Dir(at) {
		st, err := os.Stat(at)
		switch {
		case errors.Is(err, os.ErrNotExist) && at != filepath.Dir(at):
			continue
		case err != nil:
			return []pipeline.Finding{finding("error", "folder", place, fmt.Sprintf("%s: %v", at, err), "give the user that runs leat the right to it")}
		case !st.IsDir():
			return []pipeline.Finding{finding("error", "folder", place, at+" is a file, not a folder", "name another place")}
		}
		f, err := os.CreateTemp(at, ".leat-check-*")
		if err != nil {
			return []pipeline.Finding{finding("error", "folder", place, at+" cannot be written", "give the user that runs leat the right to write there")}
		}
		f.Close()
		os.Remove(f.Name())
		return nil
	}
}

func checkSource(ctx context.Context, cfg *config.Config, name string) []pipeline.Finding {
	place := "sources." + name
	db, err := parts.Source(name, cfg.Sources[name], pipeline.Observer{}, nil)
	if err != nil {
		return []pipeline.Finding{finding("error", "config", place, err.Error(), "")}
	}
	found := db.Check(ctx)
	if cfg.Sources[name].Load != nil {
		found = append(found, checkLoad(ctx, db)...)
	}
	for i := range found {
		if found[i].Place == "" {
			found[i].Place = place
		} else {
			found[i].Place = place + ": " + found[i].Place
		}
	}
	return found
}

// checkLoad finds what keeps the load from being seen, and a signal table from being read. A database that does not
// answer is told by its own check.
func checkLoad(ctx context.Context, db parts.Database) []pipeline.Finding {
	prober, is := db.(pipeline.Prober)
	if !is {
		return nil
	}
	defer prober.Rest()
	l, err := prober.Load(ctx)
	if err != nil {
		return nil
	}
	return l.Findings
}

func checkSubscription(ctx context.Context, cfg *config.Config, name string) []pipeline.Finding {
	sub := cfg.Subscriptions[name]
	place := "subscriptions." + name
	var found []pipeline.Finding
	program, err := parts.Filter(sub, form.Of)
	if err != nil {
		found = append(found, finding("error", "filter", place+".filter", err.Error(), "see docs/subscribers.md for what a filter may say"))
	} else if program != nil {
		found = append(found, checkColumns(ctx, cfg, sub, place+".filter", program.Columns())...)
	}
	switch d := sub.Deliver; {
	case d.Webhook != nil:
		found = append(found, checkWebhook(ctx, cfg, place+".deliver.webhook", sub)...)
	case d.Search != nil:
		found = append(found, checkSearch(ctx, cfg, place+".deliver.search", sub)...)
	case d.Table != nil:
		found = append(found, checkTable(ctx, cfg, place+".deliver.table", sub)...)
	case d.Parquet != nil:
		if err := parquet.Check(ctx, d.Parquet.Path, parts.ParquetS3(d.Parquet)); err != nil {
			found = append(found, finding("error", "parquet", place+".deliver.parquet.path", err.Error(), "see docs/subscribers.md, Parquet"))
		}
	case d.Kafka != nil:
		found = append(found, checkKafka(ctx, cfg, name, place+".deliver.kafka")...)
	case d.Redis != nil:
		found = append(found, checkRedis(ctx, cfg, name, place+".deliver.redis")...)
	case d.NATS != nil:
		found = append(found, checkNATS(ctx, cfg, name, place+".deliver.nats")...)
	case d.File != nil:
		found = append(found, checkFolder(place+".deliver.file.path", filepath.Dir(d.File.Path))...)
	}
	return found
}

// checkColumns holds the columns that a filter names against the tables that the subscription gets: one
// that none of them has fails on every event.
func checkColumns(ctx context.Context, cfg *config.Config, sub *config.Subscription, place string, names []string) []pipeline.Finding {
	if len(names) == 0 || cfg.Sources[sub.Source] == nil {
		return nil
	}
	in, err := filter.ParseTables(sub.Tables)
	if err != nil {
		return nil // told as an error of the filter
	}
	all, err := parts.Tables(ctx, sub.Source, cfg.Sources[sub.Source])
	if err != nil {
		return nil // told by the check of the source
	}
	var known, tables []string
	for _, t := range all {
		if in.Match(t.Schema, t.Name) {
			known, tables = append(known, t.Columns...), append(tables, schemas.Subject(t.Schema, t.Name))
		}
	}
	slices.Sort(known)
	known = slices.Compact(known)
	var found []pipeline.Finding
	for _, name := range names {
		if len(tables) == 0 || slices.Contains(known, name) {
			continue
		}
		of := fmt.Sprintf("none of the subscription's %d tables has it", len(tables))
		if len(tables) == 1 {
			of = tables[0] + " does not have it"
		}
		cure := "correct the name; where only some tables have a column, ask first: has(after." + name + ")"
		if len(known) <= 40 {
			cure = config.DidYouMean(name, known) + " " + cure
		}
		found = append(found, finding("error", "column_unknown", place, fmt.Sprintf("the filter names the column %q: %s, so every event would fail and become a dead letter", name, of), cure))
	}
	return found
}

// checkWebhook resolves the names of the endpoint, holds the addresses against egress and connects once to each URL; it
// sends nothing.
func checkWebhook(ctx context.Context, cfg *config.Config, place string, sub *config.Subscription) (found []pipeline.Finding) {
	w := sub.Deliver.Webhook
	o, err := parts.Webhook(cfg, sub)
	if err == nil {
		var s *webhook.Sink
		if s, err = webhook.New(o); err == nil {
			_ = s.Close() // it was only to say whether certificates can be read
		}
	}
	if err != nil {
		found = append(found, finding("error", "webhook", place, err.Error(), ""))
	}
	if w.Proxy != nil && w.Proxy.Resolve == "proxy" {
		return found // only the proxy can say
	}
	for _, t := range w.Targets() {
		found = append(found, checkURL(ctx, cfg, place, t.URL.Parsed(), w.Proxy == nil)...)
	}
	return found
}

// checkSearch looks at the cluster and the indices of the subscription's tables.
func checkSearch(ctx context.Context, cfg *config.Config, place string, sub *config.Subscription) []pipeline.Finding {
	o, err := parts.Search(sub, form.Of)
	if err != nil {
		return []pipeline.Finding{finding("error", "search", place, err.Error(), "")}
	}
	s, err := search.New(o)
	if err != nil {
		return []pipeline.Finding{finding("error", "search", place, err.Error(), "")}
	}
	defer s.Close()
	in, err := filter.ParseTables(sub.Tables)
	if err != nil {
		return nil // told as an error of the filter
	}
	var aliases []string
	var found []pipeline.Finding
	if cfg.Sources[sub.Source] != nil && cfg.Sources[sub.Source].Snapshots() {
		all, err := parts.Tables(ctx, sub.Source, cfg.Sources[sub.Source])
		if err != nil {
			all = nil // told by the check of the source
		}
		of := map[string]string{}
		for _, t := range all {
			if !in.Match(t.Schema, t.Name) {
				continue
			}
			alias, name := search.AliasOf(sub.Deliver.Search.Index, sub.Source, t.Schema, t.Name), schemas.Subject(t.Schema, t.Name)
			if other := of[alias]; other != "" {
				found = append(found, finding("error", "search_index", place+".index", fmt.Sprintf("%s and %s would have one index %s", other, name, alias), "write {schema} in it too"))
			}
			of[alias] = name
			aliases = append(aliases, alias)
		}
	}
	for _, f := range s.Check(ctx, aliases) {
		if f.Place = strings.TrimSuffix(place+": "+f.Place, ": "); f.Place != "" {
			found = append(found, f)
		}
	}
	return found
}

// checkURL does so for one URL; connect: there is no proxy between.
func checkURL(ctx context.Context, cfg *config.Config, place string, u *url.URL, connect bool) []pipeline.Finding {
	if u == nil {
		return []pipeline.Finding{finding("error", "url", place, "the URL cannot be read", "")}
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
		if port == "" {
			port = "80"
		}
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return []pipeline.Finding{finding("error", "dns", place, fmt.Sprintf("the name %s cannot be resolved: %v", u.Hostname(), err), "correct the URL, or the DNS of this machine")}
	}
	var allowed []netip.Addr
	for _, a := range addrs {
		if cfg.Egress.Permits(a) {
			allowed = append(allowed, a)
		}
	}
	if len(allowed) == 0 {
		return []pipeline.Finding{finding("error", "egress", place, fmt.Sprintf("%s resolves to %v, where webhooks may not go", u.Hostname(), addrs[0]),
			"egress: {allow: [public, private]} or the address's CIDR allows it")}
	}
	if !connect {
		return nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(allowed[0].Unmap().String(), port))
	if err != nil {
		return []pipeline.Finding{finding("warning", "unreachable", place, fmt.Sprintf("nobody answers at %s port %s", u.Hostname(), port),
			"start the endpoint; until then the subscription waits and loses nothing")}
	}
	conn.Close()
	return nil
}
