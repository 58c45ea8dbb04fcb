package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

// TestNoSpace: a full disk is told from other trouble, in SQLite's words and in the system's.
func TestNoSpace(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.write.ExecContext(t.Context(), "PRAGMA max_page_count = 1"); err != nil { // no more than there are
		t.Fatal(err)
	}
	for err == nil {
		err = s.PutSource(t.Context(), Source{Name: strings.Repeat("x", 10_000), Log: "log", Spec: "postgres"})
	}
	if !NoSpace(err) || !strings.Contains(err.Error(), "full") {
		t.Errorf("SQLite's: %v", err)
	}
	if !NoSpace(fmt.Errorf("write: %w", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})) || NoSpace(nil) || NoSpace(os.ErrPermission) {
		t.Error("the system's")
	}
}
