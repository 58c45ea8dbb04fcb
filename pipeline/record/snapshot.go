package record

import (
	"encoding/json"

	"github.com/leat-cdc/leat/pipeline"
)

// appendMark returns what a snapshot batch says of its job, JSON; nil for another batch.
func appendMark(b *pipeline.Batch) ([]byte, error) {
	m := b.Snapshot
	if m == nil {
		return nil, nil
	}
	if err := checkSnapshot(b); err != nil {
		return nil, err
	}
	j, err := json.Marshal(m)
	if err != nil {
		return nil, invalid("mark of job %s: %v", m.Job, err)
	}
	return j, nil
}

func decodeMark(p []byte, into *pipeline.Batch) error {
	m := new(pipeline.SnapshotMark)
	if err := json.Unmarshal(p, m); err != nil {
		return invalid("mark of a snapshot: %v", err)
	}
	into.Snapshot = m
	return checkSnapshot(into)
}

func checkSnapshot(b *pipeline.Batch) error {
	switch {
	case b.Kind != pipeline.BatchRows || b.Open != "" || len(b.Ranges) > 0:
		return invalid("a batch of snapshot job %s that is not of rows alone", b.Snapshot.Job)
	case !b.End.Zero():
		return invalid("a batch of snapshot job %s with a position: it is no place to resume", b.Snapshot.Job)
	}
	return checkMark(b.Snapshot)
}

func checkMark(m *pipeline.SnapshotMark) error {
	if m.Job == "" || m.State != pipeline.JobRunning && !m.State.Ended() {
		return invalid("a mark of snapshot job %q with state %q", m.Job, m.State)
	}
	return nil
}
