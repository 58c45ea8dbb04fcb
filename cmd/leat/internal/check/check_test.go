package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

// TestCheckFilterColumns: a filter on a column that no table has fails on every event, so check says it.
func TestCheckFilterColumns(t *testing.T) {
	t.Parallel()
	db := newPG(t, "CREATE TABLE users (id bigint PRIMARY KEY, mail text)")
	for expr, want := range map[string]string{
		"after.nosuch == 5": `"nosuch"`,
		"before.sise > 5":   `did you mean "size"?`,
		"key.idd == 1":      `did you mean "id"?`,
		"after.mail == 'x'": `public.files does not have it`,
		"after.size > 5 && before.name != '' && key.id > 3": "",
		"has(after.later) && after.later == 5 || op == 'd'": "",
		"after.name == 'after.nosuch' && tx.id != ''":       "",
	} {
		yaml := "data: ./data\nsources:\n  files: {postgres: {url: '" + db.URL + "', slot: " + db.Name + "}, tables: ['public.*']}\n" +
			`subscriptions: {a: {source: files, tables: [public.files], filter: "` + expr + `", deliver: {pull: {}}}}`
		cfg, err := config.Parse("leat.yaml", []byte(yaml), config.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, f := range Config(t.Context(), cfg) {
			if f.Code == "column_unknown" {
				got += f.Level + " " + f.Place + " " + f.What + " " + f.Cure
			}
		}
		if want == "" && got != "" || want != "" && (!strings.HasPrefix(got, "error subscriptions.a.filter ") || !strings.Contains(got, want)) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

func TestDataThatIsAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "afile")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	found := checkFolder("data", name)
	if len(found) != 1 || !strings.Contains(found[0].What, "is a file") {
		t.Fatalf("check: %+v", found)
	}
}

// TestCheckSignalTable: that nobody could throttle through it is known before it is needed.
func TestCheckSignalTable(t *testing.T) {
	t.Parallel()
	db := newPG(t, "CREATE TABLE signals (owner text, reason text, ratio real, until timestamptz)")
	for table, want := range map[string]string{"public.signals": "", "public.nosuch": "warning sources.files: public.nosuch CREATE TABLE"} {
		yaml := "data: ./data\nsources:\n  files: {postgres: {url: '" + db.URL + "', slot: " + db.Name + "}, tables: ['public.*'], load: {signal_table: " + table + "}}\n"
		cfg, err := config.Parse("leat.yaml", []byte(yaml), config.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, f := range Config(t.Context(), cfg) {
			if f.Code == "signal_table" {
				got += f.Level + " " + f.Place + " " + f.Cure
			}
		}
		if want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", table, got, want)
		}
	}
}
