package mysql

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// XA transactions with PREPARE stand in the binlog in two places: their rows with the PREPARE, and a COMMIT or
// ROLLBACK by name, perhaps days and binlog files later. The rows go into the log as chunks that stay there; the
// position says which wait and under which name. Meanwhile their rows are locked, so no other change of their keys
// stands between.

// waitingXA is a prepared transaction: open names its chunks in the log, "" when it has none, and left the tables of which
// it has rows that did not enter the log, as they were quarantined. Its commit says so: whoever lets a table in before has
// no other way to know.
type waitingXA struct {
	xid, open string
	left      []statement.Name
}

// xaMark is what stands in front of the waiting ones in a position.
const xaMark = " | xa"

func appendXA(dst []byte, waiting []waitingXA) []byte {
	if len(waiting) == 0 {
		return dst
	}
	dst = append(dst, xaMark...)
	for _, x := range waiting {
		dst = append(append(dst, ' '), x.xid...)
		for _, n := range x.left {
			dst = append(append(append(append(dst, '/'), url.QueryEscape(n.Schema)...), ':'), url.QueryEscape(n.Table)...)
		}
		dst = append(append(dst, '='), x.open...)
	}
	return dst
}

// cutXA takes the waiting transactions off a position.
func cutXA(token string) (rest string, waiting []waitingXA, err error) {
	rest, list, ok := strings.Cut(token, xaMark)
	for _, one := range strings.Fields(list) {
		head, open, ok := strings.Cut(one, "=")
		parts := strings.Split(head, "/")
		x := waitingXA{xid: parts[0], open: open}
		for _, p := range parts[1:] {
			schema, table, _ := strings.Cut(p, ":")
			schema, err = url.QueryUnescape(schema)
			if err == nil {
				table, err = url.QueryUnescape(table)
			}
			if err != nil {
				return "", nil, fmt.Errorf("a table left out: %w", err)
			}
			x.left = append(x.left, statement.Name{Schema: schema, Table: table})
		}
		if !ok || x.xid == "" {
			return "", nil, fmt.Errorf("want XID=NAME, not %.100q", one)
		}
		waiting = append(waiting, x)
	}
	if ok && len(waiting) == 0 {
		return "", nil, fmt.Errorf("no transaction behind %q", xaMark)
	}
	return rest, waiting, nil
}

// xidOf reads the name out of XA COMMIT X'…',X'…',1 as servers log it, and out of what people may write: a string of
// another kind, with no more than the first part, with comments; "" when it is none.
func xidOf(text string) string {
	parts, format := [2]string{}, 1
	n, rest, ok := 0, text, false
	for ; n < 2; n++ {
		if parts[n], rest, ok = xaString(rest); !ok {
			break
		}
	}
	if n == 0 {
		return ""
	}
	if comma := strings.IndexByte(rest, ','); n == 2 && comma >= 0 {
		number := strings.TrimLeft(rest[comma+1:], " \t\r\n")
		if end := strings.IndexFunc(number, func(c rune) bool {
			return (c < '0' || c > '9') && c != '-' && c != 'x' && c != 'X' && (c|32 < 'a' || c|32 > 'f')
		}); end >= 0 {
			number = number[:end]
		}
		f, err := strconv.ParseInt(number, 0, 64)
		if err != nil {
			return ""
		}
		format = int(f)
	}
	return nameXA(parts[0], parts[1], format)
}

// xaString reads the next string of a statement, whatever stands before its quote: X'hex', 0xhex or 'text'. It returns
// its bytes as hex.
func xaString(s string) (hexed, rest string, ok bool) {
	i := strings.IndexAny(s, `'"`)
	if zero := strings.Index(s, "0x"); zero >= 0 && (i < 0 || zero < i) && zero < len(s)-2 {
		digits := s[zero+2:]
		end := strings.IndexFunc(digits, func(c rune) bool { return (c < '0' || c > '9') && (c|32 < 'a' || c|32 > 'f') })
		if end < 0 {
			end = len(digits)
		}
		return digits[:end], digits[end:], true
	}
	if i < 0 {
		return "", s, false
	}
	quote := s[i]
	isHex := quote == '\'' && i > 0 && s[i-1]|32 == 'x'
	var b []byte
	for j := i + 1; j < len(s); j++ {
		switch {
		case s[j] == '\\' && j+1 < len(s):
			j++
			b = append(b, s[j])
		case s[j] == quote && j+1 < len(s) && s[j+1] == quote:
			j++
			b = append(b, quote)
		case s[j] == quote:
			if _, err := hex.DecodeString(string(b)); isHex && err == nil {
				return string(b), s[j+1:], true
			}
			return hex.EncodeToString(b), s[j+1:], true
		default:
			b = append(b, s[j])
		}
	}
	return "", s, false
}

func nameXA(gtrid, bqual string, format int) string {
	return strings.ToLower(gtrid + "-" + bqual + "-" + strconv.Itoa(format))
}

// preparedXID reads the name out of an XA_PREPARE_LOG_EVENT: format, two lengths, the bytes.
// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1XA__prepare__event.html
func preparedXID(body []byte) (string, error) {
	if len(body) < 13 {
		return "", fmt.Errorf("an XA prepare event of %d bytes: %w", len(body), event.ErrDamaged)
	}
	le := binary.LittleEndian
	format, gtrid, bqual := int32(le.Uint32(body[1:])), int64(le.Uint32(body[5:])), int64(le.Uint32(body[9:]))
	data := body[13:]
	if gtrid+bqual > int64(len(data)) {
		return "", fmt.Errorf("an XA prepare event of %d bytes: %w", len(body), event.ErrDamaged)
	}
	return nameXA(hex.EncodeToString(data[:gtrid]), hex.EncodeToString(data[gtrid:gtrid+bqual]), int(format)), nil
}

// prepare ends an XA transaction that may or may not commit later.
func (r *reader) prepare(body []byte) error {
	once, err := event.ReadXAPrepare(body)
	if err != nil {
		return err
	}
	t := &r.tx
	switch {
	case once || t.skip:
		return r.commit()
	case t.poison != "":
		return r.poisoned()
	}
	xid, err := preparedXID(body)
	if err != nil {
		return err
	}
	if !t.listed && t.chunks == 0 {
		r.wait(waitingXA{xid: xid, left: slices.Clone(t.left)})
		r.executed()
		r.closeTx()
		return nil
	}
	if t.listed {
		if t.first > 0 {
			if err := r.split(); err != nil {
				return err
			}
		}
		if err := r.chunkOut(false); err != nil {
			return err
		}
	}
	r.wait(waitingXA{xid, t.name, slices.Clone(t.left)})
	r.executed()
	b := r.told()
	b.Kind, b.Open, b.End = pipeline.BatchPrepared, t.name, r.end()
	if err := r.give(); err != nil {
		return err
	}
	r.closeTx()
	return nil
}

func (r *reader) wait(x waitingXA) {
	r.at.waiting = append(r.forgotten(x.xid), x)
}

// forgotten are the waiting transactions without one. The list is shared with positions of before: it is copied.
func (r *reader) forgotten(xid string) []waitingXA {
	return slices.DeleteFunc(slices.Clone(r.at.waiting), func(x waitingXA) bool { return x.xid == xid })
}

// finish ends a prepared XA transaction by its name.
func (r *reader) finish(text string, kind statement.Kind) error {
	t := &r.tx
	if !t.open || t.skip || len(t.touched) > 0 || t.listed || t.chunks > 0 {
		return r.commit()
	}
	xid := xidOf(text)
	i := slices.IndexFunc(r.at.waiting, func(x waitingXA) bool { return x.xid == xid })
	if i < 0 {
		if kind == statement.XACommit {
			t.notices = append(t.notices, pipeline.Notice{Kind: pipeline.NoticeGap, Code: codeXA, Table: "transactions", Position: r.place(), Time: time.UnixMicro(t.time).UTC(),
				Reason: "an XA transaction committed that was prepared before the log begins: its rows, if it has any, did not enter the log", Cure: pipeline.BringRows})
		}
		return r.commit()
	}
	open := r.at.waiting[i].open
	if kind == statement.XACommit {
		for _, n := range r.at.waiting[i].left {
			r.gap(n.Schema, n.Table, codeXA, "a transaction committed that was prepared while the table was quarantined: rows of it did not enter the log")
		}
	}
	if open == "" {
		r.at.waiting = r.forgotten(xid)
		return r.commit()
	}
	if len(r.b.Events) > 0 { // whole transactions before it
		r.b.End = r.end()
		if err := r.give(); err != nil {
			return err
		}
	}
	r.at.waiting = r.forgotten(xid)
	r.executed()
	b := r.told()
	b.Kind, b.Open = pipeline.BatchAbort, open
	if kind == statement.XACommit {
		tx := pipeline.Tx{Time: t.time, Ends: true}
		r.nameTx(b, &tx)
		b.Kind, b.Txs, b.End = pipeline.BatchCommit, append(b.Txs, tx), r.end()
	}
	if err := r.give(); err != nil {
		return err
	}
	r.closeTx()
	return nil
}
