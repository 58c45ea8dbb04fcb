package pg

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/table/target"
)

// longestName of a table or column, in bytes: the server cuts longer ones without a word.
const longestName = 63

// Look implements target.Server.
func (s *Server) Look(ctx context.Context, name target.Name) (shape *target.Shape, err error) {
	err = s.with(ctx, func(c *pgconn.PgConn) error {
		shape = nil
		sh := &target.Shape{}
		there := false
		// A type with modifier -1 is written so that a cast to it neither cuts nor pads.
		err := query(ctx, c, `SELECT a.attname, pg_catalog.format_type(a.atttypid, -1), a.attgenerated <> '' FROM pg_catalog.pg_class t
			LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
			WHERE t.oid = to_regclass($1) AND t.relkind IN ('r', 'p', 'v', 'f') ORDER BY a.attnum`, func(v [][]byte) error {
			if there = true; v[0] != nil {
				sh.Columns = append(sh.Columns, target.Column{Name: string(v[0]), Type: string(v[1]), Generated: string(v[2]) == "t"})
			}
			return nil
		}, s.Quoted(name))
		if err != nil || !there {
			return err
		}
		index := ""
		err = query(ctx, c, `SELECT i.indexrelid, a.attname FROM pg_catalog.pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(n, at)
			JOIN pg_catalog.pg_attribute a ON a.attnum = k.n WHERE i.indrelid = to_regclass($1) AND a.attrelid = i.indrelid AND k.at <= i.indnkeyatts
			AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL ORDER BY 1, k.at`, func(v [][]byte) error {
			if n := len(sh.Uniques); n == 0 || index != string(v[0]) {
				index, sh.Uniques = string(v[0]), append(sh.Uniques, nil)
			}
			last := &sh.Uniques[len(sh.Uniques)-1]
			*last = append(*last, string(v[1]))
			return nil
		}, s.Quoted(name))
		shape = sh
		return err
	})
	return shape, err
}

// Create implements target.Server.
func (s *Server) Create(ctx context.Context, name target.Name, fields []target.Field, guard string) error {
	if err := tooLong(name.Schema, name.Table); err != nil {
		return err
	}
	if name.Schema != "" {
		there := false
		err := s.with(ctx, func(c *pgconn.PgConn) error {
			return query(ctx, c, "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1", func([][]byte) error { there = true; return nil }, name.Schema)
		})
		if err == nil && !there {
			err = s.exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+quote(name.Schema))
		}
		if err != nil {
			return err
		}
	}
	var lines, keys []string
	for i := range fields {
		line, err := s.define(ctx, &fields[i])
		if err != nil {
			return err
		}
		if fields[i].Key {
			line += " NOT NULL"
			keys = append(keys, quote(fields[i].Name))
		}
		lines = append(lines, line)
	}
	if guard != "" {
		lines = append(lines, guardColumn(guard))
	}
	lines = append(lines, "PRIMARY KEY ("+strings.Join(keys, ", ")+")")
	return s.exec(ctx, "CREATE TABLE IF NOT EXISTS "+s.Quoted(name)+" ("+strings.Join(lines, ", ")+")")
}

func guardColumn(name string) string { return quote(name) + " bigint NOT NULL DEFAULT 0" }

// Add implements target.Server.
func (s *Server) Add(ctx context.Context, name target.Name, fields []target.Field, guard string) error {
	var lines []string
	for i := range fields {
		line, err := s.define(ctx, &fields[i])
		if err != nil {
			return err
		}
		lines = append(lines, "ADD COLUMN IF NOT EXISTS "+line)
	}
	if guard != "" {
		lines = append(lines, "ADD COLUMN IF NOT EXISTS "+guardColumn(guard))
	}
	// It locks out readers and writers while it waits for those before it: not for long. Both are one transaction.
	return s.with(ctx, func(c *pgconn.PgConn) error {
		_, err := c.Exec(ctx, "SET LOCAL lock_timeout = '2s'; ALTER TABLE "+s.Quoted(name)+" "+strings.Join(lines, ", ")).ReadAll()
		return err
	})
}

func tooLong(names ...string) error {
	for _, n := range names {
		if len(n) > longestName {
			return &target.Fault{Kind: target.Away, Text: fmt.Sprintf("the name %s is longer than PostgreSQL's %d bytes", n, longestName)}
		}
	}
	return nil
}

// define is a column in CREATE TABLE.
func (s *Server) define(ctx context.Context, f *target.Field) (string, error) {
	if err := tooLong(f.Name); err != nil {
		return "", err
	}
	name := typeOf(f.Type)
	if f.Native == schemas.WirePGText && f.Type.Name != "" {
		// The type may be the source's own, which is not there.
		known := false
		err := s.with(ctx, func(c *pgconn.PgConn) error {
			return query(ctx, c, "SELECT to_regtype($1) IS NOT NULL", func(v [][]byte) error { known = string(v[0]) == "t"; return nil }, f.Type.Name)
		})
		if err != nil {
			return "", err
		}
		if name = "text"; known {
			name = f.Type.Name
		}
	}
	return quote(f.Name) + " " + name, nil
}

// typeOf is the type that holds all values of another database's, or of what a mapping made.
func typeOf(t *schemas.Type) string {
	switch t.Kind {
	case schemas.KindBool:
		return "boolean"
	case schemas.KindInt, schemas.KindUint:
		bits := t.Bits
		if t.Kind == schemas.KindUint {
			bits++ // the sign
		}
		switch {
		case bits <= 16:
			return "smallint"
		case bits <= 32:
			return "integer"
		case bits <= 64:
			return "bigint"
		}
		return "numeric(20,0)"
	case schemas.KindDecimal:
		if t.Precision > 0 {
			return fmt.Sprintf("numeric(%d,%d)", t.Precision, t.Scale)
		}
		return "numeric"
	case schemas.KindFloat:
		if t.Bits == 32 {
			return "real"
		}
		return "double precision"
	case schemas.KindBytes:
		return "bytea"
	case schemas.KindBits:
		if t.Length > 0 {
			return fmt.Sprintf("bit(%d)", t.Length)
		}
		return "bit varying"
	case schemas.KindJSON:
		return "jsonb"
	case schemas.KindDate:
		return "date"
	case schemas.KindTime:
		return "interval" // MySQL's: negative, beyond a day
	case schemas.KindDateTime:
		return "timestamp without time zone"
	case schemas.KindTimestamp:
		return "timestamp with time zone"
	case schemas.KindVector:
		return "real[]"
	}
	return "text"
}

// Raw implements target.Server.
func (s *Server) Raw(w schemas.Wire) bool { return w == schemas.WirePGText }

// Append implements target.Server: the type's text form.
func (s *Server) Append(dst []byte, v *cell.Value, to *target.Column, scratch *cell.Scratch) ([]byte, error) {
	switch v.Kind {
	case schemas.KindBool:
		return strconv.AppendUint(dst, v.N, 10), nil
	case schemas.KindBytes:
		if to.Type != "bytea" {
			return append(dst, v.B...), nil
		}
		const hex = "0123456789abcdef"
		dst = slices.Grow(dst, 2+2*len(v.B))
		dst = append(dst, '\\', 'x')
		for _, b := range v.B {
			dst = append(dst, hex[b>>4], hex[b&15])
		}
		return dst, nil
	case schemas.KindVector:
		open, end := byte('['), byte(']')
		if strings.HasSuffix(to.Type, "[]") {
			open, end = '{', '}'
		}
		dst = append(dst, open)
		for i := range v.Elems {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendFloat(dst, v.Elems[i].Float(), 'g', -1, 32)
		}
		return append(dst, end), nil
	}
	text, err := encode.TextOf(v, scratch)
	return append(dst, text...), err
}

// Check implements target.Server.
func (s *Server) Check(ctx context.Context) (found []pipeline.Finding) {
	var readonly, version string
	err := s.with(ctx, func(c *pgconn.PgConn) error {
		return query(ctx, c, "SELECT current_setting('transaction_read_only'), current_setting('server_version_num')", func(v [][]byte) error {
			readonly, version = string(v[0]), string(v[1])
			return nil
		})
	})
	switch n, _ := strconv.Atoi(version); {
	case err != nil:
		return target.Unreachable(err)
	case readonly == "on":
		found = append(found, pipeline.Finding{Level: "error", Code: "read_only", What: "the target is read-only (a standby, or default_transaction_read_only)", Cure: "name the primary in url, as by several hosts and target_session_attrs=read-write"})
	case n < 110000:
		found = append(found, pipeline.Finding{Level: "warning", Code: "version", What: "the target is older than PostgreSQL 11", Cure: "upgrade it: nothing older is tried"})
	}
	return found
}
