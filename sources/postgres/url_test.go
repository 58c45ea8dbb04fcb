package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// TestURLErrorsNameTheParameter, and never the password.
func TestURLErrorsNameTheParameter(t *testing.T) {
	for query, want := range map[string]string{
		"sslmode=verify-full&sslrootcert=/nonexist.pem": "sslrootcert: ", "connect_timeout=abc": "connect_timeout: ", "port=99999999": "port: ",
		"sslmode=perhaps": "sslmode", "target_session_attrs=x": "target_session_attrs: ", "channel_binding=x": "channel_binding: ",
	} {
		_, err := New(Config{Name: "files", URL: "postgres://u:pass-word@h/d?" + query})
		if err == nil || !strings.Contains(err.Error(), "url: "+want) || strings.Contains(err.Error(), "pass-word") {
			t.Errorf("%s: %v", query, err)
		}
	}
	_, err := New(Config{Name: "files", URL: "postgres://u:pass-word`: invalid port@h:x y/d"})
	if err == nil || strings.Contains(err.Error(), "pass-word") {
		t.Errorf("%v", err)
	}
}

// TestNoTLSThere: the server speaks none.
func TestNoTLSThere(t *testing.T) {
	t.Parallel()
	d := servertest.Postgres(t, servers.PostgresOptions{})
	url, _, _ := strings.Cut(d.URL, "?")
	s, err := New(Config{Name: "files", URL: url + "?sslmode=require"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Tables(t.Context())
	var se *pipeline.SourceError
	if !errors.As(err, &se) || !strings.Contains(se.Cure, "sslmode=disable") {
		t.Errorf("%v", err)
	}
	for _, f := range s.Check(t.Context()) {
		if strings.HasPrefix(f.What, f.Place) {
			t.Errorf("twice: %s: %s", f.Place, f.What)
		}
	}
}
