package config

import (
	"bytes"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"text/template"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

//go:embed example.yaml
var exampleText string

// InitOptions fill the file that `leat init` writes.
type InitOptions struct {
	// URL of the database, as it shall stand in the file: with ${PGPASSWORD} for
	// its password. Default: a PostgreSQL on localhost.
	URL string
	// Tables are globs. Default: "public.*", for MySQL "*.*".
	Tables []string
}

// Example returns the commented file that `leat init` writes without a database.
func Example() []byte {
	out, err := Init(InitOptions{})
	if err != nil {
		return []byte(exampleText)
	}
	return out
}

// Init returns a commented file for a database. A literal password in the URL
// is refused: it would lie in a file that is likely to be shared.
func Init(o InitOptions) ([]byte, error) {
	text := exampleText
	mysql := strings.HasPrefix(o.URL, "mysql://") || strings.HasPrefix(o.URL, "mariadb://")
	if yamltree.MaskText(o.URL) != o.URL {
		return nil, fmt.Errorf("write config: the URL holds a password: put it into a variable and name that, as ${PGPASSWORD}")
	}
	if mysql {
		text = mysqlExample(text)
	}
	if o.URL == "" {
		o.URL = "postgres://leat:${PGPASSWORD}@localhost:5432/app"
	}
	if len(o.Tables) == 0 {
		o.Tables = []string{"public.*"}
		if mysql {
			o.Tables = []string{"*.*"}
		}
	}
	quoted := make([]string, len(o.Tables))
	for i, t := range o.Tables {
		quoted[i] = strconv.Quote(t)
	}
	t, err := template.New("leat.yaml").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]string{"URL": strconv.Quote(o.URL), "Tables": strings.Join(quoted, ", ")}); err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	return b.Bytes(), nil
}

// mysqlExample swaps the two kinds of database in the example.
func mysqlExample(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		switch t := strings.TrimSpace(line); {
		case t == "postgres:":
			line = "    mysql:\n"
		case strings.HasPrefix(t, "# slot:"):
			line = "      # server_id: 7001\n"
		case strings.HasPrefix(t, "# publication:"), strings.HasPrefix(t, "# mysql:"):
			continue
		}
		out = append(out, line)
	}
	return strings.Join(out, "")
}
