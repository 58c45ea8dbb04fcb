package config

import (
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"

	"github.com/goccy/go-yaml"
)

// Op says what happens to what a Change names.
type Op string

// Kinds of Change.
const (
	Added   Op = "added"
	Changed Op = "changed"
	Removed Op = "removed"
)

// Change is one difference between two configs, secrets masked.
type Change struct {
	Op   Op     `json:"op"`
	Path string `json:"path"`          // a source or subscription as a whole, or one field
	Old  string `json:"old,omitempty"` // "" when added
	New  string `json:"new,omitempty"` // "" when removed
	Note string `json:"note,omitempty"`
}

// String prints the change in one line.
func (c Change) String() string {
	s := map[Op]string{Added: "+ ", Changed: "~ ", Removed: "- "}[c.Op] + c.Path
	switch {
	case c.Op == Changed:
		s += ": " + c.Old + " → " + c.New
	case c.Op == Added && c.New != "":
		s += ": " + c.New
	case c.Op == Removed && c.Old != "":
		s += ": " + c.Old
	}
	if c.Note != "" {
		s += " (" + c.Note + ")"
	}
	return s
}

// notes are what a change of a path means beyond the change.
var notes = map[string]string{
	"data":                      "takes effect at the next start",
	"listen":                    "takes effect at the next start",
	"tls":                       "takes effect at the next start",
	"memory":                    "takes effect at the next start",
	"log.backend":               "takes effect at the next start",
	"tokens":                    "holds for requests from now on; from none to some, or back, at the next start",
	"public_url":                "takes effect at the next start",
	"registry.url":              "takes effect at the next start",
	"registry.token":            "takes effect at the next start",
	"registry.timeout":          "takes effect at the next start",
	"registry.tls":              "takes effect at the next start",
	"zone":                      "holds for subscriptions that start from now on",
	"egress":                    "holds for subscriptions that start from now on",
	"subscriptions.*.from":      "changes nothing: from is read once, when the subscription is new; leat seek moves forward, leat backfill brings rows",
	"sources.*.snapshot.mode":   "changes nothing: mode is read once, when the source is new; leat backfill brings rows to a subscription",
	"sources.*.start":           "changes nothing: start is read once, when the source is new",
	"sources.*.postgres.url":    "must be the same database: another one has another history",
	"sources.*.mysql.url":       "must be the same database: another one has another history",
	"sources.*.keys.*":          "holds for what is read from now on",
	"sources.*.key_space.*":     "holds for what is read from now on",
	"sources.*.columns.*":       "holds for what is read from now on",
	"subscriptions.*.columns.*": "holds for what is delivered from now on",
}

// Diff lists what changes when to takes the place of from, in the order of
// their paths. Values are compared with defaults filled in and, where both are
// expanded, with secrets revealed; they are shown masked. A nil from is an
// empty installation.
func Diff(from, to *Config) []Change {
	old, now := map[string]leaf{}, map[string]leaf{}
	if from != nil {
		flatten(from, old)
	}
	flatten(to, now)
	var out []Change
	whole := map[string]bool{}
	for path, o := range old {
		if p := entity(path); p != "" && !exists(to, p) {
			if !whole[p] {
				out = append(out, Change{Op: Removed, Path: p, Note: "kept and paused; leat apply --drop " + p[strings.IndexByte(p, '.')+1:] + " drops it"})
			}
			whole[p] = true
		} else if n, ok := now[path]; !ok {
			out = append(out, Change{Op: Removed, Path: path, Old: o.shown, Note: note(path)})
		} else if n.real != o.real {
			out = append(out, Change{Op: Changed, Path: path, Old: o.shown, New: n.shown, Note: note(path)})
		}
	}
	for path, n := range now {
		p := entity(path)
		switch _, known := old[path]; {
		case p != "" && (from == nil || !exists(from, p)):
			if !whole[p] {
				out = append(out, Change{Op: Added, Path: p})
			}
			whole[p] = true
		case !known:
			out = append(out, Change{Op: Added, Path: path, New: n.shown, Note: note(path)})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

// entity is the source or subscription that a path belongs to, or "". Their
// names hold no dot.
func entity(path string) string {
	parts := strings.SplitN(path, ".", 3)
	if len(parts) < 2 || parts[0] != "sources" && parts[0] != "subscriptions" {
		return ""
	}
	return parts[0] + "." + parts[1]
}

func exists(c *Config, entity string) bool {
	kind, name, _ := strings.Cut(entity, ".")
	if kind == "sources" {
		return c.Sources[name] != nil
	}
	return c.Subscriptions[name] != nil
}

func note(path string) string {
	parts := strings.Split(path, ".")
	for pattern, text := range notes {
		want := strings.Split(pattern, ".")
		ok := len(parts) >= len(want)
		for i := 0; ok && i < len(want); i++ {
			ok = want[i] == "*" || want[i] == parts[i]
		}
		if ok {
			return text
		}
	}
	return ""
}

// leaf is a value as it is compared and as it is shown.
type leaf struct{ real, shown string }

func flatten(c *Config, out map[string]leaf) {
	shown := map[string]string{}
	view := (&viewer{cfg: c}).value(reflect.ValueOf(c).Elem(), "", "")
	flattenView(view, "", shown)
	real := map[string]string{}
	revealed(reflect.ValueOf(c).Elem(), "", real)
	for p, s := range shown {
		l := leaf{real: s, shown: s}
		if r, ok := real[p]; ok && r != "" {
			l.real = "\x00" + r // never equal to a text that is merely shown
		}
		out[p] = l
	}
}

// flattenView makes one leaf of each scalar and of each list of scalars.
func flattenView(v any, path string, out map[string]string) {
	switch x := v.(type) {
	case yaml.MapSlice:
		if len(x) == 0 && path != "" {
			out[path] = "{}"
		}
		for _, item := range x {
			flattenView(item.Value, yamltree.Join(path, fmt.Sprint(item.Key)), out)
		}
	case []any:
		var parts []string
		for _, e := range x {
			if m, ok := e.(yaml.MapSlice); ok {
				var fs []string
				for _, item := range m {
					fs = append(fs, fmt.Sprintf("%v: %v", item.Key, item.Value))
				}
				parts = append(parts, "{"+strings.Join(fs, ", ")+"}")
			} else {
				parts = append(parts, fmt.Sprint(e))
			}
		}
		out[path] = "[" + strings.Join(parts, ", ") + "]"
	default:
		out[path] = fmt.Sprint(v)
	}
}

// revealed collects the text of secrets, for comparison only. A list of them
// stands at the list's path, length-prefixed so that no two lists look alike.
func revealed(v reflect.Value, path string, out map[string]string) {
	if !v.CanInterface() {
		return
	}
	switch x := v.Interface().(type) {
	case Secret:
		out[path] = x.Reveal()
		return
	case URL:
		out[path] = x.Reveal()
		return
	case Secrets:
		for _, s := range x {
			if r := s.Reveal(); r != "" {
				out[path] += strconv.Itoa(len(r)) + ":" + r
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			revealed(v.Elem(), path, out)
		}
	case reflect.Struct:
		names, byName := fields(v.Type())
		for _, name := range names {
			revealed(v.FieldByIndex(byName[name].Index), yamltree.Join(path, name), out)
		}
	case reflect.Map:
		for _, k := range sortedMapKeys(v) {
			revealed(v.MapIndex(reflect.ValueOf(k)), yamltree.Join(path, k), out)
		}
	}
}
