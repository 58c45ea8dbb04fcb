package webhook

import (
	"encoding/base64"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The official library of Standard Webhooks takes each signature while secrets are rotated, and no other.
func TestTheOfficialLibraryTakesSignatures(t *testing.T) {
	newer := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("n", 32)))
	other := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("o", 32)))
	r := record(t, status(204, ""))
	s := newSink(t, r.URL, func(o *Options) {
		o.Secrets = []Secret{secret(t, newer), secret(t, "whsk_"+base64.StdEncoding.EncodeToString(make([]byte, 32))), secret(t, testSecret)}
	})
	for _, n := range []int{1, 3} {
		if out, err := s.Deliver(t.Context(), events(n, n)); out != nil || err != nil {
			t.Fatal(out, err)
		}
	}
	for _, got := range r.seen {
		for key, fits := range map[string]bool{newer: true, testSecret: true, other: false} {
			hook, err := standardwebhooks.NewWebhook(key)
			if err != nil {
				t.Fatal(err)
			}
			if err := hook.Verify(got.body, got.header); (err == nil) != fits {
				t.Errorf("%s: %v, should fit: %t", got.header.Get("webhook-signature"), err, fits)
			}
			if hook.Verify(append(got.body, ' '), got.header) == nil {
				t.Error("another body passes")
			}
		}
	}
}
