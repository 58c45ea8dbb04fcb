package records

import (
	"encoding/json"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/sinks/encode"
)

func TestJSONRecords(t *testing.T) {
	e, err := New(Options{Options: encode.Options{Source: "files", PublicURL: "http://leat", Form: pgtext.Form}})
	if err != nil {
		t.Fatal(err)
	}
	b := pipetest.WideBatch(3)
	b.Events[1].Op, b.Events[1].Before, b.Events[1].After = pipeline.OpDelete, b.Events[1].After, pipeline.Nowhere
	b.Events[2].Op, b.Events[2].After = pipeline.OpTruncate, pipeline.Nowhere
	w := e.Writer(t.Context(), "")
	defer w.Close()
	for i, want := range []string{`{"id":1000000}`, `{"id":1000001}`, ""} {
		out, rec, err := w.Append([]byte("x"), e.Topic("t"), b, i, 0)
		if err != nil {
			t.Fatal(err)
		}
		key, value := out[1:1+max(rec.Key, 0)], out[1+max(rec.Key, 0):]
		if string(key) != want || (rec.Key < 0) != (want == "") || len(value) != rec.Value || !json.Valid(value) {
			t.Errorf("event %d: key %q, %d bytes of value %q", i, key, rec.Value, value)
		}
	}
}
