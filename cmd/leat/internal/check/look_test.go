package check

import (
	"fmt"
	"strings"
	"testing"
)

// TestLookNamesWhatTheFileWillName: cures of `leat init --from` are for the source that its file has, `main`.
func TestLookNamesWhatTheFileWillName(t *testing.T) {
	t.Parallel()
	db := newPG(t, "CREATE PUBLICATION leat_main FOR TABLE files WITH (publish = 'insert')")
	_, _, found, err := Look(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(found)
	if !strings.Contains(text, "publication leat_main") || !strings.Contains(text, `ALTER PUBLICATION "leat_main"`) || strings.Contains(text, "leat_init") {
		t.Error(text)
	}
}
