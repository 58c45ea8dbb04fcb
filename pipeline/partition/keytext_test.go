package partition

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/schemas"
	"pgregory.net/rapid"
)

func keyTable() *schemas.Table {
	return (&schemas.Table{Schema: "public", Name: "files", Routing: []int{1, 0}, Columns: []schemas.Column{
		{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Name: "bigint", Bits: 64}},
		{Name: "ns", Type: schemas.Type{Kind: schemas.KindText, Name: "text"}},
		{Name: "at", Type: schemas.Type{Kind: schemas.KindDate, Name: "date"}}}}).Seal()
}

// What ParseKey encodes, KeyText shows again.
func TestKeyIsParsedAndShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Int64().Draw(t, "id")
		ns := rapid.String().Draw(t, "ns")
		key, err := ParseKey(keyTable(), `{"id":`+strconv.FormatInt(id, 10)+`,"ns":`+jsonText(t, ns)+`}`)
		if err != nil {
			t.Fatal(err)
		}
		if want := strconv.Quote(ns) + "," + strconv.FormatInt(id, 10); KeyText(key) != want {
			t.Fatalf("%s, want %s", KeyText(key), want)
		}
		for i := range key {
			_ = KeyText(key[:i]) // a cut key (a sampled one) is shown too
		}
	})
}

func TestBadKeysAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"": "want a JSON object", "42": "want a JSON object", "null": "want a JSON object", `{"id":1} {}`: "want a JSON object",
		`{"id":1}`: `lacks routing column "ns"`, `{"id":"x","ns":"a"}`: "is no bigint", `{"id":1,"ns":2}`: "want a JSON string",
		`{"id":1,"ns":"a","at":"2026-01-01"}`: "no routing column", `{"id":1e400,"ns":"a"}`: "is no bigint",
	} {
		if _, err := ParseKey(keyTable(), text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func jsonText(t *rapid.T, s string) string {
	p, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}
