package app

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

func (in *installation) waitState(t *testing.T, name, state string) *leatv1.SubscriptionStatus {
	t.Helper()
	var s *leatv1.SubscriptionStatus
	until(t, name+" to be "+state, func() bool { s = in.subscription(t, name); return s.State == state })
	return s
}

func TestPauseResumeSeekRemove(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	yaml := db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}", "idle: {source: files, deliver: {pull: {}}}")
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1)")
	h.waits(t, 1)
	ctx := t.Context()
	if _, err := in.admin.Pause(ctx, connect.NewRequest(&leatv1.PauseRequest{Subscription: "a", Reason: "a test"})); err != nil {
		t.Fatal(err)
	}
	db.exec(t, "INSERT INTO files VALUES (2)")
	until(t, "the event in the log", func() bool { s := in.source(t, "files"); return s.Next-s.Oldest == 2 })
	s := in.waitState(t, "a", "paused")
	if s.Reason != "a test" || s.LagEvents != 1 || s.LagBytes == 0 || s.Lag.AsDuration() <= 0 {
		t.Errorf("paused: %v", s)
	}
	// A pause outlives a restart.
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(in.log.String(), `"level":"error"`) {
		t.Errorf("an ordinary stop is told as an error: %s", in.log)
	}
	in = install(t, dir, yaml, func(o *Options) { o.Grace = time.Hour }) // what waits for it never ends
	in.streaming(t, "files")
	in.waitState(t, "a", "paused")

	// What nobody took counts for the lag of a subscription that never delivered.
	if s := in.subscription(t, "idle"); s.LagEvents != 2 || s.Lag.AsDuration() <= 0 || s.LagBytes == 0 {
		t.Errorf("idle: %v", s)
	}
	// A seek while events wait for a client that is not there needs no grace.
	until(t, "events to wait for a client", func() bool { return in.subscription(t, "idle").InFlight > 0 })
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := in.admin.Seek(soon, connect.NewRequest(&leatv1.SeekRequest{Subscription: "idle", To: &leatv1.SeekRequest_Latest{Latest: true}, Reason: "a test"}))
	if err != nil {
		t.Fatal(err)
	}
	if r.Msg.Skipped != 2 {
		t.Errorf("seek: %v", r.Msg)
	}
	listed, err := in.admin.Parked(ctx, connect.NewRequest(&leatv1.ParkedRequest{Subscription: "idle"}))
	if err != nil {
		t.Fatal(err)
	}
	if k := listed.Msg.Skipped; len(k) != 1 || k[0].From != r.Msg.From || k[0].To != r.Msg.To || !strings.Contains(k[0].Reason, "a test") {
		t.Errorf("skipped: %v", k)
	}
	if _, err := in.admin.Seek(ctx, connect.NewRequest(&leatv1.SeekRequest{Subscription: "idle", To: &leatv1.SeekRequest_Offset{Offset: r.Msg.From}})); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a seek back: %v", err)
	}
	if _, err := in.admin.Resume(ctx, connect.NewRequest(&leatv1.ResumeRequest{Subscription: "a"})); err != nil {
		t.Fatal(err)
	}
	if got := h.waits(t, 2); got[1].Data.Key["id"] != 2.0 {
		t.Errorf("after resume: %+v", got)
	}
	if _, err := in.admin.Pause(ctx, connect.NewRequest(&leatv1.PauseRequest{Subscription: "nobody"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("pause of nobody: %v", err)
	}
	if _, err := in.admin.Pause(ctx, connect.NewRequest(&leatv1.PauseRequest{Subscription: "files"})); connect.CodeOf(err) != connect.CodeInvalidArgument ||
		!strings.Contains(err.Error(), "pausing a source is not supported by this version; NAME of a subscription: a, idle") {
		t.Errorf("pause of a source: %v", err)
	}

	if _, err := in.admin.RemoveSource(ctx, connect.NewRequest(&leatv1.RemoveSourceRequest{Name: "files"})); err != nil {
		t.Fatal(err)
	}
	if n := db.ask(t, "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_publication) || ''"); n != "0" {
		t.Errorf("%s slots and publications are left", n)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "logs", "files")); !os.IsNotExist(err) {
		t.Errorf("the log is still there: %v", err)
	}
	if all := in.status(t); len(all.Sources)+len(all.Subscriptions) != 0 {
		t.Errorf("status after the removal: %v", all)
	}
	has(t, in.plan(t, yaml), "added sources.files", "added subscriptions.a", "added subscriptions.idle")
	in.apply(t, yaml)
	in.streaming(t, "files")
	if p := in.plan(t, yaml); p != "" {
		t.Errorf("plan after the apply: %q", p)
	}
}

type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+string(b))
	transport := &http.Transport{DisableKeepAlives: true}
	return transport.RoundTrip(r)
}

func TestTokensRolesAndHost(t *testing.T) {
	t.Parallel()
	db := newPG(t)
	token := func(name, roles string) string {
		return fmt.Sprintf("  - {name: %s, sha256: '%x', roles: ['%s']}\n", name, sha256.Sum256([]byte("token-"+name)), roles)
	}
	yaml := db.yaml("mine: {source: files, deliver: {pull: {}}}", "other: {source: files, deliver: {pull: {}}}") + "tokens:\n" + token("operator", "operate")
	in := install(t, t.TempDir(), yaml+token("reader", "read")+token("puller", "subscribe:mine"))
	in.wait200(t)
	db.exec(t, "INSERT INTO files VALUES (1)")
	as := func(name string) (leatv1connect.AdminServiceClient, leatv1connect.SubscriberServiceClient) {
		c := &http.Client{Transport: bearer("token-" + name)}
		return leatv1connect.NewAdminServiceClient(c, "http://"+in.addr), leatv1connect.NewSubscriberServiceClient(c, "http://"+in.addr)
	}
	denied, unknown, fine := connect.CodePermissionDenied, connect.CodeUnauthenticated, connect.Code(0)
	for name, want := range map[string]struct{ status, pause, mine, other connect.Code }{
		"reader":   {fine, denied, denied, denied},
		"puller":   {denied, denied, fine, denied},
		"operator": {fine, fine, denied, denied},
		"stranger": {unknown, unknown, unknown, unknown},
	} {
		admin, sub := as(name)
		ctx := t.Context()
		_, e1 := admin.Status(ctx, connect.NewRequest(&leatv1.StatusRequest{}))
		_, e2 := admin.Pause(ctx, connect.NewRequest(&leatv1.PauseRequest{Subscription: "other"}))
		_, e3 := sub.Receive(ctx, connect.NewRequest(&leatv1.ReceiveRequest{Subscription: "mine", MaxEvents: 1}))
		_, e4 := sub.Receive(ctx, connect.NewRequest(&leatv1.ReceiveRequest{Subscription: "other", MaxEvents: 1}))
		for what, c := range map[string]struct {
			err  error
			want connect.Code
		}{"status": {e1, want.status}, "pause": {e2, want.pause}, "receive mine": {e3, want.mine}, "receive other": {e4, want.other}} {
			got := fine
			if c.err != nil {
				got = connect.CodeOf(c.err)
			}
			if got != c.want {
				t.Errorf("%s of %s: %v, want %v", what, name, c.err, c.want)
			}
		}
	}
	// A token that is taken out of the file is worth nothing at once.
	operator, _ := as("operator")
	if _, err := operator.Apply(t.Context(), connect.NewRequest(&leatv1.ApplyRequest{Name: "leat.yaml", Config: []byte(yaml)})); err != nil {
		t.Fatal(err)
	}
	reader, _ := as("reader")
	if _, err := reader.Status(t.Context(), connect.NewRequest(&leatv1.StatusRequest{})); connect.CodeOf(err) != unknown {
		t.Errorf("a token that was taken out: %v", err)
	}
}

// wait200 waits until everything runs, by what needs no token.
func (in *installation) wait200(t *testing.T) {
	t.Helper()
	until(t, "/readyz", func() bool {
		resp, err := in.http.Get("http://" + in.addr + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// On loopback without tokens a page of a foreign site gets nothing.
func TestForeignHostAndOrigin(t *testing.T) {
	t.Parallel()
	in := install(t, t.TempDir(), top+"sources: {files: {postgres: {url: 'postgres://nobody@127.0.0.1:1/none'}}}\n")
	for name, change := range map[string]func(*http.Request){
		"host":   func(r *http.Request) { r.Host = "evil.example" },
		"origin": func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+in.addr+"/leat.v1.AdminService/Status", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		change(req)
		resp, err := in.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("a foreign %s got %s", name, resp.Status)
		}
	}
}
