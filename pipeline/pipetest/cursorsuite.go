package pipetest

import (
	"reflect"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// TestCursors is the conformance suite of pipeline.Cursors. open returns an empty store and a func that
// closes it and opens it again.
func TestCursors(t *testing.T, open func(t *testing.T) (pipeline.Cursors, func() pipeline.Cursors)) {
	c, again := open(t)
	ctx := suiteContext(t)
	if _, ok, err := c.Load(ctx, "search"); ok || err != nil {
		t.Fatalf("an empty store has a cursor: %v %v", ok, err)
	}
	save := func(cur pipeline.Cursor) error { return c.Save(ctx, "search", cur) }
	first := pipeline.Cursor{Log: "a", Low: 10, High: 40, Pending: []pipeline.OffsetRange{{From: 10, To: 12}, {From: 30, To: 31}}, Resolved: 10, Worked: time.UnixMicro(1795255200000001).UTC()}
	for _, cur := range []pipeline.Cursor{first, {Log: "a", Low: 20, High: 20, Resolved: 15}} {
		if err := save(cur); err != nil {
			t.Fatalf("save %+v: %v", cur, err)
		}
	}
	if err := save(first); err == nil {
		t.Fatal("a cursor went back")
	}
	for what, cur := range map[string]pipeline.Cursor{"resolved": {Log: "a", Low: 25, High: 25, Resolved: 14}, "low": {Log: "a", Low: 19, High: 25, Resolved: 15}} {
		if err := save(cur); err == nil {
			t.Fatalf("%s went back", what)
		}
	}
	c = again()
	want := pipeline.Cursor{Log: "a", Low: 20, High: 20, Resolved: 15}
	if got := loaded(t, c); !reflect.DeepEqual(got, want) {
		t.Fatalf("after opening again: %+v, want %+v", got, want)
	}
	other := pipeline.Cursor{Log: "b", Low: 1, High: 5, Pending: []pipeline.OffsetRange{{From: 1, To: 5}}}
	if err := save(other); err != nil {
		t.Fatalf("a cursor of another log: %v", err)
	}
	if got := loaded(t, c); !reflect.DeepEqual(got, other) {
		t.Fatalf("got %+v, want %+v", got, other)
	}
}

func loaded(t *testing.T, c pipeline.Cursors) pipeline.Cursor {
	t.Helper()
	cur, ok, err := c.Load(suiteContext(t), "search")
	if !ok || err != nil {
		t.Fatalf("load: %v %v", ok, err)
	}
	return cur
}
