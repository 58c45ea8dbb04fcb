package api

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// looks are the procedures of AdminService that change nothing. Whatever is added must stand here or be told to
// the audit log.
var looks = map[string]bool{"Status": true, "Plan": true, "Parked": true, "Tail": true, "AuditLog": true, "Explain": true, "Ranges": true, "Jobs": true, "Verify": true}

// TestEveryChangeIsAudited: a procedure that is added is a change, with a case in changeOf, unless it is named
// above; each field of its request that says who or what shows in the entry.
func TestEveryChangeIsAudited(t *testing.T) {
	methods := leatv1.File_leat_v1_admin_proto.Services().ByName("AdminService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		name := string(m.Name())
		kind, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
		if err != nil {
			t.Fatal(err)
		}
		empty := kind.New().Interface()
		c := changeOf(empty)
		if looks[name] {
			if c != nil {
				t.Errorf("%s only looks, but is told to the audit log", name)
			}
			continue
		}
		if c == nil || c.Action == "" {
			t.Errorf("%s changes something: it needs a case in changeOf (or a place in looks)", name)
			continue
		}
		if rt := routeOf("/leat.v1.AdminService/" + name); rt == nil || rt.need != needOperate || denied(rt) == nil || denied(rt).Action != c.Action {
			t.Errorf("%s: its route does not ask for the role operate, or who is denied is told as another action than %q", name, c.Action)
		}
		fields := m.Input().Fields()
		for j := range fields.Len() {
			f := fields.Get(j)
			if unsaid[name+"."+string(f.Name())] || f.Name() == "dry_run" {
				continue
			}
			full := kind.New()
			fill(full, f)
			got := changeOf(full.Interface())
			if got.Target+got.Arguments == c.Target+c.Arguments {
				t.Errorf("%s: the entry does not tell %s", name, f.Name())
			}
		}
		if dry := fields.ByName("dry_run"); dry != nil {
			full := kind.New()
			full.Set(dry, protoreflect.ValueOfBool(true))
			if c := changeOf(full.Interface()); c == nil || !c.dry {
				t.Errorf("%s: a dry run is told when it is refused, else not", name)
			}
		}
	}
}

// unsaid fields do not stand in the entry: the file may hold secrets.
var unsaid = map[string]bool{"Apply.config": true}

func routeOf(path string) *route {
	for i := range routes {
		if routes[i].path == path {
			return &routes[i]
		}
	}
	return nil
}

// fill sets a field, and the first of each message below it.
func fill(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	value := func() protoreflect.Value {
		switch f.Kind() {
		case protoreflect.StringKind:
			return protoreflect.ValueOfString("x")
		case protoreflect.BytesKind:
			return protoreflect.ValueOfBytes([]byte("x"))
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		case protoreflect.Uint64Kind:
			return protoreflect.ValueOfUint64(7)
		case protoreflect.DoubleKind:
			return protoreflect.ValueOfFloat64(0.5)
		case protoreflect.Int64Kind:
			return protoreflect.ValueOfInt64(7)
		case protoreflect.Int32Kind:
			return protoreflect.ValueOfInt32(7)
		}
		return protoreflect.Value{}
	}
	switch {
	case f.IsList() && f.Kind() == protoreflect.MessageKind:
		e := m.Mutable(f).List().AppendMutable().Message()
		fill(e, e.Descriptor().Fields().Get(0))
	case f.IsList():
		m.Mutable(f).List().Append(value())
	case f.Kind() == protoreflect.MessageKind:
		e := m.Mutable(f).Message()
		for i := range e.Descriptor().Fields().Len() {
			fill(e, e.Descriptor().Fields().Get(i))
		}
	default:
		m.Set(f, value())
	}
}
