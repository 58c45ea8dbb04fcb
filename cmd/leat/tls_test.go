package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// trusting is a client that trusts nobody but the authority of a file, and shows a token.
func trusting(t *testing.T, ca, token string, most uint16) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", ca)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10, MaxVersion: most}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Timeout: time.Minute, Transport: withToken{tr, token}}
}

type withToken struct {
	http.RoundTripper
	token string
}

func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+w.token)
	return w.RoundTripper.RoundTrip(r)
}

// TestTLSFromFileToClients: certificate and key of the file serve the command line, a pull client, and whoever
// speaks plain HTTPS; a client that trusts somebody else gets nothing, and one without TLS is told.
func TestTLSFromFileToClients(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	conn := openDB(t, db.URL, "CREATE TABLE files (id bigint PRIMARY KEY, n bigint)")
	dir, addr, token := t.TempDir(), freeAddr(t), "a-token-that-nobody-guesses"
	ours, err := servers.NewCerts(filepath.Join(dir, "ours"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := servers.NewCerts(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	config := func(key string) string {
		return fmt.Sprintf("data: ./data\nlisten: %s\ntls: {cert: ./ours/server.pem, key: %s}\ntokens: [{name: all, sha256: '%x', roles: [read, operate, 'subscribe:a']}]\n"+
			"sources:\n  files:\n    postgres: {url: '%s', slot: %s}\n    tables: ['public.*']\nsubscriptions:\n  a: {source: files, deliver: {pull: {}}}\n",
			addr, key, sha256.Sum256([]byte(token)), db.URL, db.Name)
	}
	writeConfig(t, dir, config(other.ServerKey))
	bad := startLeat(t, leatBinary(t), dir)
	if err := bad.cmd.Wait(); err == nil || bad.cmd.ProcessState.ExitCode() != 2 || !strings.Contains(bad.log(), "leat.yaml:3:") || !strings.Contains(bad.log(), "private key") {
		t.Errorf("a key of another certificate: %v\n%s", err, bad.log())
	}
	writeConfig(t, dir, config("./ours/server-key.pem"))
	p := startLeat(t, leatBinary(t), dir)
	p.ready()
	execAll(t, conn, "INSERT INTO files VALUES (1, 1), (2, 1)")

	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	status := func(code int, say string, args ...string) {
		t.Helper()
		out, err := exec.Command(leatBinary(t), append([]string{"status", "--token-file", tokenFile}, args...)...).CombinedOutput()
		var exit *exec.ExitError
		got := 0
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		}
		if got != code || !strings.Contains(string(out), say) || strings.Contains(string(out), token) {
			t.Errorf("status %q: exit code %d, %s\nwant %d and %q", args, got, out, code, say)
		}
	}
	status(0, "files", "-c", filepath.Join(dir, "leat.yaml"))
	status(0, "files", "--addr", "https://"+addr, "--ca", ours.CA)
	status(3, "signed by nobody known here", "--addr", "https://"+addr)
	status(3, "signed by nobody known here", "--addr", "https://"+addr, "--ca", other.CA)
	status(3, "it speaks TLS", "--addr", "http://"+addr)

	client := trusting(t, ours.CA, token, 0)
	events := pullOverTLS(t, client, "https://"+addr, 2)
	if len(events) != 2 || events[0].Offset >= events[1].Offset {
		t.Errorf("pulled %v", events)
	}
	subscriber := func(c *http.Client) error {
		_, err := leatv1connect.NewSubscriberServiceClient(c, "https://"+addr).Receive(t.Context(), connect.NewRequest(&leatv1.ReceiveRequest{Subscription: "a", MaxEvents: 1}))
		return err
	}
	var unknown *tls.CertificateVerificationError
	if err := subscriber(trusting(t, other.CA, token, 0)); !errors.As(err, &unknown) {
		t.Errorf("a client that trusts somebody else: %v", err)
	}
	if err := subscriber(trusting(t, ours.CA, token, tls.VersionTLS11)); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	schemaOverTLS(t, client, "https://"+addr, func() { execAll(t, conn, "INSERT INTO files VALUES (3, 1)") })
	resp, err := http.Get("http://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || !bytes.Contains(body, []byte("HTTPS")) {
		t.Errorf("plain HTTP is answered %s %s", resp.Status, body)
	}
	if strings.Contains(p.log(), token) {
		t.Error("the token stands in the log")
	}
}

// pullOverTLS takes n events from subscription a by gRPC over HTTP/2, and acks them.
func pullOverTLS(t *testing.T, c *http.Client, base string, n int) (events []*leatv1.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := leatv1connect.NewSubscriberServiceClient(c, base, connect.WithGRPC()).Pull(ctx)
	defer s.CloseResponse()
	defer s.CloseRequest()
	for _, m := range []*leatv1.PullRequest{
		{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: "a", Consumer: "test"}}},
		{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: 100}}},
	} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for len(events) < n {
		m, err := s.Receive()
		if err != nil {
			t.Fatalf("after %d events: %v", len(events), err)
		}
		if e := m.GetEvents(); e != nil {
			events = append(events, e.Events...)
			if err := s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: e.Lease, Epoch: e.Epoch}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return events
}

// schemaOverTLS follows the address of a schema in an event of the SSE view; change makes one.
func schemaOverTLS(t *testing.T, c *http.Client, base string, change func()) {
	t.Helper()
	get := func(url string) (*http.Response, func()) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", url, resp.Status)
		}
		return resp, func() { cancel(); resp.Body.Close() }
	}
	resp, done := get(base + "/v1/subscriptions/a/events")
	defer done()
	change()
	var event struct{ Dataschema string }
	for buf, text := make([]byte, 4096), ""; event.Dataschema == ""; {
		n, err := resp.Body.Read(buf)
		if err != nil {
			t.Fatalf("%v after %s", err, text)
		}
		text += string(buf[:n])
		if _, data, ok := strings.Cut(text, "data: "); ok && strings.Contains(data, "\n") {
			line, _, _ := strings.Cut(data, "\n")
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
		}
	}
	if !strings.HasPrefix(event.Dataschema, base+"/schemas/files/") {
		t.Errorf("dataschema is %s", event.Dataschema)
	}
	_, done = get(event.Dataschema)
	done()
}
