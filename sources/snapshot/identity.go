package snapshot

import (
	"bytes"
	"encoding/binary"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/form"
)

// images tells rows apart by the bytes of their identity, whoever wrote them. Not for concurrent use.
type images struct {
	forms         form.Cache
	after, before []cell.Ref
	key, old      []byte
}

// change is what an event does to the rows of its table. Its keys alias the memory of images until the next use.
type change struct {
	// key is the row's identity; old the one that it had before, nil when it is the same.
	key, old []byte
	// partial: the event lacks columns. base: nor can an earlier event of this key have brought them.
	partial, base bool
	image, from   []byte // where key and old stand, for Database.Key
}

// row returns the identity of a whole row; ok is false when it has none.
func (x *images) row(t *schemas.Table, image []byte) (key []byte, ok bool) {
	var err error
	if x.after, err = x.forms.Of(t).Walk(image, x.after[:0], len(t.Columns)); err != nil {
		return nil, false
	}
	x.key, ok = appendIdentity(x.key[:0], t, image, x.after, nil, nil)
	return x.key, ok
}

// event reads one event of a row; ok is false when it cannot be told which row it is about.
func (x *images) event(b *pipeline.Batch, e *pipeline.Event, t *schemas.Table) (c change, ok bool) {
	f, n := x.forms.Of(t), len(t.Columns)
	before, after := b.Bytes(e.Before), b.Bytes(e.After)
	var err error
	x.before, x.after = x.before[:0], x.after[:0]
	if before != nil {
		if x.before, err = f.Walk(before, x.before, n); err != nil {
			return c, false
		}
	}
	if after == nil {
		x.key, ok = appendIdentity(x.key[:0], t, before, x.before, nil, nil)
		return change{key: x.key, image: before}, ok
	}
	if x.after, err = f.Walk(after, x.after, n); err != nil {
		return c, false
	}
	if x.key, ok = appendIdentity(x.key[:0], t, after, x.after, before, x.before); !ok {
		return c, false
	}
	c.key, c.image, c.base = x.key, after, e.Op != pipeline.OpUpdate
	for _, ref := range x.after {
		c.partial = c.partial || ref.Absent()
	}
	if before != nil {
		if x.old, ok = appendIdentity(x.old[:0], t, before, x.before, nil, nil); ok && !bytes.Equal(x.old, x.key) {
			c.old, c.base, c.from = x.old, true, before
		}
	}
	return c, true
}

// appendIdentity appends the cells of t's identity; those that image lacks are taken from other.
func appendIdentity(dst []byte, t *schemas.Table, image []byte, refs []cell.Ref, other []byte, more []cell.Ref) ([]byte, bool) {
	for _, c := range t.Identity {
		ref, from := refs[c], image
		if ref.Absent() && len(more) > 0 {
			ref, from = more[c], other
		}
		switch {
		case ref.Absent():
			return dst, false
		case ref.Null():
			dst = append(dst, 0xff, 0xff, 0xff, 0xff)
		default:
			dst = append(binary.BigEndian.AppendUint32(dst, ref.Len), ref.Of(from)...)
		}
	}
	return dst, len(t.Identity) > 0
}

// sameShape reports whether keys and rows of both mean the same.
func sameShape(a, b *schemas.Table) bool {
	if a == b {
		return true
	}
	if len(a.Columns) != len(b.Columns) || len(a.Identity) != len(b.Identity) {
		return false
	}
	for i := range a.Columns {
		if a.Columns[i].Name != b.Columns[i].Name || a.Columns[i].Type.Name != b.Columns[i].Type.Name {
			return false
		}
	}
	for i := range a.Identity {
		if a.Identity[i] != b.Identity[i] {
			return false
		}
	}
	return true
}
