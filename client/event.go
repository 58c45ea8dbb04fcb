package client

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Op is what happened.
type Op string

// Operations. New ones may come: ignore what you do not know.
const (
	Insert   Op = "insert"
	Update   Op = "update"
	Delete   Op = "delete"
	Snapshot Op = "snapshot" // a row that was there: apply it as an upsert
	Truncate Op = "truncate" // all rows of the table are gone
	Schema   Op = "schema"   // the table's shape changed
	Message  Op = "message"  // a logical message, of no table
)

var ops = map[leatv1.Op]Op{leatv1.Op_OP_INSERT: Insert, leatv1.Op_OP_UPDATE: Update, leatv1.Op_OP_DELETE: Delete, leatv1.Op_OP_SNAPSHOT: Snapshot,
	leatv1.Op_OP_TRUNCATE: Truncate, leatv1.Op_OP_SCHEMA: Schema, leatv1.Op_OP_MESSAGE: Message}

// Event is one change. It belongs to its receiver.
type Event struct {
	// ID is source, `-`, Offset: the same id is the same content, for ever.
	ID string
	// Offset in the server's log: rising; compare only within one source.
	Offset uint64
	Op     Op
	// Table is `schema.table` (MySQL: `database.table`), percent-encoded; empty for messages.
	Table string
	// Key holds the identity columns, also those of a deleted row; without columns where the event is about no row.
	Key Row
	// Before and After the change, as far as the database sent them. A column that it did not send (unchanged large
	// values, partial row images) is not in After: keep what you have. Absent is not null.
	Before, After Row
	// KeyChange: half of an update that changed the key. It comes as a delete of the old key and an insert of the new.
	KeyChange bool
	// Tx names the transaction, Last that this is its last event in the log. Empty for rows of snapshots.
	Tx   string
	Last bool
	// Time of the commit; for snapshots, of the reading.
	Time time.Time
	// Position of the commit in the database: LSN, GTID, or file:offset.
	Position string
	// Prefix and Content of a logical message.
	Prefix  string
	Content []byte
	// Statement of a change of shape, where it is known.
	Statement string

	// Proto is the event as it came.
	Proto *leatv1.Event
}

// shape is a table version and where its columns stand.
type shape struct {
	table    *leatv1.Table
	columns  map[string]int
	identity []string
}

type version struct{ id, version uint32 }

// shapes are the table versions that a stream has told of.
type shapes map[version]*shape

func (s shapes) learn(tables []*leatv1.Table) {
	for _, t := range tables {
		n := &shape{table: t, columns: make(map[string]int, len(t.Columns)), identity: t.Identity}
		for i, c := range t.Columns {
			n.columns[c.Name] = i
		}
		s[version{t.Id, t.Version}] = n
	}
}

// event makes what the user sees of e.
func (s shapes) event(source string, e *leatv1.Event) (*Event, error) {
	op, ok := ops[e.Op]
	if !ok {
		op = Op(e.Op.String())
	}
	out := &Event{ID: fmt.Sprintf("%s-%d", source, e.Offset), Offset: e.Offset, Op: op, KeyChange: e.KeyChange != nil, Tx: e.GetTx().GetId(),
		Last: e.GetTx().GetLast(), Time: time.UnixMicro(e.TimeMicros).UTC(), Position: e.Position, Prefix: e.GetMessage().GetPrefix(),
		Content: e.GetMessage().GetContent(), Statement: e.GetSchemaChange().GetStatement(), Proto: e}
	if e.Table == 0 {
		return out, nil
	}
	sh := s[version{e.Table, e.TableVersion}]
	if sh == nil {
		return nil, fmt.Errorf("leat: event %s speaks of version %d of table %d, which the server has not described", out.ID, e.TableVersion, e.Table)
	}
	out.Table = sh.table.Subject
	var err error
	if out.Key, err = row(out, sh.identity, e.Key); err == nil {
		if out.Before, err = sh.image(out, e.Before); err == nil {
			out.After, err = sh.image(out, e.After)
		}
	}
	return out, err
}

func (s *shape) image(e *Event, r *leatv1.Row) (Row, error) {
	if r == nil {
		return Row{}, nil
	}
	if len(r.Values) != len(s.table.Columns) {
		return Row{}, fmt.Errorf("leat: event %s has %d values for the %d columns of %s", e.ID, len(r.Values), len(s.table.Columns), e.Table)
	}
	return Row{columns: s.table.Columns, index: s.columns, values: r.Values}, nil
}

func row(e *Event, names []string, values []*leatv1.Value) (Row, error) {
	if len(values) == 0 {
		return Row{}, nil
	}
	if len(values) != len(names) {
		return Row{}, fmt.Errorf("leat: event %s has %d key values, %s has %d key columns", e.ID, len(values), e.Table, len(names))
	}
	r := Row{columns: make([]*leatv1.Column, len(names)), index: make(map[string]int, len(names)), values: values}
	for i, n := range names {
		r.columns[i], r.index[n] = &leatv1.Column{Name: n}, i
	}
	return r, nil
}

// Decimal is a number in the database's own digits, or NaN, Infinity, -Infinity.
type Decimal string

// Bits is a bit string, of 0 and 1.
type Bits string

// Value is v as Go has it:
//
//	null                       nil
//	bool                       bool
//	integers                   int64, unsigned ones uint64
//	decimals                   Decimal
//	floats                     float32, float64
//	text, and what only the database's own text can say  string
//	bytes                      []byte
//	bit strings                Bits
//	json                       json.RawMessage
//	date                       time.Time, midnight UTC
//	time of day                time.Duration
//	timestamps                 time.Time in UTC, those without a zone too
//	arrays, vectors            []any, []float32
//
// An absent value gives ok false.
func value(v *leatv1.Value) (x any, ok bool) {
	switch k := v.GetKind().(type) {
	case *leatv1.Value_Null:
		return nil, true
	case *leatv1.Value_Boolean:
		return k.Boolean, true
	case *leatv1.Value_Integer:
		return k.Integer, true
	case *leatv1.Value_Unsigned:
		return k.Unsigned, true
	case *leatv1.Value_Float64:
		return k.Float64, true
	case *leatv1.Value_Float32:
		return k.Float32, true
	case *leatv1.Value_Decimal:
		return Decimal(k.Decimal), true
	case *leatv1.Value_Text:
		return k.Text, true
	case *leatv1.Value_Blob:
		return k.Blob, true
	case *leatv1.Value_Bits:
		return Bits(k.Bits), true
	case *leatv1.Value_Json:
		return json.RawMessage(k.Json), true
	case *leatv1.Value_DateDays:
		return time.Unix(int64(k.DateDays)*86400, 0).UTC(), true
	case *leatv1.Value_TimeMicros:
		return time.Duration(k.TimeMicros) * time.Microsecond, true
	case *leatv1.Value_DatetimeMicros:
		return time.UnixMicro(k.DatetimeMicros).UTC(), true
	case *leatv1.Value_TimestampMicros:
		return time.UnixMicro(k.TimestampMicros).UTC(), true
	case *leatv1.Value_Array:
		out := make([]any, 0, len(k.Array.GetValues()))
		for _, e := range k.Array.GetValues() {
			x, _ := value(e)
			out = append(out, x)
		}
		return out, true
	case *leatv1.Value_Vector:
		return k.Vector.GetValues(), true
	}
	return nil, false
}
