package encode

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
)

func mapped(m Mapping) Options {
	return Options{Source: "s", PublicURL: "http://leat", Form: pgtext.Form, Mapping: map[string]Mapping{"public.files": m}}
}

func TestMapping(t *testing.T) {
	o := mapped(Mapping{Rename: map[string]string{"path": "location", "id": "file_id"}, Drop: []string{"size"}, Constant: map[string]any{"tenant": "eu", "n": int64(7)},
		Cast: map[string]string{"modified": CastString, "deleted": CastInteger}, Mask: map[string]string{"hash": MaskRedact, "namespace_id": MaskHash}, Salt: "pepper"})
	b := pipetest.WideBatch(2)
	got, err := JSON(o).Append(nil, b, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ev struct {
		PartitionKey string
		Data         struct{ Key, After map[string]any }
	}
	if err := json.Unmarshal(got, &ev); err != nil {
		t.Fatal(err)
	}
	hashed, _ := ev.Data.After["namespace_id"].(string)
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(hashed) || ev.PartitionKey != `["`+hashed+`"]` {
		t.Errorf("%q %s", hashed, ev.PartitionKey)
	}
	delete(ev.Data.After, "namespace_id")
	want := `{"deleted":0,"file_id":1000001,"hash":null,"location":"/home/user1/projects/alpha/file-00000001.txt","modified":"2026-11-21T10:15:30.123456Z","n":7,"tenant":"eu"}`
	if text, _ := json.Marshal(ev.Data.After); string(text) != want || ev.Data.Key["file_id"] != 1000001.0 {
		t.Errorf("%s\n%v", text, ev.Data.Key)
	}
	// Equal values are equal behind the mask, others are not, and another salt gives others.
	other, _ := JSON(o).Append(nil, b, 0, 0)
	again, _ := Proto(o).Append(nil, b, 1, 0)
	o.Mapping["public.files"] = Mapping{Mask: map[string]string{"namespace_id": MaskHash}, Salt: "salt"}
	salted, _ := JSON(o).Append(nil, b, 1, 0)
	if strings.Contains(string(other), hashed) || !strings.Contains(string(again), hashed) || strings.Contains(string(salted), hashed) {
		t.Error("the mask depends on something else than value and salt")
	}
}

// A table that a mapping does not fit is not sent at all: what is to be hidden may have another name now.
func TestMappingMustFit(t *testing.T) {
	for want, m := range map[string]Mapping{
		`no column "e_mail"`: {Mask: map[string]string{"e_mail": MaskHash}, Salt: "x"},
		`no column "gone"`:   {Drop: []string{"gone"}},
		`called "hash"`:      {Rename: map[string]string{"path": "hash"}},
		`called "size"`:      {Constant: map[string]any{"size": "x"}},
		"no salt":            {Mask: map[string]string{"path": MaskHash}},
		"cannot be redacted": {Mask: map[string]string{"id": MaskRedact}},
		"cast to":            {Cast: map[string]string{"id": "date"}},
		"masked by":          {Mask: map[string]string{"id": "hide"}},
		"neither text":       {Constant: map[string]any{"a": 1}},
	} {
		_, err := JSON(mapped(m)).Append(nil, pipetest.WideBatch(1), 0, 0)
		var ee *EventError
		if !errors.As(err, &ee) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "mapping of public.files") {
			t.Errorf("%s: %v", want, err)
		}
	}
	loose := mapped(Mapping{})
	loose.Mapping = map[string]Mapping{"public.*": {Drop: []string{"gone"}}}
	if _, err := JSON(loose).Append(nil, pipetest.WideBatch(1), 0, 0); err != nil {
		t.Error(err)
	}
}

func TestCasts(t *testing.T) {
	f := &pipetest.Values{}
	for _, c := range []struct {
		to   string
		v    cell.Value
		want string // empty: refused
	}{
		{CastInteger, text("42"), `42`}, {CastInteger, text("4.2"), ""}, {CastInteger, bytesOf(schemas.KindDecimal, "-7"), `-7`}, {CastInteger, cell.Value{Kind: schemas.KindBool, N: 1}, `1`},
		{CastInteger, cell.Value{Kind: schemas.KindUint, Bits: 64, N: 1 << 63}, ""},
		{CastNumber, text("1.5"), `1.5`}, {CastNumber, text("x"), ""}, {CastNumber, number(3), `3`},
		{CastBoolean, text("true"), `true`}, {CastBoolean, number(0), `false`}, {CastBoolean, number(2), ""},
		{CastString, number(5), `"5"`}, {CastString, numeric(schemas.KindDate, 0), `"1970-01-01"`}, {CastString, float(0.5, 32), `"0.5"`},
		{CastString, cell.Value{Kind: schemas.KindArray, Elems: []cell.Value{text("a"), {State: cell.Null}}}, `"[\"a\",null]"`},
		{CastString, cell.Value{State: cell.Null}, `null`},
	} {
		o := Options{Source: "s", Form: f.Form, Mapping: map[string]Mapping{"public.files": {Cast: map[string]string{"v": c.to}}}}
		id := f.Put(number(1))
		got, err := JSON(o).Append(nil, pipetest.One(table("v"), pipeline.OpInsert, nil, []byte{id, id, f.Put(c.v)}), 0, 0)
		if (err == nil) != (c.want != "") || err == nil && !strings.Contains(string(got), `"v":`+c.want+"}") {
			t.Errorf("%s of %s %q: %s %v", c.to, c.v.Kind, c.v.B, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), `column "v"`) {
			t.Error(err)
		}
	}
}

// A schema event speaks of the columns that are sent.
func TestMappedSchemaEvent(t *testing.T) {
	b := pipetest.WideBatch(1)
	content, _ := json.Marshal(pipeline.SchemaChange{Columns: b.Tables[0].Columns})
	b.Events[0].Op, b.Events[0].After = pipeline.OpSchema, b.Put(content)
	got, err := JSON(mapped(Mapping{Rename: map[string]string{"path": "location"}, Drop: []string{"hash"}, Mask: map[string]string{"size": MaskHash}, Salt: "x"})).Append(nil, b, 0, 0)
	if err != nil || strings.Contains(string(got), `"path"`) || strings.Contains(string(got), `"hash"`) || !strings.Contains(string(got), `{"name":"size","type":"text"`) {
		t.Errorf("%s %v", got, err)
	}
}
