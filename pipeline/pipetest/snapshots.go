package pipetest

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// SnapshotSource is a source whose streams are pipeline.Snapshotters: each job brings Rows of Table, Per in a batch,
// between what the stream brings by itself.
type SnapshotSource struct {
	pipeline.Source
	Table *schemas.Table
	Rows  []Row
	Per   int
	// Takes is how long reading a batch of rows takes.
	Takes time.Duration
	// Fault, when set, is that of the table: no row is read.
	Fault string

	mu sync.Mutex
	// Read counts the rows that were read, by job; Paces are the last that each was told.
	read  map[string]int
	paces map[string]float64
}

// Read returns how many rows were read for a job, again ones included.
func (s *SnapshotSource) Read(job string) int { s.mu.Lock(); defer s.mu.Unlock(); return s.read[job] }

// PaceOf returns the pace that a job was told last; -1: none.
func (s *SnapshotSource) PaceOf(job string) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.paces[job]; ok {
		return r
	}
	return -1
}

// Open implements pipeline.Source.
func (s *SnapshotSource) Open(ctx context.Context, after pipeline.Position) (pipeline.Stream, error) {
	inner, err := s.Source.Open(ctx, after)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.read == nil {
		s.read, s.paces = map[string]int{}, map[string]float64{}
	}
	s.mu.Unlock()
	t := &snapshotStream{Stream: inner, source: s, got: make(chan streamed), wake: make(chan struct{}, 1)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.pump)
	return t, nil
}

type streamed struct {
	b   *pipeline.Batch
	err error
}

type snapshotStream struct {
	pipeline.Stream
	source *SnapshotSource
	got    chan streamed
	wake   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	jobs []*scriptedJob
}

type scriptedJob struct {
	pipeline.SnapshotJob
	at, rows uint64
	ratio    float64
	stopped  bool
}

func (t *snapshotStream) pump() {
	for {
		b, err := t.Stream.Next(t.ctx)
		select {
		case t.got <- streamed{b, err}:
		case <-t.ctx.Done():
			if b != nil {
				b.Release()
			}
			return
		}
		if err != nil {
			return
		}
	}
}

// Start implements pipeline.Snapshotter.
func (t *snapshotStream) Start(job pipeline.SnapshotJob) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.ContainsFunc(t.jobs, func(j *scriptedJob) bool { return j.ID == job.ID }) {
		return
	}
	j := &scriptedJob{SnapshotJob: job, ratio: 1}
	if job.Mark != nil && job.Mark.Resume != nil {
		_ = json.Unmarshal(job.Mark.Resume, &j.at) // it wrote that itself
	}
	t.jobs = append(t.jobs, j)
	t.poke()
}

func (t *snapshotStream) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Stop implements pipeline.Snapshotter.
func (t *snapshotStream) Stop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, j := range t.jobs {
		j.stopped = j.stopped || j.ID == id
	}
	t.poke()
}

// Pace implements pipeline.Snapshotter.
func (t *snapshotStream) Pace(id string, ratio float64, _ string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, j := range t.jobs {
		if j.ID == id {
			j.ratio = ratio
		}
	}
	t.source.mu.Lock()
	t.source.paces[id] = ratio
	t.source.mu.Unlock()
	t.poke()
}

// Next implements pipeline.Stream.
func (t *snapshotStream) Next(ctx context.Context) (*pipeline.Batch, error) {
	for {
		select {
		case s := <-t.got:
			return s.b, s.err
		default:
		}
		if b := t.chunk(); b != nil {
			if t.source.Takes > 0 {
				read := time.NewTimer(t.source.Takes)
				select {
				case <-read.C:
				case <-ctx.Done():
				}
				read.Stop()
			}
			return b, nil
		}
		select {
		case s := <-t.got:
			return s.b, s.err
		case <-t.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// chunk returns the next rows of the first job that may read; nil: there is none.
func (t *snapshotStream) chunk() *pipeline.Batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.source
	for i, j := range t.jobs {
		if j.ratio <= 0 && !j.stopped {
			continue
		}
		m := pipeline.SnapshotMark{Job: j.ID, For: j.For, State: pipeline.JobRunning}
		var changes []Change
		all := uint64(len(s.Rows))
		switch {
		case j.stopped:
			m.State = pipeline.JobCancelled
		case s.Fault != "":
			m.State = pipeline.JobDone
		default:
			for range s.Per {
				if j.at == all {
					break
				}
				changes = append(changes, Change{Op: pipeline.OpSnapshot, Table: s.Table, After: s.Rows[j.at]})
				j.at++
			}
			if j.at == all {
				m.State = pipeline.JobDone
			}
		}
		m.Resume, _ = json.Marshal(j.at)
		m.Tables = []pipeline.TableProgress{{Table: s.Table.Subject(), Rows: j.at, Bytes: 100 * j.at, Estimate: all, Done: j.at == all, Fault: s.Fault}}
		if m.State.Ended() {
			t.jobs = slices.Delete(t.jobs, i, i+1)
		}
		s.mu.Lock()
		s.read[j.ID] += len(changes)
		s.mu.Unlock()
		b := Build(pipeline.Position{}, time.Now(), changes)
		for x := range b.Txs {
			b.Txs[x].ID = pipeline.Nowhere
		}
		b.Snapshot = &m
		return b
	}
	return nil
}

// Close implements pipeline.Stream.
func (t *snapshotStream) Close() error {
	t.cancel()
	t.wg.Wait()
	return t.Stream.Close()
}
