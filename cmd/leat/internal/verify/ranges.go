package verify

import (
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Ranges returns what names the range of a row by the log's newest map: of events by their key, of rows that were read
// from a database by what the log routes their table by. What cannot be told is in range 0. Not for concurrent use.
func Ranges(log pipeline.Log, form func(*schemas.Table) *cell.Form) func(b *pipeline.Batch, i int) uint32 {
	h, err := partition.NewHistory(log.Ranges())
	if err != nil || len(h.Last().Spaces()) == 0 {
		return func(*pipeline.Batch, int) uint32 { return 0 }
	}
	routed := map[string]*schemas.Table{}
	for _, t := range log.Tables() {
		routed[t.Subject()] = t
	}
	r := &router{routed: routed, form: form}
	return func(b *pipeline.Batch, i int) uint32 {
		t, key := b.TableOf(i), b.Bytes(b.Events[i].Key)
		if t == nil {
			return 0
		}
		space := t.KeySpace
		if key == nil {
			log := routed[t.Subject()]
			if log == nil || !r.route(log, t, image(b, i)) {
				return 0
			}
			space, key = log.KeySpace, r.key
		}
		m := h.Last().Map(space)
		return uint32(m.Ranges()[m.Find(key)].ID)
	}
}

// router makes routing keys of rows that did not come through the log.
type router struct {
	routed  map[string]*schemas.Table
	form    func(*schemas.Table) *cell.Form
	refs    []cell.Ref
	scratch cell.Scratch
	key     []byte
}

// route puts the routing key of a row of table t into r.key, by the columns that the log's version names.
func (r *router) route(log, t *schemas.Table, image []byte) bool {
	f := r.form(t)
	var err error
	if r.refs, err = f.Walk(image, r.refs[:0], len(t.Columns)); err != nil {
		return false
	}
	r.key = r.key[:0]
	r.scratch.Reset()
	for _, n := range log.Routing {
		i := t.Column(log.Columns[n].Name)
		if i < 0 {
			return false
		}
		var v cell.Value
		if r.refs[i].Null() {
			v.State = cell.Null
		} else if r.refs[i].Absent() || f.Decode[i](&v, r.refs[i].Of(image), &r.scratch) != nil {
			return false
		}
		if r.key, err = partition.AppendValue(r.key, &v, &t.Columns[i].Type); err != nil {
			return false
		}
	}
	return true
}
