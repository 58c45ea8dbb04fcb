package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

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

// TestRowTheServerCannotSend: trying again gives the same; so it stops, with the cure.
func TestRowTheServerCannotSend(t *testing.T) {
	s, err := New(Config{Name: "files", URL: "postgres://u@h/d"})
	if err != nil {
		t.Fatal(err)
	}
	for _, pg := range []*pgconn.PgError{
		{Code: "54000", Message: "string buffer exceeds maximum allowed length (1073741823 bytes)"},
		{Code: "54000", Message: "out of memory", Detail: "Cannot enlarge string buffer containing 629145600 bytes by 629145600 more bytes."},
		{Code: "XX000", Message: "invalid memory alloc request size 1468006400"},
	} {
		var se *pipeline.SourceError
		if err := s.failure("read the stream", pg); !errors.As(err, &se) || se.Code != CodeRowTooLarge || se.Class != pipeline.Stopped || se.Cure == "" {
			t.Errorf("%v", err)
		}
	}
}
