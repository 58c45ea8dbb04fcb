package mysql

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/rough"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// Wherever a connection goes silent while a stream begins, Open ends with an error that is tried again.
func TestSilentLookups(t *testing.T) {
	t.Parallel()
	flavors(t, servers.MySQLOptions{}, func(t *testing.T, db *servertest.Database) {
		u, err := url.Parse(db.URL)
		if err != nil {
			t.Fatal(err)
		}
		opened := false
		for stall := int64(50); !opened && stall < 1<<22; stall *= 3 {
			proxy := rough.New(t, u.Host, func(int) rough.Trouble { return rough.Trouble{Stall: stall} })
			to := *u
			to.Host = proxy.Addr
			q := to.Query()
			q.Set("timeout", "500ms")
			to.RawQuery = q.Encode()
			s := source(t, Config{URL: to.String(), LookupTimeout: 300 * time.Millisecond, Silence: 600 * time.Millisecond})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			st, err := s.Open(ctx, pipeline.Position{})
			cancel()
			if opened = err == nil; opened {
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
				break
			}
			var se *pipeline.SourceError
			if !errors.As(err, &se) || se.Class != pipeline.Transient || se.Code == "canceled" {
				t.Fatalf("silent after %d bytes: %v", stall, err)
			}
		}
		if !opened {
			t.Error("it never opened")
		}
	})
}
