package app

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/cmd/leat/internal/verify"
	"github.com/leat-cdc/leat/cmd/leat/internal/views"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// progressEvery is how often the progress of a comparison is told.
const progressEvery = 200 * time.Millisecond

// Verify implements api.Backend.
func (s *Server) Verify(ctx context.Context, r *leatv1.VerifyRequest, send func(*leatv1.VerifyResponse) error) error {
	sub, err := s.runningSubscription(r.Subscription)
	if err != nil {
		return err
	}
	s.mu.Lock()
	src, rows, publicURL := s.cfg.Sources[sub.Source], s.rows[sub.Source], s.publicURL
	s.mu.Unlock()
	if rows == nil || src == nil {
		return api.Errorf(api.Precondition, "source %q has no rows that could be read", sub.Source)
	}
	log, err := s.engine.Log(sub.Source)
	if err != nil {
		return api.Errorf(api.Unavailable, "%w", err)
	}
	tables, err := verifiable(ctx, rows, sub, r.Tables)
	if err != nil {
		return err
	}
	program, err := parts.Filter(sub, s.forms.Of)
	if err != nil {
		return err
	}
	whole, err := s.wholeSnapshots(ctx)
	if err != nil {
		return err
	}
	enc := encode.JSON(parts.Encoding(sub, publicURL, s.forms.Of))
	o := verify.Options{Subscription: r.Subscription, Log: log, Tables: tables, Source: rows.Session, KeyOf: rows.Key, Condition: rows.Condition, Form: s.forms.Of, Dir: s.o.Config.Data,
		Disk: s.roomForFiles(), Memory: s.shareOf(5), RangeOf: verify.Ranges(log, s.forms.Of),
		Select: func(b *pipeline.Batch, from, to int, runs []pipeline.Run) []pipeline.Run {
			return append(runs, pipeline.Run{Batch: b, From: uint32(from), To: uint32(to)})
		},
		KeyText: func(b *pipeline.Batch, i int) string {
			key, _, err := enc.Key(b, i)
			if err != nil {
				return "?"
			}
			return key
		},
		Whole: func(job string) bool { return whole[job] },
		Fence: func(ctx context.Context) (pipeline.Offset, error) { return s.fence(ctx, sub.Source) },
	}
	if program != nil {
		f := program.New()
		o.Select = func(b *pipeline.Batch, from, to int, runs []pipeline.Run) []pipeline.Run {
			runs, _ = f.Select(b, from, to, runs, nil)
			return runs
		}
	}
	if r.Target != "" {
		if err := s.target(&o, src, r); err != nil {
			return err
		}
	}
	return s.verify(ctx, sub.Source, o, send)
}

// roomForFiles is what temporary files of a comparison may take: a quarter of what is free.
func (s *Server) roomForFiles() int64 {
	free, _, err := s.o.Space(s.o.Config.Data)
	if err != nil {
		return 0 // not known
	}
	return max(1, int64(free/4))
}

// wholeSnapshots are the jobs that read all rows of their tables.
func (s *Server) wholeSnapshots(ctx context.Context) (map[string]bool, error) {
	jobs, err := s.engine.Snapshots(ctx)
	whole := map[string]bool{}
	for _, j := range jobs {
		whole[j.ID] = j.Where == ""
	}
	return whole, err
}

// verifiable lists the tables to compare.
func verifiable(ctx context.Context, rows snapshot.Database, sub *config.Subscription, globs []string) ([]snapshot.Table, error) {
	if len(globs) == 0 {
		globs = sub.Tables
	}
	if len(globs) == 0 {
		globs = []string{"*.*"}
	}
	tables, err := rows.Tables(ctx, globs)
	var bad *snapshot.TableError
	switch {
	case errors.As(err, &bad):
		return nil, api.Errorf(api.Invalid, "%w", err)
	case err != nil:
		return nil, api.Errorf(api.Unavailable, "look for the tables of source %q: %w", sub.Source, err)
	case len(tables) == 0:
		return nil, api.Errorf(api.Precondition, "source %q reads no table that matches %s", sub.Source, strings.Join(globs, " "))
	}
	return tables, nil
}

func (s *Server) fence(ctx context.Context, source string) (pipeline.Offset, error) {
	o, err := s.engine.Fence(ctx, source)
	var re *engine.ReplayError
	if errors.As(err, &re) {
		return 0, api.Errorf(api.Unavailable, "%w", err)
	}
	return o, err
}

// spare waits as long as the load of the source asks for: reading takes half of the time at most. Waits is told, each
// second, why nothing is read.
func (s *Server) spare(ctx context.Context, source string, took time.Duration, waits func(why string)) error {
	for rest := time.Duration(0); ; {
		ratio, why := s.engine.Spare(source)
		if ratio > 0 {
			rest = time.Duration(float64(took) * (2/ratio - 1))
		} else {
			rest = time.Second
			waits(why)
		}
		t := time.NewTimer(rest)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		if ratio > 0 {
			return nil
		}
	}
}

// target has another database compared instead of the log.
func (s *Server) target(o *verify.Options, src *config.Source, r *leatv1.VerifyRequest) error {
	u, err := url.Parse(r.Target)
	if err != nil {
		return api.Errorf(api.Invalid, "the target is no URL: want postgres://USER@HOST/DATABASE or mysql://USER@HOST/")
	}
	postgres := u.Scheme == "postgres" || u.Scheme == "postgresql"
	if postgres != (src.Postgres != nil) || !postgres && u.Scheme != "mysql" {
		return api.Errorf(api.Invalid, "the target is %s://, the source is another kind of database: only tables of the same kind are compared", u.Scheme)
	}
	o.Target = func(ctx context.Context, t snapshot.Table) (snapshot.Session, snapshot.Table, error) {
		return parts.Replica(ctx, src, r.Target, t)
	}
	o.Settled = func(ctx context.Context, to pipeline.Offset) error {
		return s.doneTo(ctx, r.Subscription, to, func(done, all uint64) { o.Progress(verify.Progress{Phase: "subscriber", Done: done, Rows: all}) })
	}
	return s.takes(r.Subscription)
}

// takes returns an error for a subscription that takes nothing until a person does something: its target stays behind.
func (s *Server) takes(name string) error {
	for _, st := range s.engine.Status().Subscriptions {
		if st.Name != name {
			continue
		}
		switch st.State {
		case deliver.StatePaused:
			return api.Errorf(api.Precondition, "subscription %q is paused, so that the target cannot have what the source has: leat resume %s", name, name)
		case deliver.StateBlocked, deliver.StateStopped, deliver.StateClosed:
			return api.Errorf(api.Precondition, "subscription %q is %s, so that the target cannot have what the source has: %s", name, st.State, st.Reason)
		}
		return nil
	}
	return api.Errorf(api.Precondition, "subscription %q does not run, so that the target cannot have what the source has", name)
}

// doneTo waits until a subscription is done with everything below an offset, and tells how much is left.
func (s *Server) doneTo(ctx context.Context, name string, to pipeline.Offset, tell func(done, all uint64)) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	var from pipeline.Offset
	for {
		for _, st := range s.engine.Status().Subscriptions {
			if st.Name != name {
				continue
			}
			if st.Low >= to {
				return nil
			}
			if from == 0 {
				from = st.Low
			}
			tell(uint64(st.Low-from), uint64(to-from))
		}
		if err := s.takes(name); err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// verify runs a comparison and tells how it goes: what is slow to be told is left out.
func (s *Server) verify(ctx context.Context, source string, o verify.Options, send func(*leatv1.VerifyResponse) error) error {
	var mu sync.Mutex // of send
	var last time.Time
	var failed error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tell := func(m *leatv1.VerifyResponse) error {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = send(m)
		}
		return failed
	}
	o.Progress = func(p verify.Progress) {
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			if tell(&leatv1.VerifyResponse{What: &leatv1.VerifyResponse_Progress{Progress: &leatv1.VerifyProgress{Table: p.Table, Phase: p.Phase, Done: p.Done, Rows: p.Rows}}}) != nil {
				cancel() // nobody listens
			}
		}
	}
	o.Pace = func(ctx context.Context, took time.Duration) error {
		return s.spare(ctx, source, took, func(why string) {
			if tell(&leatv1.VerifyResponse{What: &leatv1.VerifyResponse_Progress{Progress: &leatv1.VerifyProgress{Waits: why}}}) != nil {
				cancel()
			}
		})
	}
	report, err := verify.Run(ctx, o)
	if err != nil {
		return verifyError(err)
	}
	return tell(&leatv1.VerifyResponse{What: &leatv1.VerifyResponse_Report{Report: verifyReport(report)}})
}

func verifyError(err error) error {
	var se *pipeline.SourceError
	if errors.As(err, &se) {
		return api.Errorf(api.Unavailable, "%w", err)
	}
	return views.Error(fmt.Errorf("compare: %w", err))
}

func verifyReport(r *verify.Report) *leatv1.VerifyReport {
	out := &leatv1.VerifyReport{}
	for i := range r.Tables {
		t := &r.Tables[i]
		p := &leatv1.VerifiedTable{Table: t.Table, Error: t.Error, Rows: t.Rows, Compared: t.Compared, BeyondRetention: t.Beyond, Absent: t.Partial,
			Filtered: t.Filtered, Moving: t.Moving, Different: t.Different, Repair: t.Repair, Repaired: t.Repaired}
		for _, g := range t.Ranges {
			p.Ranges = append(p.Ranges, &leatv1.VerifiedRange{Range: uint64(g.Range), SourceRows: g.SourceRows, OtherRows: g.OtherRows, SourceSum: g.SourceSum, OtherSum: g.OtherSum})
		}
		for _, x := range t.Differences {
			p.Differences = append(p.Differences, &leatv1.VerifiedRow{Key: x.Key, Kind: x.Kind, Columns: x.Columns})
		}
		out.Tables = append(out.Tables, p)
	}
	return out
}
