package views

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/encode"
)

// MatchKey compares the identity of events with a JSON object.
func MatchKey(enc *encode.Encoder, text string) (func(*pipeline.Batch, int) bool, error) {
	var want map[string]any
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		return nil, api.Errorf(api.Invalid, `key %q: want a JSON object of the key's columns, as {"id":42}`, text)
	}
	return func(b *pipeline.Batch, i int) bool {
		key, _, err := enc.Key(b, i)
		var got map[string]any
		return err == nil && json.Unmarshal([]byte(key), &got) == nil && reflect.DeepEqual(got, want)
	}, nil
}

// Canonical is JSON that is the same for the same value; empty for what is no JSON.
func Canonical(text string) string {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return ""
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) != nil {
		return ""
	}
	return out.String()
}
