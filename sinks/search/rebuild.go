package search

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// A rebuild makes a table's index anew beside the one that is searched: the alias NAME-next names it, and while it does
// each document goes to both. Rows that are there come by a backfill; when that is delivered the alias NAME moves and
// the old index goes, at once. What is under way is kept in the cluster alone: the job's name is in the new index's
// mapping.

// Rebuild is one that is under way.
type Rebuild struct {
	// Alias that will name the new index, and the indices.
	Alias, Old, New string
	// Job that fills it; empty: none was named before the process ended.
	Job string
}

// Begin makes a new index for a table, with the columns mapped as they are now, instead of one that was begun before;
// nil: there is nothing to be made anew yet.
func (s *Sink) Begin(ctx context.Context, table *schemas.Table) (*Rebuild, error) {
	if err := take(ctx, s.making); err != nil {
		return nil, err
	}
	defer func() { <-s.making }()
	alias := s.aliasOf(table)
	t, err := s.find(ctx, alias)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, nil
	}
	if t.alias == "" {
		return nil, fmt.Errorf("%s is an index and no alias, so that another cannot take its place: copy it (_reindex) to %s-000001, remove it, and give that index the alias %s", alias, alias, alias)
	}
	if t.fresh != "" {
		if err := s.c.ask(ctx, http.MethodDelete, "/"+url.PathEscape(t.fresh), nil, nil); err != nil {
			return nil, err
		}
	}
	r := &Rebuild{Alias: alias, Old: t.index, New: following(alias, t.index, t.fresh)}
	body := map[string]any{"aliases": map[string]any{alias + suffix: map[string]any{"is_write_index": true}}}
	want := s.mapping(table)
	own, err := s.template(ctx, alias, table, want, true)
	if err != nil {
		return nil, err
	}
	if !own {
		body["mappings"], body["settings"] = want, s.settings()
	}
	if err := s.put(ctx, "/"+url.PathEscape(r.New), body); err != nil {
		return nil, err
	}
	s.drop(alias)
	return r, nil
}

func (s *Sink) drop(alias string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.targets, alias)
}

// following is the name of the next index.
func following(alias string, was ...string) string {
	n := 1
	for _, name := range was {
		if tail, ok := strings.CutPrefix(name, alias+"-"); ok {
			if m, err := strconv.Atoi(tail); err == nil {
				n = max(n, m)
			}
		}
	}
	return fmt.Sprintf("%s-%06d", alias, n+1)
}

// meta of an index that is filled anew.
type meta struct {
	Job string `json:"leat_job,omitempty"`
}

// Name writes down which job fills an index.
func (s *Sink) Name(ctx context.Context, r *Rebuild, job string) error {
	r.Job = job
	return s.put(ctx, "/"+url.PathEscape(r.New)+"/_mapping", map[string]any{"_meta": meta{Job: job}})
}

// anyName stands for names of which any may be: no table has it.
const anyName = "\U0010FFFF"

// Pending returns the rebuilds that are under way.
func (s *Sink) Pending(ctx context.Context) ([]Rebuild, error) {
	pattern := AliasOf(s.o.Index, s.o.Encoding.Source, anyName, anyName)
	var found map[string]struct {
		Aliases map[string]json.RawMessage `json:"aliases"`
	}
	err := s.c.ask(ctx, http.MethodGet, "/_alias/"+url.PathEscape(strings.ReplaceAll(pattern, anyName, "*")+suffix), nil, &found)
	if status(err) == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Rebuild
	for _, index := range slices.Sorted(maps.Keys(found)) {
		for name := range found[index].Aliases {
			alias, ok := strings.CutSuffix(name, suffix)
			if !ok {
				continue
			}
			r := Rebuild{Alias: alias, New: index}
			if r.Old, err = s.behind(ctx, alias); err != nil {
				return nil, err
			}
			var mapping map[string]struct {
				Mappings struct {
					Meta meta `json:"_meta"`
				} `json:"mappings"`
			}
			if err := s.c.ask(ctx, http.MethodGet, "/"+url.PathEscape(index)+"/_mapping", nil, &mapping); err != nil {
				return nil, err
			}
			r.Job = mapping[index].Mappings.Meta.Job
			all = append(all, r)
		}
	}
	return all, nil
}

// Switch puts the new index in the old one's place, which is removed, in one step for those who search.
func (s *Sink) Switch(ctx context.Context, r *Rebuild) error {
	if err := s.c.ask(ctx, http.MethodPost, "/"+url.PathEscape(r.New)+"/_refresh", nil, nil); err != nil {
		return err
	}
	add := s.aliased()
	add["index"], add["alias"] = r.New, r.Alias
	if r.Old == "" {
		return s.actions(ctx, r, map[string]any{"add": add}, map[string]any{"remove": map[string]any{"index": r.New, "alias": r.Alias + suffix}})
	}
	return s.actions(ctx, r, map[string]any{"add": add}, map[string]any{"remove": map[string]any{"index": r.New, "alias": r.Alias + suffix}},
		map[string]any{"remove_index": map[string]any{"index": r.Old}})
}

// Abandon removes the new index.
func (s *Sink) Abandon(ctx context.Context, r *Rebuild) error {
	return s.actions(ctx, r, map[string]any{"remove_index": map[string]any{"index": r.New}})
}

func (s *Sink) actions(ctx context.Context, r *Rebuild, list ...map[string]any) error {
	body, err := json.Marshal(map[string]any{"actions": list})
	if err != nil {
		return fmt.Errorf("search: %w", err)
	}
	if err := take(ctx, s.making); err != nil {
		return err
	}
	defer func() { <-s.making }()
	err = s.c.ask(ctx, http.MethodPost, "/_aliases", body, nil)
	s.drop(r.Alias)
	return err
}
