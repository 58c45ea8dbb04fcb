package app

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Ranges of a running source are split and merged; what is refused changes nothing and is in the audit log; events
// flow on, and a restart finds the ranges as they were.
func TestRanges(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	yaml := db.yaml("a: {source: files, deliver: {" + toHook(h) + "}}")
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i FROM generate_series(1,50) i")
	h.waits(t, 50)
	ctx := t.Context()
	split := func(key string, r *uint64) error {
		_, err := in.admin.SplitRange(ctx, connect.NewRequest(&leatv1.SplitRangeRequest{Source: "files", Key: key, Range: r}))
		return err
	}
	merge := func(ids ...uint64) error {
		_, err := in.admin.MergeRanges(ctx, connect.NewRequest(&leatv1.MergeRangesRequest{Source: "files", Ranges: ids}))
		return err
	}
	list := func(lineage bool) (ids []uint64) {
		t.Helper()
		r, err := in.admin.Ranges(ctx, connect.NewRequest(&leatv1.RangesRequest{Source: "files", Lineage: lineage}))
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range r.Msg.GetRanges() {
			ids = append(ids, x.GetId())
		}
		return ids
	}
	if err := split(`{"id":20}`, nil); err != nil {
		t.Fatal(err)
	}
	if err := split(`{"id":40}`, nil); err != nil {
		t.Fatal(err)
	}
	if got := list(false); !slices.Equal(got, []uint64{1, 3, 4}) {
		t.Fatalf("ranges %v", got)
	}
	one := uint64(1)
	for want, f := range map[string]func() error{
		"not in range 1":     func() error { return split(`{"id":30}`, &one) },
		"begins at this key": func() error { return split(`{"id":20}`, nil) },
		`column "id"`:        func() error { return split(`{"ID":20}`, nil) },
		"not neighbours":     func() error { return merge(4, 1) },
		"no range 77":        func() error { return merge(77, 1) },
		"named twice":        func() error { return merge(1, 1) },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if got := list(false); !slices.Equal(got, []uint64{1, 3, 4}) {
		t.Fatalf("a refused change changed: %v", got)
	}
	audit, err := in.admin.AuditLog(ctx, connect.NewRequest(&leatv1.AuditLogRequest{Target: "files"}))
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]int{}
	for _, e := range audit.Msg.GetEntries() {
		outcomes[e.GetAction()+" "+e.GetOutcome()]++
	}
	if outcomes["split done"] != 2 || outcomes["split refused"] != 3 || outcomes["merge refused"] != 3 {
		t.Errorf("audit %v", outcomes)
	}
	if err := merge(3, 1); err != nil {
		t.Fatal(err)
	}
	db.exec(t, "INSERT INTO files SELECT i FROM generate_series(51,100) i")
	h.waits(t, 100)
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = install(t, dir, yaml)
	in.streaming(t, "files")
	if got := list(false); !slices.Equal(got, []uint64{5, 4}) {
		t.Fatalf("after a restart: %v", got)
	}
	if got := list(true); len(got) != 6 {
		t.Errorf("lineage %v", got)
	}
	db.exec(t, "INSERT INTO files VALUES (101)")
	h.waits(t, 101)
}
