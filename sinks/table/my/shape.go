package my

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/table/target"
)

// Look implements target.Server.
func (s *Server) Look(ctx context.Context, name target.Name) (*target.Shape, error) {
	sh := &target.Shape{}
	err := s.each(ctx, func(v []sql.NullString) {
		sh.Columns = append(sh.Columns, target.Column{Name: v[0].String, Type: strings.ToLower(v[1].String), Generated: v[2].String != "", Merges: merges(strings.ToLower(v[1].String), v[3].String)})
	}, "SELECT column_name, column_type, COALESCE(generation_expression, ''), collation_name FROM information_schema.columns WHERE table_schema = COALESCE(NULLIF(?, ''), DATABASE()) AND table_name = ? ORDER BY ordinal_position", name.Schema, name.Table)
	if err != nil || len(sh.Columns) == 0 {
		return nil, err
	}
	index, partial := "", map[int]bool{}
	err = s.each(ctx, func(v []sql.NullString) {
		if n := len(sh.Uniques); n == 0 || index != v[0].String {
			index, sh.Uniques = v[0].String, append(sh.Uniques, nil)
		}
		n := len(sh.Uniques) - 1
		partial[n] = partial[n] || v[2].Valid || !v[1].Valid || v[3].String == "YES" // of a part of the column, of an expression, or it lets NULL in: see updates
		sh.Uniques[n] = append(sh.Uniques[n], v[1].String)
	}, "SELECT index_name, column_name, sub_part, nullable FROM information_schema.statistics WHERE table_schema = COALESCE(NULLIF(?, ''), DATABASE()) AND table_name = ? AND non_unique = 0 ORDER BY index_name, seq_in_index", name.Schema, name.Table)
	for n := range partial {
		if partial[n] {
			sh.Uniques[n] = nil
		}
	}
	return sh, err
}

// each calls row with each row of an answer.
func (s *Server) each(ctx context.Context, row func([]sql.NullString), query string, args ...any) error {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return fault(ctx, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return fault(ctx, err)
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fault(ctx, err)
		}
		row(values)
	}
	if err := rows.Err(); err != nil {
		return fault(ctx, err)
	}
	return nil
}

// Create implements target.Server.
func (s *Server) Create(ctx context.Context, name target.Name, fields []target.Field, guard string) error {
	if name.Schema != "" {
		there := false
		err := s.each(ctx, func([]sql.NullString) { there = true }, "SELECT 1 FROM information_schema.schemata WHERE schema_name = ?", name.Schema)
		if err == nil && !there {
			if _, err = s.db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+quote(name.Schema)+" CHARACTER SET utf8mb4"); err != nil {
				err = fault(ctx, err)
			}
		}
		if err != nil {
			return err
		}
	}
	lines, err := s.define(ctx, "", fields, guard)
	if err != nil {
		return err
	}
	var keys []string
	for i := range fields {
		if fields[i].Key {
			keys = append(keys, quote(fields[i].Name))
		}
	}
	lines = append(lines, "PRIMARY KEY ("+strings.Join(keys, ", ")+")")
	if _, err := s.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+s.Quoted(name)+" ("+strings.Join(lines, ", ")+") CHARACTER SET utf8mb4"); err != nil {
		return fault(ctx, err)
	}
	return nil
}

// Add implements target.Server.
func (s *Server) Add(ctx context.Context, name target.Name, fields []target.Field, guard string) error {
	lines, err := s.define(ctx, "ADD COLUMN ", fields, guard)
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "ALTER TABLE "+s.Quoted(name)+" "+strings.Join(lines, ", "))
	var f *target.Fault
	if err != nil {
		err = fault(ctx, err)
	}
	if errors.As(err, &f) && f.Code == "1060" { // somebody else added it: what is there is looked at again
		return nil
	}
	return err
}

// define is what CREATE and ALTER TABLE have for columns.
func (s *Server) define(ctx context.Context, before string, fields []target.Field, guard string) (lines []string, err error) {
	mariadb, err := s.isMariaDB(ctx)
	if err != nil {
		return nil, err
	}
	texts := 0
	for i := range fields {
		if fields[i].Key && (fields[i].Type.Kind == schemas.KindText || fields[i].Type.Kind == schemas.KindUnknown || fields[i].Type.Kind == schemas.KindBytes || fields[i].Type.Kind == schemas.KindDecimal) {
			texts++
		}
	}
	for i := range fields {
		f := &fields[i]
		name, ok := "", false
		if f.Native == schemas.WireBinlog {
			if name, ok, err = s.native(ctx, f.Type, mariadb); err != nil {
				return nil, err
			}
		}
		if !ok {
			name = typeOf(f, texts, mariadb)
		}
		null := " NULL"
		if f.Key {
			null = " NOT NULL"
		}
		lines = append(lines, before+quote(f.Name)+" "+name+null)
	}
	if guard != "" {
		lines = append(lines, before+quote(guard)+" bigint unsigned NOT NULL DEFAULT 0 INVISIBLE")
	}
	return lines, nil
}

// native is a type as a MySQL or MariaDB wrote it, where this server has it too.
func (s *Server) native(ctx context.Context, t *schemas.Type, mariadb bool) (name string, ok bool, err error) {
	word, _, _ := strings.Cut(t.Name, "(")
	switch word {
	case "", "uuid", "inet4", "inet6", "vector":
		return t.Name, mariadb && word != "", nil
	}
	if t.Kind != schemas.KindText || t.Collation == "" || strings.HasPrefix(word, "json") {
		return t.Name, true, nil
	}
	charset := ""
	err = s.each(ctx, func(v []sql.NullString) { charset = v[0].String }, "SELECT character_set_name FROM information_schema.collations WHERE collation_name = ?", t.Collation)
	if err != nil {
		return "", false, err
	}
	if charset == "" { // of the other kind of server, or of a newer one
		return t.Name + " CHARACTER SET utf8mb4 COLLATE " + exact(mariadb), true, nil
	}
	return t.Name + " CHARACTER SET " + charset + " COLLATE " + t.Collation, true, nil
}

// merges is the collation of a column, if texts that differ are equal by it: in case, accents or spaces at the end.
func merges(typ, collation string) string {
	if strings.HasPrefix(typ, "enum") || strings.HasPrefix(typ, "set") || strings.HasSuffix(collation, "_nopad_bin") || strings.HasSuffix(collation, "_0900_bin") {
		return ""
	}
	return collation
}

// exact is the collation that holds no two texts equal.
func exact(mariadb bool) string {
	if mariadb {
		return "utf8mb4_nopad_bin"
	}
	return "utf8mb4_0900_bin"
}

// longestKey is what an index takes of all columns, in bytes.
const longestKey = 3072

// typeOf is the type that holds all values of another database's, or of what a mapping made. texts is how many columns
// of the key have no length of their own.
func typeOf(f *target.Field, texts int, mariadb bool) string {
	t := f.Type
	switch t.Kind {
	case schemas.KindBool:
		return "tinyint(1)"
	case schemas.KindInt, schemas.KindUint:
		name := map[uint8]string{8: "tinyint", 16: "smallint", 24: "mediumint", 32: "int"}[t.Bits]
		if name == "" {
			name = "bigint"
		}
		if t.Kind == schemas.KindUint {
			name += " unsigned"
		}
		return name
	case schemas.KindDecimal:
		if t.Precision > 0 && t.Precision <= 65 && t.Scale <= 30 && t.Scale <= t.Precision {
			return fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale)
		}
	case schemas.KindFloat:
		if t.Bits == 32 {
			return "float"
		}
		return "double"
	case schemas.KindBytes:
		if f.Key {
			return fmt.Sprintf("varbinary(%d)", min(1024, longestKey/2/max(1, texts)))
		}
		return "longblob"
	case schemas.KindBits:
		if t.Length > 0 && t.Length <= 64 {
			return fmt.Sprintf("bit(%d)", t.Length)
		}
	case schemas.KindJSON, schemas.KindArray, schemas.KindVector:
		return "json"
	case schemas.KindDate:
		return "date"
	case schemas.KindTime:
		return "time(6)"
	case schemas.KindDateTime, schemas.KindTimestamp:
		return "datetime(6)"
	}
	text := " CHARACTER SET utf8mb4 COLLATE " + exact(mariadb)
	switch {
	case f.Key:
		return fmt.Sprintf("varchar(%d)", min(384, longestKey/2/4/max(1, texts))) + text
	case t.Length > 0 && t.Length <= 255:
		return fmt.Sprintf("varchar(%d)", t.Length) + text
	}
	return "longtext" + text
}

// Raw implements target.Server.
func (s *Server) Raw(schemas.Wire) bool { return false }

// Append implements target.Server: the text of a literal, for columns of bytes the bytes, for bits their number.
func (s *Server) Append(dst []byte, v *cell.Value, to *target.Column, scratch *cell.Scratch) ([]byte, error) {
	switch v.Kind {
	case schemas.KindBool:
		return strconv.AppendUint(dst, v.N, 10), nil
	case schemas.KindBytes:
		return append(dst, v.B...), nil
	case schemas.KindBits:
		if n, err := strconv.ParseUint(string(v.B), 2, 64); err == nil && class(to) == "number" {
			return strconv.AppendUint(dst, n, 10), nil
		}
	case schemas.KindVector:
		if class(to) == "bytes" {
			for i := range v.Elems {
				dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(v.Elems[i].Float())))
			}
			return dst, nil
		}
	}
	text, err := encode.TextOf(v, scratch)
	if v.Kind == schemas.KindTimestamp {
		text = []byte(strings.TrimSuffix(string(text), "Z")) // the session's zone
	}
	if err == nil && class(to) == "text" && !utf8.Valid(text) {
		err = errors.New("text is not valid UTF-8")
	}
	return append(dst, text...), err
}

// Check implements target.Server.
func (s *Server) Check(ctx context.Context) (found []pipeline.Finding) {
	var readonly, version string
	err := s.each(ctx, func(v []sql.NullString) { readonly, version = v[0].String, v[1].String }, "SELECT @@global.read_only, VERSION()")
	if err != nil {
		return target.Unreachable(err)
	}
	if slices.Contains([]string{"1", "ON"}, readonly) {
		found = append(found, pipeline.Finding{Level: "error", Code: "read_only", What: "the target " + version + " is read-only", Cure: "name the primary in url"})
	}
	return found
}
