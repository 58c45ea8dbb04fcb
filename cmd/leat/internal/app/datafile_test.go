package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

func TestDataThatIsAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "afile")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := newServer(t.Context(), Options{Config: &config.Config{Data: name}}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), name+" is a file, not a folder") || !strings.Contains(err.Error(), "name another place") {
		t.Fatal(err)
	}
}
