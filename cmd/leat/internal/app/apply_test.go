package app

import (
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func (in *installation) apply(t *testing.T, yaml string, drop ...string) []*leatv1.Change {
	t.Helper()
	r, err := in.admin.Apply(t.Context(), connect.NewRequest(&leatv1.ApplyRequest{Name: "leat.yaml", Config: []byte(yaml), Drop: drop}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg.Changes
}

func (in *installation) plan(t *testing.T, yaml string) string {
	t.Helper()
	r, err := in.admin.Plan(t.Context(), connect.NewRequest(&leatv1.PlanRequest{Name: "leat.yaml", Config: []byte(yaml)}))
	if err != nil {
		t.Fatal(err)
	}
	return changes(r.Msg.Changes)
}

func changes(all []*leatv1.Change) string {
	var b strings.Builder
	for _, c := range all {
		b.WriteString(c.Kind + " " + c.Path + ": " + c.Before + " -> " + c.After + " (" + c.Note + ")\n")
	}
	return b.String()
}

func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q lacks %q", text, p)
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	db, other, a, b := newPG(t), newPG(t), newHook(t), newHook(t)
	two := func(tables string, subs ...string) string {
		return top + "sources:\n" + db.source() + other.sourceNamed("others", tables) + "subscriptions:\n  " + strings.Join(subs, "\n  ") + "\n"
	}
	subA, subB := "a: {source: files, deliver: {"+toHook(a)+"}}", "b: {source: files, deliver: {"+toHook(b)+"}}"
	fromOther := "o: {source: others, deliver: {pull: {}}}"
	in := install(t, t.TempDir(), two("public.*", subA, fromOther))
	in.streaming(t, "files")
	in.streaming(t, "others")
	db.exec(t, "INSERT INTO files VALUES (1)")
	a.waits(t, 1)

	// A line more above and a comment are no change.
	if p := in.plan(t, "# a comment\n\n"+two("public.*", subA, fromOther)); p != "" {
		t.Errorf("plan of the same file: %s", p)
	}
	has(t, in.plan(t, two("public.*", subA, subB, fromOther)), "added subscriptions.b")
	in.apply(t, two("public.*", subA, subB, fromOther))
	if got := b.waits(t, 1); got[0].Data.Key["id"] != 1.0 {
		t.Errorf("a new subscription begins at the earliest: %+v", got)
	}

	// A bad file changes nothing.
	for _, bad := range []string{"nonsense: 1\n", two("public.*", "a: {source: files, filter: 'after.(', deliver: {pull: {}}}", fromOther)} {
		if _, err := in.admin.Apply(t.Context(), connect.NewRequest(&leatv1.ApplyRequest{Name: "leat.yaml", Config: []byte(bad)})); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("apply of a bad file: %v", err)
		}
	}
	if n := len(in.status(t).Subscriptions); n != 3 {
		t.Errorf("%d subscriptions after a bad file", n)
	}

	// Only the changed source starts again.
	before, was := in.source(t, "files").Since.AsTime(), in.source(t, "others").Since.AsTime()
	has(t, in.plan(t, two("public.f*", subA, subB, fromOther)), "changed sources.others.tables")
	in.apply(t, two("public.f*", subA, subB, fromOther))
	in.streaming(t, "others")
	if !in.source(t, "files").Since.AsTime().Equal(before) || in.source(t, "others").Since.AsTime().Equal(was) {
		t.Error("not just the changed source was started again")
	}
	other.exec(t, "INSERT INTO files VALUES (5)")
	in.pull(t, "o", 1)

	// Taken out: kept, named, holds the log, and goes on where it stood when it comes back.
	in.apply(t, two("public.f*", subB, fromOther))
	gone := in.subscription(t, "a")
	if gone.State != "gone" || !strings.Contains(fmt.Sprint(gone.Waits), "--drop a") {
		t.Errorf("a is %q, %v", gone.State, gone.Waits)
	}
	has(t, in.plan(t, two("public.f*", subB, fromOther)), "keep subscriptions.a")
	db.exec(t, "INSERT INTO files VALUES (2)")
	b.waits(t, 2)
	in.apply(t, two("public.f*", subA, subB, fromOther))
	if got := a.waits(t, 2); len(got) != 2 || got[1].Data.Key["id"] != 2.0 {
		t.Errorf("a went on with %+v", got)
	}

	// Dropped: forgotten; then it is new again.
	if _, err := in.admin.Apply(t.Context(), connect.NewRequest(&leatv1.ApplyRequest{Name: "leat.yaml", Config: []byte(two("public.f*", subA, subB, fromOther)), Drop: []string{"a"}})); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("drop of what is in the file: %v", err)
	}
	has(t, changes(in.apply(t, two("public.f*", subB, fromOther), "a")), "remove a")
	if s := in.subscription(t, "a"); s.State != "" {
		t.Errorf("a is %q after its drop", s.State)
	}
	in.apply(t, two("public.f*", subA, subB, fromOther))
	a.waits(t, 4) // 1 and 2 again

	// A source that is gone from the file stays known until it is dropped.
	without := top + "sources:\n" + db.source() + "subscriptions:\n  " + subA + "\n  " + subB + "\n"
	in.apply(t, without)
	if s := in.source(t, "others"); s.State != "gone" {
		t.Errorf("the source that the file no longer names is %q", s.State)
	}
	has(t, in.plan(t, without), "keep sources.others")
	in.apply(t, without, "o", "others")
	if s := in.source(t, "others"); s.State != "" {
		t.Errorf("the dropped source is %q", s.State)
	}
}
