package mysql

import (
	"fmt"
	"strings"

	"github.com/leat-cdc/leat/schemas/cell/binlog/charset"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// query reads a statement that the server logged as text.
func (r *reader) query(h event.Header, body []byte) error {
	var q event.Statement
	var err error
	if h.Type == event.ExecuteLoadQuery {
		q, err = event.ReadExecuteLoad(body)
	} else {
		q, err = event.ReadQuery(body)
	}
	if err != nil {
		return err
	}
	if h.Type == event.MariaQueryCompressed {
		if q.Text, err = r.inflate.Inflate(q.Text, maxEvent); err != nil {
			return err
		}
	}
	if q.Begins() { // in front of each of MySQL's transactions
		r.body(h)
		return nil
	}
	text := r.text(q.Text, q.Collation)
	return r.statement(h, &q, text, statement.Read(text, r.options(&q)))
}

// body tells that row events and a commit follow.
func (r *reader) body(h event.Header) {
	if !r.tx.open {
		r.startTx(h)
	}
	r.tx.body = true
}

func (r *reader) options(q *event.Statement) statement.Options {
	o := statement.Options{Version: r.srv.number, MariaDB: r.srv.mariadb, Fold: r.srv.fold}
	if q != nil {
		o.Schema = string(q.Schema)
		o.ANSIQuotes, o.NoBackslash = q.Mode&event.ModeANSIQuotes != 0, q.Mode&event.ModeNoBackslashEscapes != 0
	}
	return o
}

func (r *reader) statement(h event.Header, q *event.Statement, text string, s statement.Statement) error {
	switch s.Kind {
	case statement.Begin, statement.XAStart:
		r.body(h)
		return nil
	case statement.Commit:
		return r.commit()
	case statement.XACommit, statement.XARollback:
		return r.finish(text, s.Kind)
	case statement.Rollback:
		return r.rollback()
	case statement.RollbackTo:
		if len(r.tx.touched) > 0 {
			r.tx.poison = "a part of a transaction was rolled back to a savepoint, beside tables without transactions: the binlog does not say which of its rows stayed"
		}
		return nil
	case statement.Savepoint, statement.XAEnd:
		return nil
	}
	if !r.tx.open {
		r.startTx(h)
	}
	if !r.tx.skip {
		if err := r.effect(q, text, s); err != nil {
			return err
		}
	}
	if s.Opens {
		r.tx.body = true
	}
	if !r.tx.body {
		return r.commit()
	}
	return nil
}

// effect does what a statement means for the tables that it touches.
func (r *reader) effect(q *event.Statement, text string, s statement.Statement) error {
	switch s.Kind {
	case statement.Change:
		for _, n := range s.Tables {
			r.changed(q.Thread, n)
		}
		return nil
	case statement.Opaque:
		reason := fmt.Sprintf("a statement was logged as text that may change any table (%s)", firstWords(text))
		r.src.cfg.Observer.Warned("source "+r.src.cfg.Name, reason, cureStatement)
		r.quarantineAll(reason)
		return nil
	case statement.Truncate:
		return r.truncated(s.Tables)
	}
	r.look.noteAll(s, touch{r.file, r.pos, text, s.Kind})
	return r.define(q, text, s)
}

// firstWords is the head of a statement, without what may be secret in it.
func firstWords(text string) string {
	words := strings.Fields(text)
	if len(words) > 3 {
		words = append(words[:3], "…")
	}
	head := strings.Join(words, " ")
	if len(head) > 100 {
		head = head[:100] + "…"
	}
	return head
}

// changed quarantines a table whose rows a statement changed.
func (r *reader) changed(thread uint32, n statement.Name) {
	if r.temps[tempTable{thread, n}] {
		return
	}
	r.quarantine(n.Schema, n.Table, codeStatement, "rows were changed by a statement that was logged as text, without row events", cureStatement)
}

// tempTable is a temporary table of one session.
type tempTable struct {
	thread uint32
	name   statement.Name
}

// maxTemps bounds what is remembered; a forgotten one quarantines a table of its name.
const maxTemps = 1 << 16

func (r *reader) temporary(thread uint32, s statement.Statement) {
	for _, n := range s.Tables {
		key := tempTable{thread, n}
		if s.Kind == statement.Drop {
			delete(r.temps, key)
		} else if len(r.temps) < maxTemps {
			r.temps[key] = true
		}
	}
}

// text turns a statement into UTF-8. The names in it must be the table maps' names, and in some
// character sets a byte of a character looks like a quote.
func (r *reader) text(b []byte, collation uint16) string {
	if ascii(b) || collation == 0 {
		return string(b)
	}
	_, name, err := charset.Collation(uint64(collation))
	if err != nil {
		return string(b)
	}
	convert, err := charset.Of(name)
	if err != nil {
		return string(b)
	}
	if u, err := convert(nil, b); err == nil {
		return string(u)
	}
	return string(b)
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
