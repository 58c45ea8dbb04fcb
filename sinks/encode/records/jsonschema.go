package records

import (
	"context"
	"slices"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/shape"
)

// jsonSchemas registers what CloudEvents look like, table by table.
type jsonSchemas struct{}

func (jsonSchemas) schemas(ctx context.Context, t *Topic, p *plan, row *shape.Row, keys []shape.Field) error {
	record := row.Schema + "." + row.Table
	text := t.e.o.Int64AsString
	if len(keys) > 0 {
		schema, err := row.JSONKey(keys, text)
		if err != nil {
			return err
		}
		id, err := t.register(ctx, "key", record+".Key", shape.JSONSchema, schema)
		if err != nil {
			return err
		}
		p.key = framed(id)
	}
	subject := t.subject("value", record+".Envelope")
	earlier, err := t.e.o.Schemas.Versions(ctx, subject, shape.JSONSchema)
	if err != nil {
		return noSchema(subject, err)
	}
	schema, err := row.JSONEnvelope(keys, text, earlier)
	if err != nil {
		return err
	}
	id, err := t.register(ctx, "value", record+".Envelope", shape.JSONSchema, schema)
	p.value = framed(id)
	return err
}

func (jsonSchemas) messages(ctx context.Context, t *Topic, p *plan) error {
	id, err := t.register(ctx, "value", "leat.Message", shape.JSONSchema, shape.JSONMessage)
	p.value = framed(id)
	return err
}

// framed appends an event as JSON, with the ids before key and value.
func (w *Writer) framed(dst []byte, b *pipeline.Batch, i int, ev *pipeline.Event, op pipeline.Op) ([]byte, int, error) {
	if op == ev.Op {
		op = pipeline.OpNone
	}
	start := len(dst)
	out, key, err := w.e.json.AppendRecord(append(dst, w.plan.key...), b, i, op)
	if err != nil {
		return out[:start], -1, err
	}
	at := start
	if key < 0 {
		out = slices.Delete(out, start, start+len(w.plan.key))
	} else {
		key += len(w.plan.key)
		at += key
	}
	return slices.Insert(out, at, w.plan.value...), key, nil
}
