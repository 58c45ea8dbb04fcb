package app

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func (in *installation) throttle(t *testing.T, r *leatv1.ThrottleRequest) {
	t.Helper()
	if _, err := in.admin.Throttle(t.Context(), connect.NewRequest(r)); err != nil {
		t.Fatal(err)
	}
}

// audited lists action, target, outcome, arguments and detail of what is in the audit log.
func (in *installation) audited(t *testing.T) string {
	t.Helper()
	r, err := in.admin.AuditLog(t.Context(), connect.NewRequest(&leatv1.AuditLogRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range r.Msg.Entries {
		all = append(all, strings.Join([]string{e.Actor, e.Action, e.Target, e.Outcome, e.Arguments, e.Detail}, " "))
	}
	return strings.Join(all, "\n")
}

// A throttle of 0 stops a subscription or a source, outlives a restart, is named, ends by its time or by hand,
// and each of that is in the audit log.
func TestThrottle(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	yaml := db.yaml("a: {source: files, deliver: {" + toHook(h) + "}}")
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	zero, two := 0.0, 2.0
	in.throttle(t, &leatv1.ThrottleRequest{Name: "a", Ratio: &zero, Reason: "a test"})
	if _, err := in.admin.Throttle(t.Context(), connect.NewRequest(&leatv1.ThrottleRequest{Name: "a", Ratio: &two})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("ratio 2: %v", err)
	}
	if _, err := in.admin.Throttle(t.Context(), connect.NewRequest(&leatv1.ThrottleRequest{Name: "nobody", Ratio: &zero})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("nobody: %v", err)
	}
	if _, err := in.admin.Throttle(t.Context(), connect.NewRequest(&leatv1.ThrottleRequest{Name: "files", Off: true})); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("no throttle to end: %v", err)
	}
	db.exec(t, "INSERT INTO files VALUES (1)")
	until(t, "the event to be read", func() bool { return in.subscription(t, "a").LagEvents == 1 })
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = install(t, dir, yaml)
	in.streaming(t, "files")
	until(t, "the event to wait", func() bool { return in.subscription(t, "a").Read > in.subscription(t, "a").Low })
	if s := in.subscription(t, "a"); len(s.Throttles) != 1 || s.Throttles[0].Ratio != 0 || s.Throttles[0].Owner != "loopback" || s.Throttles[0].Reason != "a test" || s.Throttles[0].Until != nil {
		t.Errorf("status: %v", s)
	}
	if got := h.got(t); len(got) != 0 {
		t.Fatalf("stopped by a throttle, and %d events came", len(got))
	}
	in.throttle(t, &leatv1.ThrottleRequest{Name: "a", Off: true})
	h.waits(t, 1)

	in.throttle(t, &leatv1.ThrottleRequest{Name: "files", Ratio: &zero, Duration: durationpb.New(200 * time.Millisecond)})
	until(t, "the throttle to end", func() bool { return len(in.source(t, "files").Throttles) == 0 })
	db.exec(t, "INSERT INTO files VALUES (2)")
	h.waits(t, 2)
	until(t, "the end in the audit log", func() bool { return strings.Contains(in.audited(t), "its time is over") })
	want := `loopback throttle a done {"ratio":0,"reason":"a test"} 
loopback throttle a refused {"ratio":2} ratio 2 is none: the share of the speed that is left, from 0 (stopped) to 1
loopback throttle nobody refused {"ratio":0} no source or subscription "nobody"
loopback throttle files refused {"off":true} "files" is not throttled by hand: nothing was changed
loopback throttle a done {"off":true} was 0 by loopback
loopback throttle files done {"for":"200ms","ratio":0} 
leat throttle files done {"off":true} its time is over`
	if got := in.audited(t); got != want {
		t.Errorf("audit log\n%s\nwant\n%s", got, want)
	}
}
