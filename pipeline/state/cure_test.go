package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamagedFile: SQLite's words alone do not help anybody.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path)
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "restore the data folder from a backup") {
		t.Errorf("%v", err)
	}
}
