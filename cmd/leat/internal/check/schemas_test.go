package check

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

func TestSchemas(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"good.avsc": `{"type":"record","name":"A","fields":[]}`, "bad.avsc": "{"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{"good.avsc": "", "bad.avsc": "not an Avro schema", "none.proto": "read the contract"} {
		sub := &config.Subscription{Contract: &config.Contract{Schema: filepath.Join(dir, file), Compatibility: "backward"}}
		found := checkContract("subscriptions.a", sub)
		if (len(found) == 0) != (want == "") || len(found) > 0 && !strings.Contains(found[0].What, want) {
			t.Errorf("%s: %v", file, found)
		}
	}
	answer := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(answer)
		_, _ = w.Write([]byte("[]"))
	}))
	defer s.Close()
	cfg, err := config.Parse("leat.yaml", []byte("registry: {url: '"+s.URL+"', timeout: 5s}\n"), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if found := checkRegistry(t.Context(), cfg); len(found) > 0 {
		t.Error(found)
	}
	answer = http.StatusForbidden
	if found := checkRegistry(t.Context(), cfg); len(found) != 1 || !strings.Contains(found[0].What, "403") {
		t.Error(found)
	}
}
