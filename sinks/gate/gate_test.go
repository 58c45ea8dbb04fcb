package gate

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
	"github.com/leat-cdc/leat/sinks/encode"
)

func table(version uint32, columns ...schemas.Column) *schemas.Table {
	return (&schemas.Table{ID: 1, Version: version, Schema: "public", Name: "files", Wire: schemas.WirePGText, Identity: []int{0}, Columns: columns}).Seal()
}

var (
	id      = schemas.Column{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint", OID: 20}}
	path    = schemas.Column{Name: "path", Type: schemas.Type{Kind: schemas.KindText, Name: "text", OID: 25}}
	maybe   = schemas.Column{Name: "path", Type: schemas.Type{Kind: schemas.KindText, Name: "text", OID: 25}, Nullable: true}
	retyped = schemas.Column{Name: "path", Type: schemas.Type{Kind: schemas.KindInt, Bits: 32, Name: "integer", OID: 23}}
	more    = schemas.Column{Name: "size", Type: schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint", OID: 20}}
)

var contracts = map[shape.Format]string{
	shape.Avro:       `{"type":"record","name":"File","namespace":"search","fields":[{"name":"id","type":"long"},{"name":"path","type":"string"}]}`,
	shape.Protobuf:   "syntax = \"proto3\"; message File { int64 id = 4; string path = 2; }",
	shape.JSONSchema: `{"type":"object","properties":{"id":{"type":"integer"},"path":{"type":"string"}},"required":["id","path"]}`,
}

func contract(f shape.Format, mode compat.Mode) *Contract {
	return &Contract{Name: "search", Format: f, Mode: mode, Read: func() (string, error) { return contracts[f], nil }}
}

// What a DDL does to a contract, by format and mode: empty = kept.
func TestContracts(t *testing.T) {
	for name, c := range map[string]struct {
		now   []schemas.Column
		fails map[shape.Format]string // the modes that it breaks: b, f
	}{
		"same":        {[]schemas.Column{id, path}, map[shape.Format]string{}},
		"added":       {[]schemas.Column{id, path, more}, map[shape.Format]string{shape.Avro: "f", shape.JSONSchema: "f"}},
		"dropped":     {[]schemas.Column{id}, map[shape.Format]string{shape.Avro: "b", shape.JSONSchema: "b"}},
		"nullable":    {[]schemas.Column{id, maybe}, map[shape.Format]string{shape.Avro: "b", shape.JSONSchema: "b"}},
		"retyped":     {[]schemas.Column{id, retyped}, map[shape.Format]string{shape.Avro: "bf", shape.Protobuf: "bf", shape.JSONSchema: "bf"}},
		"other order": {[]schemas.Column{path, id}, map[shape.Format]string{}},
	} {
		for f := range contracts {
			for mode, letter := range map[compat.Mode]string{compat.Backward: "b", compat.Forward: "f"} {
				err := Fits(&encode.Options{}, contract(f, mode), table(4, c.now...))
				if strings.Contains(c.fails[f], letter) != (err != nil) {
					t.Errorf("%s, %s %s: %v", name, f, mode, err)
				}
				if err != nil && !(strings.Contains(err.Error(), "public.files version 4 breaks the contract search") && strings.Contains(err.Error(), "id bigint not null") && strings.Contains(err.Error(), "path")) {
					t.Errorf("%s names not both shapes: %v", name, err)
				}
			}
		}
	}
}

// A mapping makes a table go with a contract again.
func TestMappingKeepsAContract(t *testing.T) {
	now := table(2, id, retyped)
	o := &encode.Options{Mapping: map[string]encode.Mapping{"public.files": {Cast: map[string]string{"path": encode.CastString}}}}
	for f := range contracts {
		if err := Fits(o, contract(f, compat.Full), now); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestOddContracts(t *testing.T) {
	for text, f := range map[string]shape.Format{"{": shape.Avro, `"long"`: shape.Avro, `["null"]`: shape.Avro, "message": shape.Protobuf, "syntax = \"proto3\";": shape.Protobuf, "[": shape.JSONSchema} {
		c := &Contract{Name: "x", Format: f, Mode: compat.Backward, Read: func() (string, error) { return text, nil }}
		if err := Fits(&encode.Options{}, c, table(1, id)); err == nil || !strings.Contains(err.Error(), "contract x") {
			t.Errorf("%q: %v", text, err)
		}
	}
	gone := &Contract{Name: "x", Format: shape.Avro, Mode: compat.Backward, Read: func() (string, error) { return "", errors.New("no such file") }}
	if err := Fits(&encode.Options{}, gone, table(1, id)); err == nil {
		t.Error("a contract that cannot be read holds nothing")
	}
	gone.Tables = []string{"public.other"}
	if err := Fits(&encode.Options{}, gone, table(1, id)); err != nil {
		t.Error("a contract of other tables:", err)
	}
}

func deliver(t *schemas.Table) *pipeline.Delivery {
	b := pipetest.Build(pipeline.Position{Counter: 1, Token: "x"}, time.Unix(0, 0), []pipetest.Change{{Op: pipeline.OpInsert, Table: t, After: make(pipetest.Row, len(t.Columns))}})
	return &pipeline.Delivery{Subscription: "s", Events: 1, Runs: []pipeline.Run{{Batch: b, To: 1}}}
}

// What breaks is held; it goes on once the contract's file is another, and asks for the file no
// more often than that needs.
func TestHeldUntilTheContractIsChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, reads := contracts[shape.Avro], 0
		g := New(Options{Encoding: encode.Options{Form: pgtext.Form}, Contract: &Contract{Name: "c", Format: shape.Avro, Mode: compat.Backward,
			Read: func() (string, error) { reads++; return text, nil }}})
		good, bad := table(1, id, path), table(2, id, retyped)
		for range 3 {
			if err := g.Admit(deliver(good)); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			var de *pipeline.DeliveryError
			if err := g.Admit(deliver(bad)); !errors.As(err, &de) || de.Class != pipeline.Unavailable || de.RetryAfter != again {
				t.Fatal(err)
			}
		}
		if reads != 2 {
			t.Fatal(reads)
		}
		text = strings.Replace(text, `"string"`, `"int"`, 1)
		time.Sleep(again) // of the virtual clock
		if err := g.Admit(deliver(bad)); err != nil {
			t.Fatal(err)
		}
	})
}
