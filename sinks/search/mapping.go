package search

import (
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// mapping is that of a table's columns. What is in no column is not indexed.
func (s *Sink) mapping(t *schemas.Table) map[string]any {
	properties := map[string]any{fieldOffset: map[string]any{"type": "long"}}
	if s.o.Soft {
		properties[fieldDeleted] = map[string]any{"type": "boolean"}
	}
	view, err := s.o.Encoding.View(t, s.o.Encoding.Form(t))
	if err != nil { // no document of it is sent either
		return map[string]any{"dynamic": false, "properties": properties}
	}
	for _, c := range view.Columns {
		properties[c.Name] = property(&c.Type)
	}
	return map[string]any{"dynamic": false, "properties": properties}
}

// longest keyword that is indexed, in characters: 32,766 bytes are the most that Lucene takes.
const longest = 8191

// asKeyword are types of text that nobody looks for words in.
var asKeyword = []string{"uuid", "inet", "cidr", "macaddr", "macaddr8", "inet4", "inet6"}

// property is how a column is indexed. What a database has and a search engine has not (NaN, infinite dates) stays in
// the document and is not indexed.
func property(t *schemas.Type) map[string]any {
	p := func(name string) map[string]any { return map[string]any{"type": name} }
	lenient := func(name string) map[string]any { return map[string]any{"type": name, "ignore_malformed": true} }
	keyword := map[string]any{"type": "keyword", "ignore_above": longest}
	switch t.Kind {
	case schemas.KindBool:
		return p("boolean")
	case schemas.KindInt:
		if t.Bits <= 32 {
			return p("integer")
		}
		return p("long")
	case schemas.KindUint:
		switch {
		case t.Bits < 32:
			return p("integer")
		case t.Bits == 32:
			return p("long")
		}
		return p("unsigned_long")
	case schemas.KindFloat:
		if t.Bits == 32 {
			return lenient("float")
		}
		return lenient("double")
	case schemas.KindDecimal:
		return lenient("double")
	case schemas.KindBytes:
		return p("binary")
	case schemas.KindDate, schemas.KindDateTime, schemas.KindTimestamp:
		return lenient("date")
	case schemas.KindJSON, schemas.KindVector:
		return map[string]any{"type": "object", "enabled": false}
	case schemas.KindArray:
		if t.Elem != nil {
			return property(t.Elem)
		}
	case schemas.KindText:
		name, _, _ := strings.Cut(strings.ToLower(t.Name), "(")
		if len(t.Labels) == 0 && !slices.Contains(asKeyword, name) {
			return map[string]any{"type": "text", "fields": map[string]any{"keyword": map[string]any{"type": "keyword", "ignore_above": 256}}}
		}
	}
	return keyword
}
