package pg

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/sinks/table/target"
)

const (
	oidText   = 25
	oidBigint = 20
)

// statement is one that writes a Change, and what it reads.
type statement struct {
	sql    string
	values [][]byte
	change *target.Change // of one that returns which rows are missing; else nil
}

// Apply implements target.Server. The commit goes only when all is written, and what is written is locked by then: so
// that two attempts at the same rows are one behind the other, whatever became of the first one's connection.
func (s *Server) Apply(ctx context.Context, changes []*target.Change) error {
	var all []statement
	for _, c := range changes {
		all = append(all, s.statements(c)...)
	}
	return s.with(ctx, func(c *pgconn.PgConn) error {
		b := &pgconn.Batch{}
		b.ExecParams("BEGIN ISOLATION LEVEL READ COMMITTED", nil, nil, nil, nil)
		b.ExecParams("SET LOCAL idle_in_transaction_session_timeout = 60000", nil, nil, nil, nil) // where this machine is gone
		for i := range all {
			formats := make([]int16, len(all[i].values))
			for n := range formats {
				formats[n] = 1
			}
			b.ExecParams(all[i].sql, all[i].values, nil, formats, nil)
		}
		if err := read(c.ExecBatch(ctx, b), all); err != nil {
			if !c.IsClosed() {
				_ = query(ctx, c, "ROLLBACK", nil) // a connection that is left in a transaction is not used again
			}
			return err
		}
		committed := false
		r := c.Exec(ctx, "COMMIT")
		for r.NextResult() {
			tag, _ := r.ResultReader().Close()
			committed = tag.String() == "COMMIT"
		}
		if err := r.Close(); err != nil {
			return err
		}
		if !committed {
			return errors.New("the transaction was not committed")
		}
		return nil
	})
}

func read(r *pgconn.MultiResultReader, all []statement) error {
	for n := -2; r.NextResult(); n++ { // behind BEGIN and SET
		rows := r.ResultReader()
		for rows.NextRow() {
			if n < 0 || all[n].change == nil {
				continue
			}
			i, err := strconv.Atoi(string(rows.Values()[0]))
			if change := all[n].change; err == nil && i >= 1 && i <= len(change.Rows) {
				change.Rows[i-1].Missing = true
			}
		}
		if _, err := rows.Close(); err != nil {
			_ = r.Close() // the same error
			return err
		}
	}
	return r.Close()
}

// statements that write a change.
func (s *Server) statements(c *target.Change) []statement {
	write := statement{sql: s.text(c)}
	for i := range c.Columns {
		write.values = append(write.values, array(c.Rows, i))
	}
	if c.Guard != "" {
		write.values = append(write.values, offsets(c.Rows))
	}
	if c.Verb != target.Update {
		return []statement{write}
	}
	for i := range c.Rows {
		c.Rows[i].Missing = false
	}
	return []statement{write, {sql: s.missing(c), values: write.values[:c.Keys], change: c}}
}

// text of the statement. The casts are to types without length, so that what is too long is refused and not cut.
func (s *Server) text(c *target.Change) string {
	var from, names, casts, sets, match []string
	arrays := make([]string, 0, len(c.Columns)+1)
	for i := range c.Columns {
		col := &c.Columns[i]
		v := fmt.Sprintf("v.c%d::%s", i, col.Type)
		arrays, from = append(arrays, fmt.Sprintf("$%d::text[]", i+1)), append(from, fmt.Sprintf("c%d", i))
		names, casts = append(names, quote(col.Name)), append(casts, v)
		switch {
		case i < c.Keys:
			match = append(match, "t."+quote(col.Name)+" = "+v)
		case c.Verb == target.Upsert:
			sets = append(sets, quote(col.Name)+" = excluded."+quote(col.Name))
		default:
			sets = append(sets, quote(col.Name)+" = "+v)
		}
	}
	if c.Guard != "" {
		g := quote(c.Guard)
		arrays, from = append(arrays, fmt.Sprintf("$%d::bigint[]", len(c.Columns)+1)), append(from, "o")
		match = append(match, "t."+g+" <= v.o")
		names, casts = append(names, g), append(casts, "v.o")
		if c.Verb == target.Upsert {
			sets = append(sets, g+" = excluded."+g)
		} else {
			sets = append(sets, g+" = v.o")
		}
	}
	list := func(of []string) string { return strings.Join(of, ", ") }
	rows := "unnest(" + list(arrays) + ") AS v(" + list(from) + ")"
	table := s.Quoted(c.Name)
	switch c.Verb {
	case target.Delete:
		return "DELETE FROM " + table + " AS t USING " + rows + " WHERE " + strings.Join(match, " AND ")
	case target.Update:
		if len(sets) == 0 {
			return "SELECT 1 FROM " + rows + " WHERE false"
		}
		return "UPDATE " + table + " AS t SET " + list(sets) + " FROM " + rows + " WHERE " + strings.Join(match, " AND ")
	}
	sql := "INSERT INTO " + table + " AS t (" + list(names) + ") OVERRIDING SYSTEM VALUE SELECT " + list(casts) + " FROM " + rows +
		" ON CONFLICT (" + list(names[:c.Keys]) + ") DO "
	if len(sets) == 0 {
		return sql + "NOTHING"
	}
	sql += "UPDATE SET " + list(sets)
	if c.Guard != "" {
		sql += " WHERE t." + quote(c.Guard) + " <= excluded." + quote(c.Guard)
	}
	return sql
}

// missing asks which rows, counted from 1, there are not.
func (s *Server) missing(c *target.Change) string {
	var arrays, from, match []string
	for i := range c.Keys {
		arrays, from = append(arrays, fmt.Sprintf("$%d::text[]", i+1)), append(from, fmt.Sprintf("c%d", i))
		match = append(match, fmt.Sprintf("t.%s = v.c%d::%s", quote(c.Columns[i].Name), i, c.Columns[i].Type))
	}
	return "SELECT v.n::text FROM unnest(" + strings.Join(arrays, ", ") + ") WITH ORDINALITY AS v(" + strings.Join(from, ", ") + ", n) WHERE NOT EXISTS (SELECT FROM " +
		s.Quoted(c.Name) + " AS t WHERE " + strings.Join(match, " AND ") + ")"
}

// head of a one-dimensional array in binary form.
func head(elem uint32, n int, nulls bool) []byte {
	p := make([]byte, 20, 20+16*n)
	binary.BigEndian.PutUint32(p, 1)
	if nulls {
		p[7] = 1
	}
	binary.BigEndian.PutUint32(p[8:], elem)
	binary.BigEndian.PutUint32(p[12:], uint32(n))
	binary.BigEndian.PutUint32(p[16:], 1)
	if n == 0 {
		return append(make([]byte, 8), p[8:12]...)
	}
	return p
}

func array(rows []target.Row, column int) []byte {
	size, nulls := 0, false
	for i := range rows {
		size, nulls = size+4+len(rows[i].Cells[column]), nulls || rows[i].Cells[column] == nil
	}
	p := append(make([]byte, 0, 20+size), head(oidText, len(rows), nulls)...)
	for i := range rows {
		if c := rows[i].Cells[column]; c == nil {
			p = append(p, 0xff, 0xff, 0xff, 0xff)
		} else {
			p = append(binary.BigEndian.AppendUint32(p, uint32(len(c))), c...)
		}
	}
	return p
}

func offsets(rows []target.Row) []byte {
	p := head(oidBigint, len(rows), false)
	for i := range rows {
		p = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(p, 8), rows[i].Offset)
	}
	return p
}

// page is how many rows are removed at once.
const page = 20_000

// Empty implements target.Server.
func (s *Server) Empty(ctx context.Context, name target.Name, guard string, offset uint64) (removed int, err error) {
	older := ""
	if guard != "" {
		older = fmt.Sprintf(" WHERE %s < %d", quote(guard), offset)
	}
	table := s.Quoted(name)
	err = s.with(ctx, func(c *pgconn.PgConn) error {
		r := c.ExecParams(ctx, fmt.Sprintf("DELETE FROM %s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %s%s LIMIT %d))", table, table, older, page), nil, nil, nil, nil)
		tag, err := r.Close()
		removed = int(tag.RowsAffected())
		return err
	})
	return removed, err
}

// Try implements target.Server: EXPLAIN asks for the rights that the statement itself needs.
func (s *Server) Try(ctx context.Context, c *target.Change) error {
	return s.with(ctx, func(conn *pgconn.PgConn) error {
		for _, st := range s.statements(c) {
			formats := make([]int16, len(st.values))
			for n := range formats {
				formats[n] = 1
			}
			if _, err := conn.ExecParams(ctx, "EXPLAIN "+st.sql, st.values, nil, formats, nil).Close(); err != nil {
				return err
			}
		}
		return nil
	})
}
