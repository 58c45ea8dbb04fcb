package partition

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// ParseKey encodes the routing key that a JSON object names: {"id":42}, all routing columns of the table and
// no other. Texts are given as the database writes them. An error names the column and what is wanted.
func ParseKey(t *schemas.Table, text string) ([]byte, error) {
	var given map[string]json.RawMessage
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&given); err != nil || given == nil || d.More() {
		return nil, fmt.Errorf("key %q: want a JSON object of the routing columns of %s, as {\"id\":42}", text, t.Subject())
	}
	if len(t.Routing) == 0 {
		return nil, fmt.Errorf("table %s has no key: it is one range", t.Subject())
	}
	var key []byte
	for _, c := range t.Routing {
		col := &t.Columns[c]
		raw, ok := given[col.Name]
		if !ok {
			return nil, fmt.Errorf("the key lacks routing column %q of %s", col.Name, t.Subject())
		}
		delete(given, col.Name)
		v, err := jsonValue(raw, &col.Type)
		if err != nil {
			return nil, fmt.Errorf("column %q (%s): %w", col.Name, col.Type.Name, err)
		}
		if key, err = AppendValue(key, v, &col.Type); err != nil {
			return nil, fmt.Errorf("column %q: %w", col.Name, err)
		}
	}
	for name := range given {
		return nil, fmt.Errorf("%q is no routing column of %s", name, t.Subject())
	}
	return key, nil
}

func jsonValue(raw json.RawMessage, t *schemas.Type) (*cell.Value, error) {
	if string(raw) == "null" {
		return &cell.Value{State: cell.Null}, nil
	}
	v := &cell.Value{Kind: t.Kind}
	text := string(raw)
	if raw[0] == '"' { // numbers beyond what JSON's readers hold come as texts too
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, err
		}
	}
	var err error
	switch t.Kind {
	case schemas.KindInt:
		var n int64
		n, err = strconv.ParseInt(text, 10, 64)
		v.N = uint64(n)
	case schemas.KindUint:
		v.N, err = strconv.ParseUint(text, 10, 64)
	case schemas.KindBool:
		var b bool
		if b, err = strconv.ParseBool(text); b {
			v.N = 1
		}
	case schemas.KindDecimal:
		if _, err = strconv.ParseFloat(text, 64); err == nil {
			v.B = []byte(text)
		}
	case schemas.KindText:
		if raw[0] != '"' {
			return nil, fmt.Errorf("want a JSON string, not %s", raw)
		}
		v.B = []byte(text)
	default:
		return nil, fmt.Errorf("a key of this type cannot be named here")
	}
	if err != nil {
		return nil, fmt.Errorf("%s is no %s", raw, t.Name)
	}
	return v, nil
}

// KeyText shows an encoded key to people: the values that can be read back, x'…' for the rest (what is folded for a
// collation, decimals, times).
func KeyText(key []byte) string {
	if key == nil {
		return ""
	}
	var parts []string
	for len(key) > 0 {
		text, rest, ok := keyPart(key)
		if !ok {
			text, rest = "x'"+hex.EncodeToString(key)+"'", nil
		}
		parts, key = append(parts, text), rest
	}
	return strings.Join(parts, ",")
}

func keyPart(key []byte) (text string, rest []byte, ok bool) {
	tag, rest := key[0], key[1:]
	switch {
	case tag == tagNull:
		return "null", rest, true
	case tag == tagFalse || tag == tagFalse+1:
		return strconv.FormatBool(tag != tagFalse), rest, true
	case tag >= tagInt-maxIntBytes && tag <= tagInt+maxIntBytes:
		n, negative := int(tag)-tagInt, tag < tagInt
		if negative {
			n = -n
		}
		if len(rest) < n {
			return "", nil, false
		}
		var u uint64
		for _, c := range rest[:n] {
			if negative {
				c = ^c
			}
			u = u<<8 | uint64(c)
		}
		text = strconv.FormatUint(u, 10)
		if negative {
			text = "-" + text
		}
		return text, rest[n:], true
	case tag == tagText:
		var p []byte
		for {
			i := bytes.IndexByte(rest, terminator)
			if i < 0 {
				return "", nil, false
			}
			p = append(p, rest[:i]...)
			rest = rest[i+1:]
			if len(rest) == 0 || rest[0] != escapeNul {
				return strconv.Quote(string(p)), rest, true
			}
			p, rest = append(p, 0), rest[1:]
		}
	}
	return "", nil, false
}
