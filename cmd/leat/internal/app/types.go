package app

import (
	"context"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/clients/typescript"
	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Types implements api.Backend: as the subscription sees its tables, after columns and mapping.
func (s *Server) Types(_ context.Context, name string) (string, error) {
	s.mu.Lock()
	sub, ok := s.cfg.Subscriptions[name]
	s.mu.Unlock()
	if !ok {
		return "", api.Errorf(api.NotFound, "no subscription %q", name)
	}
	o := typescript.Options{For: name, Int64AsString: sub.JSON.Int64 == "string"}
	if k := sub.Deliver.Kafka; k != nil {
		switch k.Encoding {
		case "debezium":
			o.Form = typescript.Debezium
		case "avro", "protobuf":
			return "", api.Errorf(api.Precondition, "subscription %q sends %s: make its types from the schemas under /registry", name, k.Encoding)
		}
	}
	takes, err := parts.Filter(sub, s.forms.Of)
	if err != nil {
		return "", err
	}
	log, err := s.engine.Log(sub.Source)
	if err != nil {
		return "", api.Errorf(api.Unavailable, "%w", err)
	}
	encoding := parts.Encoding(sub, "", s.forms.Of)
	var tables []typescript.Table
	for _, t := range log.Tables() {
		if takes != nil && !takes.Takes(t.Schema, t.Name) {
			continue
		}
		one, err := s.typed(&encoding, t)
		if err != nil {
			return "", api.Errorf(api.Precondition, "%w", err)
		}
		tables = append(tables, one)
	}
	slices.SortFunc(tables, func(a, b typescript.Table) int { return strings.Compare(a.Subject, b.Subject) })
	return typescript.Write(o, tables), nil
}

// typed is a table as a subscription sees it.
func (s *Server) typed(o *encode.Options, t *schemas.Table) (typescript.Table, error) {
	out := typescript.Table{Subject: t.Subject(), Version: t.Version}
	form := s.forms.Of(t)
	if form == nil {
		return out, nil // without rows
	}
	view, err := o.View(t, form)
	if err != nil {
		return out, err
	}
	for i := range view.Columns {
		out.Row = append(out.Row, asColumn(&view.Columns[i]))
	}
	for _, k := range view.Keys(t) {
		out.Key = append(out.Key, asColumn(k))
	}
	return out, nil
}

func asColumn(c *encode.Column) typescript.Column {
	return typescript.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable}
}
