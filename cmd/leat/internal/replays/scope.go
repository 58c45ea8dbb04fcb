package replays

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// scopeOf finds the keys and ranges that a request names.
func scopeOf(tables []*schemas.Table, r *leatv1.ReplayScope) (pipeline.Scope, []engine.RangeID, error) {
	s := pipeline.Scope{Tables: r.GetTables(), Filter: r.GetFilter()}
	globs, err := filter.ParseTables(r.GetTables())
	if err != nil {
		return s, nil, api.Errorf(api.Invalid, "%w", err)
	}
	named := slices.DeleteFunc(slices.Clone(tables), func(t *schemas.Table) bool { return !globs.Match(t.Schema, t.Name) })
	for _, text := range r.GetKeys() {
		k, err := keyOf(named, text)
		if err != nil {
			return s, nil, api.Errorf(api.Invalid, "%v: nothing was changed", err)
		}
		s.Keys = append(s.Keys, k)
	}
	var ids []engine.RangeID
	for _, g := range r.GetRanges() {
		if g.Id != nil {
			ids = append(ids, engine.RangeID{ID: g.GetId()})
			continue
		}
		in, err := intervalOf(named, g)
		if err != nil {
			return s, nil, api.Errorf(api.Invalid, "%v: nothing was changed", err)
		}
		s.Ranges = append(s.Ranges, in)
	}
	return s, ids, nil
}

// keyOf encodes a routing key, [77], or the row's key where that is the routing key, {"id":42}. It must fit
// tables of one key space.
func keyOf(tables []*schemas.Table, text string) (pipeline.Key, error) {
	var found pipeline.Key
	why := errors.New("the log has no table of that name")
	for _, t := range tables {
		encoded, err := encodeKey(t, text)
		switch {
		case err != nil:
			why = err
		case found.Encoded == nil:
			found = pipeline.Key{Space: t.KeySpace, Encoded: encoded}
		case found.Space != t.KeySpace:
			return found, fmt.Errorf("key %s fits tables of more than one key space (%s, %s): name a table besides", text, found.Space, t.KeySpace)
		}
	}
	if found.Encoded == nil {
		return found, fmt.Errorf("key %s is none here: %w", text, why)
	}
	return found, nil
}

func encodeKey(t *schemas.Table, text string) ([]byte, error) {
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		var values []json.RawMessage
		if err := json.Unmarshal([]byte(text), &values); err != nil || len(values) != len(t.Routing) || len(values) == 0 {
			return nil, fmt.Errorf("the routing key of %s has %d values", t.Subject(), len(t.Routing))
		}
		object := map[string]json.RawMessage{}
		for i, c := range t.Routing {
			object[t.Columns[c].Name] = values[i]
		}
		b, err := json.Marshal(object)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	return partition.ParseKey(t, text)
}

func intervalOf(tables []*schemas.Table, g *leatv1.ReplayRange) (pipeline.KeyInterval, error) {
	if g.GetTable() != "" {
		tables = slices.DeleteFunc(slices.Clone(tables), func(t *schemas.Table) bool { return t.Subject() != g.GetTable() && t.Schema+"."+t.Name != g.GetTable() })
		if len(tables) == 0 {
			return pipeline.KeyInterval{}, fmt.Errorf("the log has no table %q", g.GetTable())
		}
	}
	var in pipeline.KeyInterval
	for _, end := range []struct {
		text string
		to   *[]byte
	}{{g.GetStart(), &in.Start}, {g.GetEnd(), &in.End}} {
		if end.text == "" {
			continue
		}
		k, err := keyOf(tables, end.text)
		if err != nil {
			return in, err
		}
		if in.Space != "" && in.Space != k.Space {
			return in, fmt.Errorf("the ends %s and %s are keys of different key spaces", g.GetStart(), g.GetEnd())
		}
		in.Space, *end.to = k.Space, k.Encoded
	}
	return in, nil
}

// scopeText says a scope in words; empty: all of the window.
func scopeText(s pipeline.Scope) string {
	var parts []string
	if len(s.Tables) > 0 {
		parts = append(parts, "tables "+strings.Join(s.Tables, " "))
	}
	for i, k := range s.Keys {
		if i == 3 {
			parts = append(parts, fmt.Sprintf("%d keys more", len(s.Keys)-i))
			break
		}
		parts = append(parts, "key "+partition.KeyText(k.Encoded)+" of "+k.Space)
	}
	for i, r := range s.Ranges {
		if i == 3 {
			parts = append(parts, fmt.Sprintf("%d ranges more", len(s.Ranges)-i))
			break
		}
		parts = append(parts, "keys of "+r.Space+" from "+endText(r.Start, "the first")+" to "+endText(r.End, "the last"))
	}
	if s.Filter != "" {
		parts = append(parts, "where "+s.Filter)
	}
	return strings.Join(parts, ", ")
}

func endText(key []byte, open string) string {
	if key == nil {
		return open
	}
	return partition.KeyText(key)
}
