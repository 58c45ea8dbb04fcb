package config

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// Contract is a schema that the rows of a subscription must go with. A table
// that does not is held back, for this subscription alone.
type Contract struct {
	// The file: .avsc (Avro), .proto (Protobuf, its first message) or .json (JSON
	// Schema). It is read again while something is held back.
	Schema string `json:"schema" form:"path" need:"true"`
	// backward: who reads by the contract can read what is sent. forward: what was
	// written by the contract can be read as the table is now. full: both.
	Compatibility string `json:"compatibility" default:"backward" enum:"backward|forward|full"`
	// Tables that it is about, by glob over schema.table. Default: all that the
	// subscription has.
	Tables []string `json:"tables" form:"glob"`
}

// Mapping changes how columns look to a subscription. On the left stand the
// table's own names.
type Mapping struct {
	// Column: the name that it gets.
	Rename map[string]string `json:"rename" keys:"plain" form:"plain"`
	// Columns that are left out; those of a key stay in the key.
	Drop []string `json:"drop" form:"plain"`
	// Columns that the table does not have: text, a number, true or false.
	Constant map[string]Constant `json:"constant" keys:"plain"`
	// Column: the type that it gets: string, integer (64 bits), number (a float
	// of 64 bits) or boolean.
	Cast map[string]string `json:"cast" keys:"plain" enum:"string|integer|number|boolean"`
	// Column: hash (HMAC-SHA-256 with the salt, in hex: equal values stay equal) or
	// redact (null).
	Mask map[string]string `json:"mask" keys:"plain" enum:"hash|redact"`
	// Secret that hashes are made with; another salt gives other hashes.
	Salt Secret `json:"salt"`
}

// Constant is text, an int64, a float64 or a bool.
type Constant struct{ Value any }

func (c *Constant) decodeNode(d *decoder, n *yamltree.Node, path string) {
	if !d.isScalar(n, path) {
		return
	}
	var err error
	switch n.Kind {
	case yamltree.KindInt:
		c.Value, err = strconv.ParseInt(n.Text, 10, 64)
	case yamltree.KindFloat:
		c.Value, err = strconv.ParseFloat(n.Text, 64)
	case yamltree.KindBool:
		c.Value = n.Text == "true"
	default:
		c.Value = n.Text
	}
	if err != nil {
		d.doc.Fail(n, path, d.label(path)+": "+yamltree.Quote(n)+" is not a number of 64 bits", "write it in quotes to send it as text")
	}
}

// contract checks the file's name; what stands in it is looked at when it is needed.
func (c *checker) contract(path string, s *Contract) {
	if s == nil || s.Schema == "" || !c.ok(path+".schema") {
		return
	}
	if !slices.Contains([]string{".avsc", ".proto", ".json"}, filepath.Ext(s.Schema)) {
		c.fail(path+".schema", "like search.avsc", "%s.schema: the end of the file's name does not tell its format: .avsc, .proto or .json", path)
	}
}

// mapping checks what needs no table.
func (c *checker) mapping(path string, m *Mapping) {
	if m == nil {
		return
	}
	hashed := false
	for _, col := range sortedKeys(m.Mask) {
		hashed = hashed || m.Mask[col] == "hash"
	}
	if hashed && m.Salt.IsZero() && c.ok(path+".mask") {
		c.fail(path+".mask", "salt: ${MASK_SALT}", "%s hashes columns, but has no salt", path)
	}
	names := map[string]string{}
	for _, col := range sortedKeys(m.Rename) {
		to := m.Rename[col]
		if other, ok := names[to]; ok && c.ok(path+".rename") {
			c.fail(yamltree.Join(path+".rename", col), "give each its own", "%s.rename gives %s and %s the same name", path, other, col)
		}
		names[to] = col
	}
	for _, col := range sortedKeys(m.Constant) {
		if other, ok := names[col]; ok && c.ok(path+".constant") {
			c.fail(yamltree.Join(path+".constant", col), "give each its own", "%s.constant has the name that %s is given", path, other)
		}
	}
	for _, col := range m.Drop {
		if _, ok := m.Rename[col]; ok && c.ok(path+".drop") {
			c.fail(path+".drop", "leave one of them out", "%s drops %s and renames it", path, strings.ToValidUTF8(col, "?"))
		}
	}
}
