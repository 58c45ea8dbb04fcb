package pipetest

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryLogConforms(t *testing.T) {
	TestLog(t, func(*testing.T) pipeline.Log { return NewMemoryLog("log", 1000) })
}

func TestBuiltBatchesAreWellFormed(t *testing.T) {
	b := Build(position(1), suiteEpoch, []Change{insert(1), {Op: pipeline.OpTruncate, Table: suiteTable}}, []Change{insert(2)})
	if err := CheckBatch(b, PGForm); err != nil {
		t.Fatal(err)
	}
	b.Events[0].After.Len += 1000
	if CheckBatch(b, PGForm) == nil {
		t.Fatal("a span beyond the arena passes")
	}
}

func TestRecordingSinkConforms(t *testing.T) {
	TestSink(t, func(*testing.T) SinkRig {
		s := NewRecordingSink()
		return SinkRig{Sink: s, Received: func() (all []pipeline.Offset) {
			for _, d := range s.All() {
				all = append(all, d.Offset)
			}
			return all
		}}
	})
}
