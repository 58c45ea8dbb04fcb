package verify

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// Dialect writes conditions in a database's own language.
type Dialect uint8

const (
	// PostgreSQL quotes names with " and binary values as \x.
	PostgreSQL Dialect = iota
	// MySQL is MariaDB too.
	MySQL
)

// maxCondition bounds one condition, in bytes.
const maxCondition = 8 << 10

// Conditions returns conditions that choose the listed rows which the source has, for a backfill of just those.
// Rows whose key cannot be written as a condition are left out, and counted.
func (r *TableReport) Conditions(d Dialect) (all []string, left int) {
	var now strings.Builder
	for _, diff := range r.Differences {
		if diff.Kind == "extra" {
			continue
		}
		c, err := d.condition(r.shape, diff.Key)
		if err != nil {
			left++
			continue
		}
		if now.Len() > 0 && now.Len()+len(c) > maxCondition {
			all = append(all, now.String())
			now.Reset()
		}
		if now.Len() > 0 {
			now.WriteString(" OR ")
		}
		now.WriteString(c)
	}
	if now.Len() > 0 {
		all = append(all, now.String())
	}
	return all, left
}

// condition chooses the row of a key, which is JSON as in events.
func (d Dialect) condition(t *schemas.Table, key string) (string, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(key), &values); err != nil || len(values) == 0 || t == nil {
		return "", fmt.Errorf("key %s: not an object of columns", key)
	}
	var parts []string
	for _, i := range t.Identity {
		c := &t.Columns[i]
		raw, ok := values[c.Name]
		if !ok {
			return "", fmt.Errorf("key %s: lacks column %q", key, c.Name)
		}
		literal, err := d.literal(raw, &c.Type)
		if err != nil {
			return "", err
		}
		parts = append(parts, d.quote(c.Name)+" = "+literal)
	}
	return "(" + strings.Join(parts, " AND ") + ")", nil
}

func (d Dialect) quote(name string) string {
	q := `"`
	if d == MySQL {
		q = "`"
	}
	return q + strings.ReplaceAll(name, q, q+q) + q
}

// exact are the kinds whose JSON, with or without quotes, is a number in SQL too.
var exact = []schemas.Kind{schemas.KindInt, schemas.KindUint, schemas.KindDecimal, schemas.KindFloat}

// literal writes a value; a comparison with it finds what events show as that value.
func (d Dialect) literal(raw json.RawMessage, t *schemas.Type) (string, error) {
	text := strings.TrimSpace(string(raw))
	if text == "null" {
		return "", fmt.Errorf("a key with NULL")
	}
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", err
		}
	}
	switch {
	case slices.Contains(exact, t.Kind) && strings.Trim(text, "0123456789.eE+-") == "":
		return text, nil
	case t.Kind == schemas.KindBool && (text == "true" || text == "false"):
		return text, nil
	case t.Kind == schemas.KindBytes:
		var b []byte
		if err := json.Unmarshal(raw, &b); err != nil {
			return "", err
		}
		if d == MySQL {
			return "x'" + hex.EncodeToString(b) + "'", nil
		}
		return `'\x` + hex.EncodeToString(b) + `'`, nil
	case d == MySQL: // hexadecimal, whatever sql_mode says of backslashes
		if text == "" {
			return "''", nil
		}
		return "convert(x'" + hex.EncodeToString([]byte(text)) + "' using utf8mb4)", nil
	case strings.ContainsAny(text, "\\\x00"):
		return " E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'", nil
	}
	return "'" + strings.ReplaceAll(text, "'", "''") + "'", nil
}
