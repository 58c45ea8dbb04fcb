package search

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// target is where the rows of a table go. It does not change: a new one takes its place.
type target struct {
	name string
	// alias is name, or empty where that is an index of somebody's own making.
	alias string
	index string // that stands behind name
	next  string // the alias of the index that is filled anew, and that index; empty: there is none
	fresh string
	// shape of the table version whose columns are mapped.
	shape  uint64
	mapped bool
	// stale says what is wrong with the mapping, empty: nothing.
	stale string
}

// writes are the names that documents are written to.
func (t *target) writes() []string {
	if t.next != "" {
		return []string{t.name, t.next}
	}
	return []string{t.name}
}

// reads is the index that documents are read from.
func (t *target) reads() string { return t.index }

// suffix of the alias of an index that is filled anew.
const suffix = "-next"

// target returns where rows of a table version go, made and mapped.
func (s *Sink) target(ctx context.Context, table *schemas.Table) (*target, error) {
	name := s.aliasOf(table)
	shape := table.ShapeHash()
	s.mu.Lock()
	t, owner := s.targets[name], s.owners[name]
	if owner == nil || owner.Number != 0 && owner.Number == table.Number { // the same table, whatever its name
		s.owners[name], owner = table, table
	}
	s.mu.Unlock()
	if owner.Subject() != table.Subject() {
		return nil, &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: fmt.Sprintf("search: the rows of %s and %s would stand in one index %s and overwrite each other: write {schema} in index, or leave one of them out (tables); if it was renamed, restart", owner.Subject(), table.Subject(), name)}
	}
	if t != nil && t.mapped && t.shape == shape {
		return t, nil
	}
	if err := take(ctx, s.making); err != nil {
		return nil, err
	}
	defer func() { <-s.making }()
	s.mu.Lock()
	t = s.targets[name]
	s.mu.Unlock()
	if t != nil && t.mapped && t.shape == shape {
		return t, nil
	}
	t, err := s.prepare(ctx, name, table)
	if err != nil {
		return nil, err
	}
	t.shape, t.mapped = shape, true
	s.mu.Lock()
	s.targets[name] = t
	s.mu.Unlock()
	return t, nil
}

func take(ctx context.Context, lock chan struct{}) error {
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget has a target looked up again.
func (s *Sink) forget(t *target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.targets[t.name] == t {
		delete(s.targets, t.name)
	}
}

// prepare finds the index of a table, or makes it, and maps the table's columns.
func (s *Sink) prepare(ctx context.Context, name string, table *schemas.Table) (*target, error) {
	t, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	want := s.mapping(table)
	own, err := s.template(ctx, name, table, want, false)
	if err != nil {
		return nil, err
	}
	if t == nil {
		body := map[string]any{"aliases": map[string]any{name: s.aliased()}}
		if !own {
			body["mappings"], body["settings"] = want, s.settings()
		}
		t = &target{name: name, alias: name, index: name + "-000001"}
		if err := s.put(ctx, "/"+url.PathEscape(t.index), body); err != nil && !is(err, "resource_already_exists_exception") {
			return nil, err
		}
	}
	if t.alias == "" { // its mapping is somebody's own too
		return t, nil
	}
	for _, index := range []string{t.index, t.fresh} {
		if index == "" {
			continue
		}
		stale, err := s.remap(ctx, index, want)
		if err != nil {
			return nil, err
		}
		if index == t.index {
			t.stale = stale
		}
	}
	return t, nil
}

// find looks for what stands behind a name; nil: nothing.
func (s *Sink) find(ctx context.Context, name string) (*target, error) {
	index, err := s.behind(ctx, name)
	if err != nil {
		return nil, err
	}
	if index == "" {
		err := s.c.ask(ctx, http.MethodGet, "/"+url.PathEscape(name)+"/_settings", nil, nil)
		switch {
		case status(err) == http.StatusNotFound:
			return nil, nil
		case err != nil:
			return nil, err
		}
		return &target{name: name, index: name}, nil
	}
	t := &target{name: name, alias: name, index: index}
	if t.fresh, err = s.behind(ctx, name+suffix); err != nil {
		return nil, err
	}
	if t.fresh != "" {
		t.next = name + suffix
	}
	return t, nil
}

// behind returns the index that an alias writes to, "" where there is no such alias.
func (s *Sink) behind(ctx context.Context, alias string) (string, error) {
	var found map[string]struct {
		Aliases map[string]struct {
			Write *bool `json:"is_write_index"`
		} `json:"aliases"`
	}
	err := s.c.ask(ctx, http.MethodGet, "/_alias/"+url.PathEscape(alias), nil, &found)
	switch {
	case status(err) == http.StatusNotFound:
		return "", nil
	case err != nil:
		return "", err
	}
	all := slices.Sorted(maps.Keys(found))
	for _, index := range all {
		if w := found[index].Aliases[alias].Write; len(all) == 1 || w != nil && *w {
			return index, nil
		}
	}
	return "", &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: fmt.Sprintf("search: the alias %s has several indices (%s) and none of them is its write index: set is_write_index", alias, strings.Join(all, ", "))}
}

func (s *Sink) put(ctx context.Context, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("search: %w", err)
	}
	return s.c.ask(ctx, http.MethodPut, path, text, nil)
}

// aliased is how an alias of ours sees an index: what was deleted softly is not in it.
func (s *Sink) aliased() map[string]any {
	a := map[string]any{"is_write_index": true}
	if s.o.Soft {
		a["filter"] = map[string]any{"bool": map[string]any{"must_not": map[string]any{"term": map[string]any{fieldDeleted: true}}}}
	}
	return a
}

func (s *Sink) settings() map[string]any {
	set := map[string]any{"number_of_shards": max(1, s.o.Shards), "number_of_replicas": s.o.Replicas}
	if !s.o.Soft && s.o.Tombstones > 0 {
		set["gc_deletes"] = strconv.FormatInt(s.o.Tombstones.Milliseconds(), 10) + "ms"
	}
	return map[string]any{"index": set}
}

// template keeps the index template of a name up to date; own: somebody else made it, so that it is left as it is, and
// says how indices are made. What comes late, of an earlier version of the table, does not change it, unless anew is set.
func (s *Sink) template(ctx context.Context, name string, table *schemas.Table, mapping map[string]any, anew bool) (own bool, err error) {
	path := "/_index_template/leat-" + url.PathEscape(name)
	content := map[string]any{"mappings": mapping, "settings": s.settings()}
	text, err := json.Marshal(content)
	if err != nil {
		return false, fmt.Errorf("search: %w", err)
	}
	sum := sha256.Sum256(text)
	hash := hex.EncodeToString(sum[:8])
	var found struct {
		List []struct {
			Template struct {
				Meta struct {
					By      string `json:"by"`
					Version uint32 `json:"version"`
					Hash    string `json:"hash"`
				} `json:"_meta"`
			} `json:"index_template"`
		} `json:"index_templates"`
	}
	err = s.c.ask(ctx, http.MethodGet, path, nil, &found)
	switch {
	case status(err) == http.StatusForbidden: // it may be made by hand, or not at all
		return false, nil
	case status(err) == http.StatusNotFound:
	case err != nil:
		return false, err
	}
	for _, t := range found.List {
		m := t.Template.Meta
		if m.By != "leat" {
			return true, nil
		}
		if m.Version == table.Version && m.Hash == hash || m.Version > table.Version && !anew {
			return false, nil
		}
	}
	err = s.put(ctx, path, map[string]any{"index_patterns": []string{name + "-0*"}, "priority": 200,
		"_meta": map[string]any{"by": "leat", "version": table.Version, "hash": hash}, "template": content})
	if status(err) == http.StatusForbidden {
		err = nil
	}
	return false, err
}

// remap adds columns that an index does not know. stale says what cannot be changed any more.
func (s *Sink) remap(ctx context.Context, index string, want map[string]any) (stale string, err error) {
	var found map[string]struct {
		Mappings struct {
			Properties map[string]struct {
				Type string `json:"type"`
			} `json:"properties"`
		} `json:"mappings"`
	}
	path := "/" + url.PathEscape(index) + "/_mapping"
	if err := s.c.ask(ctx, http.MethodGet, path, nil, &found); err != nil {
		return "", err
	}
	have := found[index].Mappings.Properties
	missing := map[string]any{}
	properties, _ := want["properties"].(map[string]any)
	for _, column := range slices.Sorted(maps.Keys(properties)) {
		p, _ := properties[column].(map[string]any)
		old, there := have[column]
		switch {
		case !there:
			missing[column] = p
		case old.Type != "" && old.Type != p["type"]:
			stale = fmt.Sprintf("%s is mapped as %s, its column is %s now: leat backfill --rebuild makes the index anew", column, old.Type, p["type"])
		}
	}
	if len(missing) == 0 {
		return stale, nil
	}
	err = s.put(ctx, path, map[string]any{"properties": missing})
	var e *answerError
	if errors.As(err, &e) && e.status == http.StatusBadRequest {
		return "columns could not be mapped: " + shorten(e.reason), nil
	}
	return stale, err
}
