package records

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
	"github.com/leat-cdc/leat/sinks/encode"
)

func protobufEncoder(t testing.TB, o encode.Options) (*Encoder, *shelf) {
	t.Helper()
	s := &shelf{}
	e, err := New(Options{Options: o, Format: Protobuf, Schemas: s})
	if err != nil {
		t.Fatal(err)
	}
	return e, s
}

// message decodes p with protobuf's own library, which knows the registered file only.
func (s *shelf) message(t testing.TB, p []byte) protoreflect.Message {
	t.Helper()
	if len(p) < 6 || p[0] != 0 || p[5] != 0 {
		t.Fatalf("no frame: %x", p)
	}
	text := s.texts[binary.BigEndian.Uint32(p[1:])-1]
	serialized, err := compat.SerializedProtobuf(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	raw, _ := base64.StdEncoding.DecodeString(serialized)
	var file descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	fd, err := protodesc.NewFile(&file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(fd.Messages().Get(0))
	if err := proto.Unmarshal(p[6:], m); err != nil {
		t.Fatalf("%x: %v", p, err)
	}
	again, err := proto.Marshal(m)
	if err != nil || len(again) != len(p)-6 {
		t.Fatalf("%d bytes, protobuf needs %d: %v", len(p)-6, len(again), err)
	}
	if known, _ := protojson.Marshal(m); strings.Contains(string(known), "\x00unknown") || len(m.GetUnknown()) > 0 {
		t.Fatalf("unknown fields in %v", m)
	}
	return m
}

func get(m protoreflect.Message, names ...protoreflect.Name) protoreflect.Value {
	var v protoreflect.Value
	for i, name := range names {
		v = m.Get(m.Descriptor().Fields().ByName(name))
		if i < len(names)-1 {
			m = v.Message()
		}
	}
	return v
}

func TestProtobufEvent(t *testing.T) {
	e, s := protobufEncoder(t, encode.Options{Source: "files", Form: pgtext.Form})
	b := pipetest.WideBatch(2)
	key, value := appendOne(t, e, b, 1, 0, "ab1")
	if get(s.message(t, key), "id").Int() != 1000001 {
		t.Error(s.message(t, key))
	}
	m := s.message(t, value)
	if get(m, "op").Enum() != 1 || get(m, "source").String() != "files" || get(m, "sequence").Uint() != 1877212358656124 || get(m, "time").Int() != 1795256130123456 ||
		get(m, "replay").String() != "ab1" || get(m, "tx", "seq").Uint() != 2 || get(m, "table").String() != "public.files" || get(m, "after", "path").String() != "/home/user1/projects/alpha/file-00000001.txt" ||
		get(m, "after", "modified").String() != "2026-11-21T10:15:30.123456Z" || get(m, "after", "size").Int() != 37 || m.Has(m.Descriptor().Fields().ByName("before")) {
		t.Error(m)
	}
}

func TestProtobufOther(t *testing.T) {
	e, s := protobufEncoder(t, encode.Options{Source: "s", Form: pgtext.Form})
	b := pipetest.WideBatch(3)
	b.Events[0].Op, b.Events[0].Flags = pipeline.OpDelete, pipeline.FlagKeyChange
	b.Events[0].Before, b.Events[0].After = b.Events[0].After, pipeline.Nowhere
	b.Events[1].Op, b.Events[1].After = pipeline.OpSchema, b.Put([]byte(`{"columns":[],"statement":"ALTER","rewrites":true}`))
	b.Events[2] = pipeline.Event{Op: pipeline.OpMessage, Table: pipeline.NoTable, Before: b.Put([]byte("p")), After: b.Put([]byte{0xff})}
	_, value := appendOne(t, e, b, 0, 0, "")
	if m := s.message(t, value); get(m, "other").Uint() != 1877212358656124 || get(m, "before", "id").Int() != 1000000 {
		t.Error(m)
	}
	_, value = appendOne(t, e, b, 1, 0, "")
	if m := s.message(t, value); get(m, "schema_change", "statement").String() != "ALTER" || !get(m, "schema_change", "rewrites").Bool() {
		t.Error(m)
	}
	key, value := appendOne(t, e, b, 2, 0, "")
	if m := s.message(t, value); key != nil || get(m, "prefix").String() != "p" || string(get(m, "content").Bytes()) != "\xff" {
		t.Error(m)
	}
}

// Rows of any types and values say the same as in JSON.
func TestProtobufValues(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := &pipetest.Values{}
		tab := &schemas.Table{ID: 1, Version: 1, Schema: "my db", Name: "t", Wire: schemas.WirePGText, Identity: []int{0}}
		tab.Columns = []schemas.Column{{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 32}}}
		row := []byte{f.Put(cell.Value{Kind: schemas.KindInt, Bits: 32, N: 5})}
		for i := range rapid.IntRange(1, 5).Draw(rt, "columns") {
			c, at, _ := anyColumn(rt, f, fmt.Sprintf("c%d", i))
			tab.Columns, row = append(tab.Columns, c), append(row, at)
		}
		o := encode.Options{Source: "s", Form: f.Form}
		e, s := protobufEncoder(t, o)
		b := pipetest.One(tab.Seal(), pipeline.OpInsert, nil, row)
		w := e.Writer(t.Context(), "")
		defer w.Close()
		value, rec, err := w.Append(nil, e.Topic("t"), b, 0, 0)
		if err != nil {
			var ee *encode.EventError
			if !errors.As(err, &ee) || !errors.Is(err, errNoList) {
				rt.Fatal(err)
			}
			return
		}
		m := s.message(t, value[rec.Key:])
		text, err := encode.JSON(o).Append(nil, b, 0, 0)
		if err != nil {
			rt.Fatal(err)
		}
		var want struct {
			Data struct {
				After  map[string]json.RawMessage
				Absent []string
			}
		}
		if err := json.Unmarshal(text, &want); err != nil {
			rt.Fatal(err)
		}
		if got := get(m, "absent").List(); got.Len() != len(want.Data.Absent) {
			rt.Fatal(m)
		}
		after := get(m, "after").Message()
		var names []string
		for i := range tab.Columns {
			names = append(names, tab.Columns[i].Name)
		}
		for i, name := range shape.Names(names) {
			fd := after.Descriptor().Fields().ByName(protoreflect.Name(name))
			raw, there := want.Data.After[names[i]]
			if is := after.Has(fd); is != (there && string(raw) != "null") && !fd.IsList() {
				rt.Fatalf("column %q is there: %t, in JSON %s", names[i], is, raw)
			}
			if fd.JSONName() != names[i] {
				rt.Fatalf("%s for %q", fd.JSONName(), names[i])
			}
			if after.Has(fd) && !sameAsJSON(after.Get(fd), fd, raw) {
				rt.Fatalf("column %q: %v, in JSON %s", names[i], after.Get(fd), raw)
			}
		}
	})
}

func sameAsJSON(v protoreflect.Value, fd protoreflect.FieldDescriptor, raw []byte) bool {
	var text string
	_ = json.Unmarshal(raw, &text)
	switch {
	case fd.IsList():
		return fmt.Sprint(v.List().Get(0).Float()) == strings.Trim(string(raw), "[]")
	case fd.Kind() == protoreflect.StringKind:
		return v.String() == text || v.String() == string(raw)
	case fd.Kind() == protoreflect.BytesKind:
		return base64.StdEncoding.EncodeToString(v.Bytes()) == text
	case fd.Kind() == protoreflect.MessageKind:
		var list structpb.ListValue
		p, _ := proto.Marshal(v.Message().Interface())
		if proto.Unmarshal(p, &list) != nil {
			return false
		}
		var want []any
		_ = json.Unmarshal(raw, &want)
		return fmt.Sprint(list.AsSlice()) == fmt.Sprint(want)
	case fd.Kind() == protoreflect.DoubleKind, fd.Kind() == protoreflect.FloatKind:
		bits := 64
		if fd.Kind() == protoreflect.FloatKind {
			bits = 32
		}
		f, err := strconv.ParseFloat(strings.Trim(string(raw), `"`), bits)
		return err == nil && (f == v.Float() || f != f)
	}
	return v.String() == string(raw)
}

// A column keeps its number whatever happens to the others; a number that was one column's is never another's.
func TestProtobufNumbersStay(t *testing.T) {
	e, s := protobufEncoder(t, encode.Options{Source: "s", Form: pgtext.Form})
	numbers := func(columns ...string) string {
		tab := pipetest.WideTable()
		all := tab.Columns
		tab.Columns = []schemas.Column{all[0]}
		for _, name := range columns {
			i := tab.Column(name)
			if i < 0 {
				for j := range all {
					if all[j].Name == name {
						tab.Columns = append(tab.Columns, all[j])
					}
				}
			}
		}
		tab.Routing = nil
		b := pipetest.One(tab.Seal(), pipeline.OpTruncate, nil, nil)
		_, value := appendOne(t, e, b, 0, 0, "")
		fields := s.message(t, value).Descriptor().ParentFile().Messages().ByName("Value").Fields()
		out := ""
		for i := range fields.Len() {
			out += fmt.Sprintf("%s=%d ", fields.Get(i).Name(), fields.Get(i).Number())
		}
		return strings.TrimSpace(out)
	}
	for _, c := range []struct{ columns, want string }{
		{"path size", "id=1 path=2 size=3"},
		{"size", "id=1 size=3"},
		{"hash size deleted", "id=1 hash=4 size=3 deleted=5"},
		{"path", "id=1 path=2"},
	} {
		if got := numbers(strings.Fields(c.columns)...); got != c.want {
			t.Errorf("%s: %s, want %s", c.columns, got, c.want)
		}
	}
	versions, _ := s.Versions(t.Context(), "t-value", shape.Protobuf)
	if err := compat.Check(compat.FullTransitive, shape.Protobuf, versions[len(versions)-1], versions[:len(versions)-1]); err != nil || len(versions) != 4 {
		t.Error(len(versions), err)
	}
}

func BenchmarkProtobuf(b *testing.B) {
	e, _ := protobufEncoder(b, encode.Options{Source: "files", Form: pgtext.Form})
	benchmarkAppend(b, e, pipetest.WideBatch(1000))
}
