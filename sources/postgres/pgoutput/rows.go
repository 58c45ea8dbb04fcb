package pgoutput

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// relation returns the relation of the given OID, resolved; nil when its rows are not wanted.
func (d *Decoder) relation(oid uint32) (*relation, error) {
	rel := d.last
	if rel == nil || rel.OID != oid {
		if rel = d.described(oid); rel == nil {
			return nil, fmt.Errorf("a row of relation %d, which was not described before", oid)
		}
	}
	if !rel.ready {
		if err := d.resolve(rel); err != nil {
			return nil, err
		}
	}
	if rel.shape.Table == nil || rel.refused {
		return nil, nil
	}
	d.last = rel
	return rel, nil
}

// resolve asks how rel is read. Only now, with a row at hand: relations of dropped transactions may be older
// than what the log knows.
func (d *Decoder) resolve(rel *relation) error {
	if d.block != nil && d.o.Settled != nil {
		why, err := d.o.Settled(d.block.xid, &rel.Relation)
		if err == nil && why != "" {
			err = &Unsettled{XID: d.block.xid, Reason: why}
		}
		if err != nil {
			return err
		}
	}
	wasRefused := rel.refused
	rel.XID = d.tx.id
	shape, err := d.o.Resolve(&rel.Relation)
	var refused *Refused
	if errors.As(err, &refused) {
		rel.ready = true
		d.quarantine(rel, refused.Code, refused.Reason, refused.Cure)
		return nil
	}
	if err != nil {
		return err
	}
	rel.ready, rel.shape, rel.refused = true, shape, false
	if shape.Table == nil {
		return nil
	}
	now := shape.Table.Seal()
	subject := now.Subject()
	was, last := d.shapeKnown(subject), d.lastOf(now.Number)
	if shape.KeyLost && last != nil && len(now.Identity) == 0 {
		keepIdentity(last, now)
	}
	if wasRefused {
		d.notice(rel, pipeline.NoticeReleased, ColumnsOut, "its rows can be read again", "")
		d.notice(rel, pipeline.NoticeGap, ColumnsOut, "its rows were not read while it was quarantined", pipeline.BringRows)
	}
	if was != nil && was.ShapeHash() == now.ShapeHash() && (rel.refreshed || !doubtful(now)) {
		rel.shape.Table = was // one pointer per shape
		return nil
	}
	d.learn(now, rel.heard)
	return d.reshaped(rel, was, last)
}

func (d *Decoder) quarantine(rel *relation, code, reason, cure string) {
	if rel.refused {
		return
	}
	rel.refused = true
	d.notice(rel, pipeline.NoticeQuarantined, code, reason, cure)
}

func (d *Decoder) notice(rel *relation, kind pipeline.NoticeKind, code, reason, cure string) {
	d.Notice(pipeline.Notice{
		Kind: kind, Code: code, Table: schemas.Subject(rel.Schema, rel.Name), Reason: reason, Cure: cure, Time: time.UnixMicro(d.tx.time).UTC(),
	})
}

// row takes an Insert, Update or Delete. The images are copied once, into the arena; nothing is allocated.
func (d *Decoder) row(kind byte, p []byte) error {
	if !d.tx.open {
		return errors.New("a row outside of a transaction")
	}
	if d.tx.skip {
		return nil
	}
	if len(p) < 5 {
		return errShort
	}
	rel, err := d.relation(binary.BigEndian.Uint32(p))
	if err != nil || rel == nil {
		return err
	}
	old, oldKind, fresh, unchanged, err := images(kind, p[4:], len(rel.Columns))
	if err != nil {
		d.quarantine(rel, Unreadable, "a row of it cannot be read: "+err.Error(), "report it with the version of the server; then "+pipeline.BringRows)
		return nil
	}
	d.room()
	table, err := d.table(rel)
	if err != nil {
		return err
	}
	b, keep := d.cur, rel.shape.Keep
	if most := len(old) + len(fresh); cap(b.Arena)-len(b.Arena) < most {
		b.Room(max(most, len(b.Arena)), 0) // append alone grows by a quarter, and copies each time
	}
	before, after := pipeline.Nowhere, pipeline.Nowhere
	if old != nil {
		at := len(b.Arena)
		if oldKind == 'K' {
			b.Arena = appendKey(b.Arena, old)
		} else {
			b.Arena = append(b.Arena, old...)
		}
		before = d.image(at, keep)
	}
	if fresh != nil {
		at := len(b.Arena)
		if unchanged && oldKind == 'O' {
			b.Arena = appendFilled(b.Arena, fresh, old)
		} else {
			b.Arena = append(b.Arena, fresh...)
		}
		after = d.image(at, keep)
	}
	op := pipeline.OpUpdate
	switch kind {
	case 'I':
		op = pipeline.OpInsert
	case 'D':
		op = pipeline.OpDelete
	}
	d.add(op, table, before, after)
	return nil
}

// image strips what must not enter the log from the image that the arena ends with and returns its span.
func (d *Decoder) image(at int, keep []bool) pipeline.Span {
	b := d.cur
	if keep != nil {
		b.Arena = strip(b.Arena, at, keep)
	}
	return pipeline.Span{Off: uint32(at), Len: uint32(len(b.Arena) - at)}
}

// images finds the tuples of a row message behind its relation; they alias p. oldKind is 'K' for a key,
// 'O' for a whole old row, 0 without either.
func images(kind byte, p []byte, columns int) (old []byte, oldKind byte, fresh []byte, unchanged bool, err error) {
	oldKind = p[0]
	switch {
	case kind != 'I' && (oldKind == 'K' || oldKind == 'O'):
		n, _, err := measure(p[1:], columns)
		if err != nil {
			return nil, 0, nil, false, err
		}
		old, p = p[1:1+n], p[1+n:]
	case kind == 'D' || oldKind != 'N':
		return nil, 0, nil, false, fmt.Errorf("row message has an image of kind 0x%02x", oldKind)
	default:
		oldKind = 0
	}
	if kind == 'D' {
		if len(p) != 0 {
			err = errors.New("bytes behind the row")
		}
		return old, oldKind, nil, false, err
	}
	if len(p) < 1 || p[0] != 'N' {
		return nil, 0, nil, false, errors.New("row message lacks its new image")
	}
	n, unchanged, err := measure(p[1:], columns)
	if err == nil && 1+n != len(p) {
		err = errors.New("bytes behind the row")
	}
	if err != nil {
		return nil, 0, nil, false, err
	}
	return old, oldKind, p[1:], unchanged, nil
}

// truncate takes a Truncate message: one event per table.
func (d *Decoder) truncate(p []byte) error {
	r := reader{p: p}
	n := int(r.u32())
	r.u8() // CASCADE, RESTART IDENTITY: the tables that CASCADE reached are listed
	if !d.tx.open {
		return errors.New("a truncate outside of a transaction")
	}
	if d.tx.skip {
		return nil
	}
	for range n {
		oid := r.u32()
		if r.bad {
			return fmt.Errorf("truncate message: %w", errShort)
		}
		rel, err := d.relation(oid)
		if err != nil {
			return err
		}
		if rel == nil {
			continue
		}
		d.room()
		i, err := d.table(rel)
		if err != nil {
			return err
		}
		d.add(pipeline.OpTruncate, i, pipeline.Nowhere, pipeline.Nowhere)
	}
	return nil
}

// logical takes a logical message. One that belongs to no transaction becomes a transaction of its own,
// named by its place, committed when the server sent it.
func (d *Decoder) logical(p []byte, sent int64) error {
	r := reader{p: p}
	transactional := r.u8()&1 != 0
	at := LSN(r.u64())
	prefix := r.text()
	content := r.take(int(r.u32()))
	if r.bad {
		return fmt.Errorf("logical message: %w", errShort)
	}
	if transactional {
		if !d.tx.open {
			return errors.New("a transactional message outside of a transaction")
		}
		switch {
		case d.tx.skip:
		case string(prefix) == WatermarkPrefix:
			d.tx.marks = append(d.tx.marks, string(content))
		default:
			d.message(prefix, content)
		}
		return nil
	}
	if at <= d.o.After {
		return nil
	}
	if d.tx.open {
		return errors.New("a message without a transaction inside of one")
	}
	d.tx, d.committed = transaction{open: true, time: sent}, sent
	d.message(prefix, content)
	t := &d.cur.Txs[len(d.cur.Txs)-1]
	t.ID = d.cur.Put(d.lsn(at))
	t.Position, t.Ends = t.ID, true
	d.tx = transaction{}
	d.pos = max(d.pos, at)
	return nil
}

func (d *Decoder) message(prefix, content []byte) {
	d.room()
	before := d.cur.Put(prefix)
	d.add(pipeline.OpMessage, pipeline.NoTable, before, d.cur.Put(content))
}
