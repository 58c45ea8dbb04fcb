package my

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/leat-cdc/leat/sinks/table/target"
)

const (
	// mostBytes of the cells of one statement, mostRows of it, mostKeys of a DELETE: the server plans a range for each.
	mostBytes = 1 << 20
	mostRows  = 2000
	mostKeys  = 200
)

// Apply implements target.Server. The commit goes only when all is written, and what is written is locked by then: so
// that two attempts at the same rows are one behind the other, whatever became of the first one's connection.
func (s *Server) Apply(ctx context.Context, changes []*target.Change) error {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted}) // no locks on gaps, which two writers would wait for
	if err != nil {
		return fault(ctx, err)
	}
	for _, c := range changes {
		if err = s.change(ctx, tx, c); err != nil {
			break
		}
	}
	if err != nil {
		_ = tx.Rollback() // the first error says it
		return fault(ctx, err)
	}
	if err := tx.Commit(); err != nil {
		return fault(ctx, err)
	}
	return nil
}

func (s *Server) change(ctx context.Context, tx *sql.Tx, c *target.Change) error {
	most := mostRows
	switch c.Verb {
	case target.Update:
		return s.update(ctx, tx, c)
	case target.Delete:
		most = mostKeys
	}
	for from := 0; from < len(c.Rows); {
		to, size := from, 0
		for to < len(c.Rows) && to-from < most && (to == from || size < mostBytes) {
			for _, p := range c.Rows[to].Cells {
				size += len(p)
			}
			to++
		}
		text, args, err := s.text(c, c.Rows[from:to])
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, text, args...); err != nil {
			return another(err, c)
		}
		from = to
	}
	return nil
}

// another says that a key that was to become NULL (see updates) means another row.
func another(err error, c *target.Change) error {
	var e *mysql.MySQLError
	if c.Verb == target.Upsert && errors.As(err, &e) && e.Number == 1048 && strings.Contains(e.Message, "'"+c.Columns[0].Name+"'") {
		return &target.Fault{Kind: target.Conflict, Code: "1062", Text: says[1062]}
	}
	return err
}

// text of a statement that upserts or deletes rows.
func (s *Server) text(c *target.Change, rows []target.Row) (string, []any, error) {
	var b strings.Builder
	args := make([]any, 0, len(rows)*(len(c.Columns)+1))
	if c.Verb == target.Delete {
		b.WriteString("DELETE FROM " + s.Quoted(c.Name) + " WHERE ")
		one := "(" + match(c) + ")"
		for i := range rows {
			if i > 0 {
				b.WriteString(" OR ")
			}
			b.WriteString(one)
			for n := range c.Keys {
				args = append(args, argument(rows[i].Cells[n], &c.Columns[n]))
			}
			if c.Guard != "" {
				args = append(args, rows[i].Offset)
			}
		}
		return b.String(), args, nil
	}
	var names, marks []string
	for i := range c.Columns {
		names, marks = append(names, quote(c.Columns[i].Name)), append(marks, "?")
	}
	if c.Guard != "" {
		names, marks = append(names, quote(c.Guard)), append(marks, "?")
	}
	b.WriteString("INSERT INTO " + s.Quoted(c.Name) + " (" + strings.Join(names, ", ") + ") VALUES ")
	one := "(" + strings.Join(marks, ", ") + ")"
	for i := range rows {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(one)
		for n := range c.Columns {
			args = append(args, argument(rows[i].Cells[n], &c.Columns[n]))
		}
		if c.Guard != "" {
			args = append(args, rows[i].Offset)
		}
	}
	b.WriteString(" ON DUPLICATE KEY UPDATE " + updates(c))
	return b.String(), args, nil
}

// match is what a row of the key is found by.
func match(c *target.Change) string {
	var all []string
	for i := range c.Keys {
		all = append(all, quote(c.Columns[i].Name)+" = "+compared(&c.Columns[i]))
	}
	if c.Guard != "" {
		all = append(all, quote(c.Guard)+" <= ?")
	}
	return strings.Join(all, " AND ")
}

// updates is what happens to a row that is there. It is the server's idea that this be any row that has a value of any
// unique index; one of another key is refused by making that key NULL.
func updates(c *target.Change) string {
	var same []string
	for i := range c.Keys {
		k := quote(c.Columns[i].Name)
		same = append(same, fmt.Sprintf("%s <=> VALUES(%s)", k, k))
	}
	first := quote(c.Columns[0].Name)
	all := []string{fmt.Sprintf("%s = IF(%s, %s, NULL)", first, strings.Join(same, " AND "), first)}
	guard := quote(c.Guard)
	for _, col := range c.Columns[c.Keys:] {
		name := quote(col.Name)
		if c.Guard == "" {
			all = append(all, fmt.Sprintf("%s = VALUES(%s)", name, name))
			continue
		}
		all = append(all, fmt.Sprintf("%s = IF(%s <= VALUES(%s), VALUES(%s), %s)", name, guard, guard, name, name))
	}
	if c.Guard != "" { // last: the others look at it
		all = append(all, fmt.Sprintf("%s = GREATEST(%s, VALUES(%s))", guard, guard, guard))
	}
	return strings.Join(all, ", ")
}

// update writes rows of which not all columns came, one by one: in one statement each would need a default for the others.
func (s *Server) update(ctx context.Context, tx *sql.Tx, c *target.Change) error {
	var sets []string
	for _, col := range c.Columns[c.Keys:] {
		sets = append(sets, quote(col.Name)+" = ?")
	}
	if c.Guard != "" {
		sets = append(sets, quote(c.Guard)+" = ?")
	}
	key := *c
	key.Guard = ""
	for i := range c.Rows {
		r := &c.Rows[i]
		r.Missing = false
		var keys, values []any
		for n := range c.Columns {
			if n < c.Keys {
				keys = append(keys, argument(r.Cells[n], &c.Columns[n]))
			} else {
				values = append(values, argument(r.Cells[n], &c.Columns[n]))
			}
		}
		found := int64(0)
		if len(sets) > 0 {
			args := values
			if c.Guard != "" {
				args = append(args, r.Offset)
			}
			args = append(args, keys...)
			if c.Guard != "" {
				args = append(args, r.Offset)
			}
			done, err := tx.ExecContext(ctx, "UPDATE "+s.Quoted(c.Name)+" SET "+strings.Join(sets, ", ")+" WHERE "+match(c), args...)
			if err != nil {
				return err
			}
			if found, err = done.RowsAffected(); err != nil {
				return err
			}
		}
		if found > 0 {
			continue
		}
		one := 0
		err := tx.QueryRowContext(ctx, "SELECT 1 FROM "+s.Quoted(c.Name)+" WHERE "+match(&key), keys...).Scan(&one)
		if errors.Is(err, sql.ErrNoRows) {
			r.Missing = true
		} else if err != nil {
			return err
		}
	}
	return nil
}

// class of a column's type, for how a cell becomes an argument.
func class(to *target.Column) string {
	word := to.Type
	if i := strings.IndexAny(word, "( "); i >= 0 {
		word = word[:i]
	}
	switch word {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "bit", "year":
		return "number"
	case "decimal":
		return "decimal"
	case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
		"geomcollection", "geometrycollection", "vector":
		return "bytes"
	}
	return "text"
}

// argument of a statement: numbers as such, since as text they would be compared as floats.
func argument(cell []byte, to *target.Column) any {
	if cell == nil {
		return nil
	}
	switch class(to) {
	case "number":
		if n, err := strconv.ParseInt(string(cell), 10, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(string(cell), 10, 64); err == nil {
			return n
		}
	case "bytes":
		return cell
	}
	return string(cell)
}

// compared is the mark of an argument that is compared.
func compared(to *target.Column) string {
	if class(to) == "decimal" {
		return "CAST(? AS " + strings.TrimSuffix(strings.TrimSuffix(to.Type, " zerofill"), " unsigned") + ")"
	}
	return "?"
}

// page is how many rows are removed at once.
const page = 10_000

// Empty implements target.Server.
func (s *Server) Empty(ctx context.Context, name target.Name, guard string, offset uint64) (int, error) {
	older := ""
	if guard != "" {
		if offset > math.MaxInt64 {
			return 0, &target.Fault{Text: "the offset is out of range"}
		}
		older = fmt.Sprintf(" WHERE %s < %d", quote(guard), offset)
	}
	done, err := s.db.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s%s LIMIT %d", s.Quoted(name), older, page))
	if err != nil {
		return 0, fault(ctx, err)
	}
	n, err := done.RowsAffected()
	return int(n), err
}

// Try implements target.Server: EXPLAIN asks for the rights that the statement itself needs.
func (s *Server) Try(ctx context.Context, c *target.Change) error {
	row := target.Row{Cells: make([][]byte, len(c.Columns))}
	for i := range row.Cells {
		row.Cells[i] = []byte("0")
	}
	text, args, err := s.text(c, []target.Row{row})
	if err != nil {
		return err
	}
	rows, err := s.db.QueryContext(ctx, "EXPLAIN "+text, args...)
	if err != nil {
		return fault(ctx, err)
	}
	defer rows.Close()
	for rows.Next() {
	}
	if err := rows.Err(); err != nil {
		return fault(ctx, err)
	}
	return nil
}
