package check

import (
	"fmt"
	"strings"
	"testing"
)

// TestLookNamesWhatTheFileWillName: cures of `leat init --from` are for the source that its file has, `main`.
func TestLookNamesWhatTheFileWillName(t *testing.T) {
	t.Parallel()
	db := newPG(t, "CREATE PUBLICATION leat_main FOR TABLE files WITH (publish = 'insert')",
		`CREATE TABLE "odd table.x" (id bigint PRIMARY KEY)`)
	_, tables, found, err := Look(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(found)
	if !strings.Contains(text, "publication leat_main") || !strings.Contains(text, `ALTER PUBLICATION "leat_main"`) || strings.Contains(text, "leat_init") {
		t.Error(text)
	}
	if all := fmt.Sprint(tables); !strings.Contains(all, "{public.odd%20table%2Ex [id]}") {
		t.Errorf("a table is not named as its events' subject: %s", all)
	}
}
