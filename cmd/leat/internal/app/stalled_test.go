package app

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Thirty subscriptions whose endpoints do not answer are taken out in the time that a client waits for it: each has
// a grace of two seconds, all of them together too.
func TestApplyStopsStalledSubscriptionsTogether(t *testing.T) {
	t.Parallel()
	const n = 30
	db := newPG(t)
	asked, end := make(chan struct{}, 10*n), make(chan struct{})
	stalled := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-end:
		}
	}))
	defer stalled.Close()
	defer close(end)
	var subs []string
	for i := range n {
		subs = append(subs, fmt.Sprintf("s%d: {source: files, deliver: {webhook: {url: '%s', timeout: 60s, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}}", i, stalled.URL))
	}
	in := install(t, t.TempDir(), db.yaml(append(subs, "p: {source: files, deliver: {pull: {}}}")...))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1)")
	for range n {
		<-asked
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // as the command waits: one after the other would take a minute
	defer cancel()
	left := db.yaml("p: {source: files, deliver: {pull: {}}}")
	if _, err := in.admin.Apply(ctx, connect.NewRequest(&leatv1.ApplyRequest{Name: "leat.yaml", Config: []byte(left)})); err != nil {
		t.Fatal(err)
	}
	gone := 0
	for _, s := range in.status(t).Subscriptions {
		if strings.HasPrefix(s.Name, "s") && s.State == "gone" {
			gone++
		}
	}
	if gone != n {
		t.Errorf("%d of %d are gone", gone, n)
	}
}
