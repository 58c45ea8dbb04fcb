package waits_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/waits"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// texts are the waits as level kind: reason | ends.
func texts(t *testing.T, all []*leatv1.Wait) string {
	t.Helper()
	var b strings.Builder
	for _, w := range all {
		if w.EndsWhen == "" || w.Reason == "" || strings.Contains(w.EndsWhen, "%!") {
			t.Errorf("a wait without a reason or an end: %v", w)
		}
		b.WriteString(w.Level + " " + w.Kind + ": " + w.Reason + " | " + w.EndsWhen + "\n")
	}
	return b.String()
}

// Every state but the good one has what ends it, also one that this version does not know.
func TestEveryPauseHasAnEnd(t *testing.T) {
	until := timestamppb.New(time.Unix(1e9, 0))
	for _, state := range []string{deliver.StateRetrying, deliver.StateWaiting, deliver.StateBlocked, deliver.StatePaused, deliver.StateStopped, deliver.StateClosed, "gone", "new"} {
		got := waits.OfSubscription(&leatv1.SubscriptionStatus{Name: "s", State: state, Until: until})
		if texts(t, got) == "" || got[0].Until != until {
			t.Errorf("%s: %v", state, got)
		}
	}
	for _, state := range []string{"connecting", "retrying", "stopped", "closed", "gone", "", "new"} {
		if texts(t, waits.OfSource(&leatv1.SourceStatus{Name: "s", State: state})) == "" {
			t.Errorf("%s has no end", state)
		}
	}
	if got := waits.OfSubscription(&leatv1.SubscriptionStatus{State: "running", Limit: 3, MaxInFlight: 64, InFlight: 3}); len(got) > 0 {
		t.Errorf("all is well: %v", got)
	}
}

func TestWorstFirst(t *testing.T) {
	s := &leatv1.SubscriptionStatus{Name: "s", State: "running", Limit: 3, MaxInFlight: 64, InFlight: 3, Flow: "requests time out: 3 in flight", Parked: 2,
		Lanes:     []*leatv1.Lane{{Range: 1, Space: "public.files", Parked: 2}, {Range: 2, Space: "public.files", Parked: 1024, PausedFrom: 77}},
		Throttles: []*leatv1.ThrottleState{{Ratio: 0.25, Owner: "ops", Since: timestamppb.Now()}}, SaveError: "disk full",
		Hosts: []*leatv1.Host{{Name: "a:1"}, {Name: "b:1", Ejected: true, Reason: "500"}}, HostsPanic: true}
	want := `error parked: 2 keys are parked with all their later events | leat redrive s delivers them, leat discard gives them up; leat parked s shows them
error range: range 2 of public.files pauses from offset 77 on, as too many of its keys are parked (1024); other ranges go on | leat redrive s or leat discard s makes room: a tenth of what a range may have
error cursor: its cursor is not saved: disk full | the data folder can be written (a restart would deliver again what is done)
warning host: host b:1 fails: 500 | a probe or the next try of it succeeds
warning host: so many hosts fail that all are used | more of them answer
notice throttle: throttled to 25 % (ops) | leat throttle s --off
notice flow: requests time out: 3 in flight | the endpoint takes more: it is tried step by step
`
	if got := texts(t, waits.OfSubscription(s)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestSourcePressure(t *testing.T) {
	s := &leatv1.SourceStatus{Name: "f", State: "streaming", LogFull: true, Pressure: &leatv1.SourcePressure{Reading: 0.5, Why: "9 sessions are at work, max_active is 8", EndsWhen: "it stays under 80 %",
		TimeToLoss: durationpb.New(10 * time.Minute), TimeToDrain: durationpb.New(time.Minute)}}
	want := `error loss: the database may remove what is not read in 10m0s | what is behind is read, in about 1m0s
error disk: the log's disk is full: reading waits | there is space: free some, or lower log.retention.size
warning load: the log is read at 50 %, snapshots at 0 %, replays at 0 %: 9 sessions are at work, max_active is 8 | it stays under 80 %
`
	if got := texts(t, waits.OfSource(s)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	got := texts(t, waits.OfSubscription(&leatv1.SubscriptionStatus{Name: "s", State: "running", Laggard: &leatv1.Laggard{Stage: "at risk", Policy: "hold", Why: "slow", TimeToCatchUp: durationpb.New(time.Minute)}}))
	if want := "error lag: at risk: slow; what retention takes is skipped and listed by leat parked (laggard: hold) | it has caught up, in about 1m0s\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s = &leatv1.SourceStatus{Name: "f", State: "streaming", Disk: "reading", Open: &leatv1.OpenTransactions{RunningBytes: 1 << 20, PreparedBytes: 60 << 20, BoundBytes: 50 << 20},
		Pressure: &leatv1.SourcePressure{Reading: 1, Why: "the log's disk is full to 95 %, and old segments wait for open transactions"}}
	if got := texts(t, waits.OfSource(s)); strings.Contains(got, "is not read") || !strings.Contains(got, "wait for open transactions") || !strings.Contains(got, "hold 61 MiB of the log (60 MiB of them prepared)") {
		t.Errorf("got\n%s", got)
	}
	// A throttle is told once.
	s = &leatv1.SourceStatus{Name: "f", State: "streaming", Pressure: &leatv1.SourcePressure{Why: "flag file", EndsWhen: "its owner ends it"}, Throttles: []*leatv1.ThrottleState{{Owner: "flag file /x"}}}
	if got, want := texts(t, waits.OfSource(s)), "notice throttle: stopped by a throttle (flag file /x) | its owner ends it\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The one host of an endpoint that fails is not said to get nothing, one cause is told once, and who stands still is
// not about to catch up.
func TestNothingUntrueIsTold(t *testing.T) {
	got := texts(t, waits.OfSubscription(&leatv1.SubscriptionStatus{Name: "s", State: "running", Hosts: []*leatv1.Host{{Name: "a:1", Ejected: true, Reason: "500"}}, HostsPanic: true,
		Laggard: &leatv1.Laggard{Stage: "catch-up", Policy: "hold", Why: "2.6 MiB behind, standing still"}}))
	if want := "warning lag: catch-up: 2.6 MiB behind, standing still | it goes on, and has caught up\nwarning host: host a:1 fails: 500 | a probe or the next try of it succeeds\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	s := &leatv1.SourceStatus{Name: "f", State: "streaming", Disk: "reading", Pressure: &leatv1.SourcePressure{Why: "the log's disk is full to 95 %", EndsWhen: "it is below 93 %"},
		Throttles: []*leatv1.ThrottleState{{Owner: "signal table: ops", Ratio: float64(float32(0.4))}}}
	got = texts(t, waits.OfSource(s))
	if strings.Count(got, "full to 95 %") != 1 || !strings.Contains(got, "throttled to 40 % (") {
		t.Errorf("got\n%s", got)
	}
}
