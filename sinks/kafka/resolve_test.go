package kafka

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// What is resolved stands in each partition behind the events, also in topics that the process has not written to yet; it
// is taken for no event.
func TestResolve(t *testing.T) {
	t.Parallel()
	at := broker(t)
	for name, c := range map[string]struct {
		policy string
		format records.Format
	}{"json": {"delete", records.JSON}, "compacted": {"compact", records.JSON}, "debezium": {"compact", records.Debezium}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, at)
			e, err := records.New(records.Options{Options: jsonOptions(), Format: c.format})
			if err != nil {
				t.Fatal(err)
			}
			o.Encoder = e
			o.Topic = template(t, o.ID+"-{table}")
			o.Create = Create{Partitions: 3, Replicas: 1, Config: map[string]string{"cleanup.policy": c.policy}}
			others := pipetest.FilesTable("others")
			o.Tables = func() []*schemas.Table { return []*schemas.Table{filesTable, others, pipetest.FilesTable("missing")} }
			first := newSink(t, o)
			other := pipetest.Change{Op: pipeline.OpInsert, Table: others, After: row(1, "/other")}
			deliver(t, first, deliveryOf(t, 1000, append(inserts(1, 100), other)...))
			next := newSink(t, o)
			next.Resume(pipeline.Cursor{Log: "x", Low: 1000, High: 1000})
			for _, upTo := range []pipeline.Offset{1100, 1100} { // told again after an error
				if err := next.Resolve(testContext(t), upTo, epoch); err != nil {
					t.Fatal(err)
				}
			}
			deliver(t, next, deliveryOf(t, 1000, append(inserts(1, 100), other)...)) // all of it is there
			for topic, n := range map[string]int{o.ID + "-files": 99, o.ID + "-others": 1} {
				told := map[int32]int{}
				for _, r := range read(t, topic, kgo.SeedBrokers(at)).until(n + 6) {
					if header(r, headerResolved) == "" {
						if told[r.Partition] > 0 {
							t.Errorf("%s: %s comes behind what is resolved", topic, header(r, headerID))
						}
						continue
					}
					told[r.Partition]++
					resolved(t, r, c.format, c.policy == "compact")
				}
				if len(told) != 3 || told[0]*told[1]*told[2] != 8 {
					t.Errorf("%s: told %v", topic, told)
				}
			}
		})
	}
}

func resolved(t *testing.T, r *kgo.Record, format records.Format, compacted bool) {
	t.Helper()
	if header(r, headerResolved) != "1100" || header(r, headerOp) != "resolved" || header(r, headerOffset) != "" || (r.Key != nil) != compacted {
		t.Errorf("%s has the headers %v", r.Key, r.Headers)
	}
	if format != records.JSON {
		if r.Value != nil {
			t.Errorf("%s", r.Value)
		}
		return
	}
	var e struct {
		ID, Type string
		Data     struct{ Resolved string }
	}
	if err := json.Unmarshal(r.Value, &e); err != nil || e.Type != "leat.resolved" || e.Data.Resolved != "1100" || e.ID != header(r, headerID) {
		t.Errorf("%v: %s", err, r.Value)
	}
}

// Resolved records at the end of a partition hide no event before them from who looks what is there.
func TestResolvedAtTheTail(t *testing.T) {
	t.Parallel()
	at := broker(t)
	o := options(t, at)
	first := newSink(t, o)
	deliver(t, first, deliveryOf(t, 1000, inserts(0, 10)...))
	for i := range 20 {
		if err := first.Resolve(testContext(t), pipeline.Offset(1000+i), epoch); err != nil {
			t.Fatal(err)
		}
	}
	next := newSink(t, o)
	next.Resume(pipeline.Cursor{Log: "x", Low: 1000, High: 1000})
	deliver(t, next, deliveryOf(t, 1000, inserts(0, 12)...))
	all := read(t, o.ID, kgo.SeedBrokers(at)).until(10 + 20 + 2)
	all = slices.DeleteFunc(all, func(r *kgo.Record) bool { return header(r, headerResolved) != "" })
	for i, g := range offsetsOf(t, all) {
		if g != pipeline.Offset(1000+i) {
			t.Fatalf("%v", offsetsOf(t, all))
		}
	}
}
