package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// beatRate is how many transactions of one row there are in a second; beatWriters share them.
const (
	beatRate    = 1000
	beatWriters = 8
	warmUp      = time.Second
)

// latency measures from the moment a writer begins an insert to the moment a subscriber has it: a pull subscriber
// and a webhook at once, then Leat's CPU time while nothing happens.
func (b *bench) latency(ctx context.Context, w *workload, run string) error {
	folder := filepath.Join(b.o.dir, b.name+"-"+run)
	defer os.RemoveAll(folder)
	c, err := process.StartChild(ctx, "webhook-receiver", "-beat")
	if err != nil {
		return err
	}
	var hook heard
	var all pulse
	if err := c.Next(&hook); err != nil {
		return errors.Join(err, c.Stop(nil))
	}
	subs := strings.ReplaceAll(subscription("pulled", "pull: {}")+subscription("hooked", fmt.Sprintf("webhook: {url: %q, secret: %q}", hook.Addr, secret)),
		"from: earliest", "from: latest")
	yaml, undo, err := b.db.source(ctx, w, run, true)
	if err != nil {
		return errors.Join(err, c.Stop(nil))
	}
	s, err := b.launch(ctx, run, folder, yaml, subs)
	if err != nil {
		return errors.Join(err, c.Stop(nil), undo(ctx))
	}
	err = s.WaitFor(ctx, "the source to stream", func(st *leatv1.StatusResponse) bool {
		return len(st.Sources) == 1 && st.Sources[0].State == "streaming" && len(st.Subscriptions) == 2
	})
	if err == nil {
		all, err = b.beat(ctx, w, s, run)
	}
	b.syncs(ctx, s)
	_, stopErr := s.Stop()
	err = errors.Join(err, stopErr, c.Stop(&hook), undo(context.WithoutCancel(ctx)))
	if err != nil {
		return err
	}
	for _, x := range []struct {
		name string
		got  []beat
	}{{"pull", all.pull.Beats}, {"webhook", hook.Beats}} {
		if len(x.got) == 0 {
			return fmt.Errorf("the %s heard nothing", x.name)
		}
		b.delay("latency "+x.name, x.got, nil)
		b.delay("latency "+x.name+" from the commit", x.got, all.commits)
	}
	b.delay("the commit itself", all.commits, nil)
	if len(all.floor.Beats) > 0 {
		b.delay("a reader that keeps nothing", all.floor.Beats, nil)
		b.delay("a reader that keeps nothing from the commit", all.floor.Beats, all.commits)
	}
	return nil
}

// beat is one event on its way: when its writer began, and when it came (or, to the writer, the commit's answer);
// microseconds since 1970.
type beat struct{ Sent, Came int64 }

// pulse is what beat measured.
type pulse struct {
	pull, floor heard
	commits     []beat
}

// delay records how long beats took: from their beginning, or from their commit where commits are given. An event that
// came before its writer had the server's answer took nothing.
func (b *bench) delay(name string, beats, commits []beat) {
	begin := map[int64]int64{} // by Sent: two writers in one microsecond are told apart by neither
	for _, c := range commits {
		begin[c.Sent] = c.Came
	}
	var took []int64
	for _, x := range beats {
		from, ok := begin[x.Sent]
		if commits == nil {
			from, ok = x.Sent, true
		}
		if ok {
			took = append(took, max(0, x.Came-from))
		}
	}
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	p50, p99 := float64(took[len(took)/2])/1000, float64(took[len(took)*99/100])/1000
	b.record(name, p50Millis, p50)
	b.record(name, p99Millis, p99)
	process.Say("%s: %s: p50 %.1f ms, p99 %.1f ms (%d events)", b.name, name+b.other, p50, p99, len(took))
}

// syncs records how long Leat's own group commits took, from its metrics: upper bounds, each twice the one before. No
// event is delivered before the one that it waits for.
func (b *bench) syncs(ctx context.Context, s *process.Server) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Addr+"/metrics", nil)
	if err != nil {
		return // the run failed, and says so
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	var bounds, counts []float64 // cumulative
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var bound, count float64
		if _, rest, ok := strings.Cut(lines.Text(), "leat_log_sync_seconds_bucket{"); ok {
			_, rest, _ = strings.Cut(rest, `le="`)
			if n, _ := fmt.Sscanf(rest, "%g\"} %g", &bound, &count); n == 2 {
				bounds, counts = append(bounds, bound), append(counts, count)
			}
		}
	}
	if len(counts) == 0 {
		return
	}
	at := func(q float64) float64 {
		i := slices.IndexFunc(counts, func(n float64) bool { return n >= q*counts[len(counts)-1] })
		return 1000 * bounds[min(i, len(bounds)-2)] // the last is infinite
	}
	b.record("a sync of the log", p50Millis, at(0.5))
	b.record("a sync of the log", p99Millis, at(0.99))
	process.Say("%s: a sync of the log: p50 ≤ %.1f ms, p99 ≤ %.1f ms, the slowest ≤ %.0f ms", b.name, at(0.5), at(0.99), at(1))
}

// beat writes at a steady rate while a pull subscriber and the floor's reader listen, then lets Leat idle.
func (b *bench) beat(ctx context.Context, w *workload, s *process.Server, run string) (out pulse, err error) {
	n := int((b.o.beatTime + warmUp).Seconds() * beatRate)
	c, err := process.StartChild(ctx, "pull-subscribers", "-addr", s.Addr, "-subscriptions", "pulled", "-events", fmt.Sprint(n), "-beat")
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, c.Stop(nil)) }()
	floor, err := b.floor(ctx, w)
	if err != nil {
		return out, fmt.Errorf("a reader of the server itself: %w", err)
	}
	var wg sync.WaitGroup
	errs, commits := make([]error, beatWriters), make([][]beat, beatWriters)
	begin := time.Now()
	base := begin.UnixNano() // ids of runs do not meet
	for i := range beatWriters {
		wg.Go(func() { commits[i], errs[i] = b.writeBeats(ctx, w, begin, base, i, n) })
	}
	wg.Wait()
	took := time.Since(begin)
	err = errors.Join(errs...)
	if err == nil {
		err = c.Next(&out.pull)
	}
	if floor != nil {
		err = errors.Join(err, floor.Stop(&out.floor))
	}
	if err != nil {
		return out, err
	}
	out.commits = slices.Concat(commits...)
	b.record("latency pull", txPerSecond, float64(n)/took.Seconds())
	if !strings.HasSuffix(run, fmt.Sprintf("-%d", b.o.runs-1)) {
		return out, nil
	}
	settle(ctx)
	before := s.CPU()
	select {
	case <-ctx.Done():
	case <-time.After(b.o.idle):
	}
	idle := 100 * (s.CPU() - before).Seconds() / b.o.idle.Seconds()
	b.record("idle", idlePercent, idle)
	process.Say("%s: idle: %.2f %% of a core", b.name, idle)
	return out, nil
}

// writeBeats is one of the writers: every beatWriters-th transaction is its.
func (b *bench) writeBeats(ctx context.Context, w *workload, begin time.Time, base int64, i, n int) (commits []beat, err error) {
	insert, end, err := b.db.writer(ctx, w.name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	for k := i; k < n; k += beatWriters {
		time.Sleep(time.Until(begin.Add(time.Duration(k) * time.Second / beatRate)))
		sent := time.Now().UnixMicro()
		if err := insert(base+int64(k), sent); err != nil {
			return nil, err
		}
		commits = append(commits, beat{sent, time.Now().UnixMicro()})
	}
	return commits, nil
}
