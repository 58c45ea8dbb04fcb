package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func (in *installation) verify(t *testing.T, r *leatv1.VerifyRequest) *leatv1.VerifiedTable {
	t.Helper()
	stream, err := in.admin.Verify(t.Context(), connect.NewRequest(r))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for stream.Receive() {
		if report := stream.Msg().GetReport(); report != nil {
			if len(report.Tables) != 1 {
				t.Fatalf("%d tables", len(report.Tables))
			}
			return report.Tables[0]
		}
	}
	t.Fatalf("no report: %v", stream.Err())
	return nil
}

func kinds(v *leatv1.VerifiedTable) map[string]string {
	all := map[string]string{}
	for _, d := range v.Differences {
		all[d.Key] = d.Kind + fmt.Sprint(d.Columns)
	}
	return all
}

// What was delivered is compared with the table while both change; a change that the log never saw is found, and
// brought by a backfill of just those rows.
func TestVerify(t *testing.T) {
	t.Parallel()
	db, h := newPG(t), newHook(t)
	db.exec(t, "INSERT INTO files SELECT i, 'old', 1 FROM generate_series(1, 50) i")
	in := install(t, t.TempDir(), db.yaml("a: {source: files, filter: 'after.size < 1000', deliver: {"+toHook(h)+"}}"))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i, 'it''s \\ ' || i, i FROM generate_series(51, 2000) i", "UPDATE files SET size = 5 WHERE id % 7 = 0 AND id > 50", "DELETE FROM files WHERE id % 100 = 60")
	stop := db.writes(t)
	r := in.verify(t, &leatv1.VerifyRequest{Subscription: "a"})
	stop()
	if r.Error != "" || r.Different != 0 || r.BeyondRetention != 50 || r.Compared == 0 || r.Filtered == 0 {
		t.Fatalf("%v", r)
	}
	for _, g := range r.Ranges {
		if g.SourceRows != g.OtherRows || g.SourceSum != g.OtherSum {
			t.Errorf("%v", g)
		}
	}

	db.exec(t, "ALTER PUBLICATION "+db.slot()+"_files SET (publish = 'insert')", "UPDATE files SET name = 'lost' WHERE id IN (70, 71)", "DELETE FROM files WHERE id = 72",
		"ALTER PUBLICATION "+db.slot()+"_files SET (publish = 'insert, update, delete, truncate')", "INSERT INTO files VALUES (3000, 'behind it', 1)")
	want := map[string]string{`{"id":70}`: "different[name]", `{"id":71}`: "different[name]", `{"id":72}`: "extra[]"}
	r = in.verify(t, &leatv1.VerifyRequest{Subscription: "a"})
	if have := kinds(r); !maps.Equal(have, want) || len(r.Repair) != 1 {
		t.Fatalf("found %v, want %v; %v", have, want, r.Repair)
	}
	job, err := in.admin.Backfill(t.Context(), connect.NewRequest(&leatv1.BackfillRequest{Subscription: "a", Tables: []string{r.Table}, Where: r.Repair[0]}))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the backfill's end", func() bool {
		jobs, err := in.admin.Jobs(t.Context(), connect.NewRequest(&leatv1.JobsRequest{Id: job.Msg.Job.Id}))
		return err == nil && len(jobs.Msg.Jobs) == 1 && jobs.Msg.Jobs[0].State == "done" && jobs.Msg.Jobs[0].Done == 2
	})
	delete(want, `{"id":70}`)
	delete(want, `{"id":71}`)
	if have := kinds(in.verify(t, &leatv1.VerifyRequest{Subscription: "a"})); !maps.Equal(have, want) {
		t.Fatalf("found %v, want %v", have, want)
	}
}

// writes has another connection change rows above 1000 until the returned func is called.
func (db *pg) writes(t *testing.T) (stop func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var join sync.WaitGroup
	join.Go(func() {
		defer conn.Close(context.Background())
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			id := 1000 + n*37%1000
			for _, q := range []string{"UPDATE files SET size = size + 1 WHERE id = $1", "DELETE FROM files WHERE id = $1 + 1", "INSERT INTO files VALUES ($1 + 2, 'new', 1) ON CONFLICT DO NOTHING"} {
				if _, err := conn.Exec(context.Background(), q, id); err != nil {
					t.Errorf("%s: %v", q, err)
					return
				}
			}
		}
	})
	return func() { close(done); join.Wait() }
}

// A target is compared row by row with the source, though it was never published.
func TestVerifyTarget(t *testing.T) {
	t.Parallel()
	db, h := newPG(t), newHook(t)
	in := install(t, t.TempDir(), db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}"))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i, 'name ' || i, i FROM generate_series(1, 500) i")
	h.waits(t, 500)
	copied := newPG(t)
	copied.exec(t, "ALTER TABLE files ADD COLUMN loaded timestamptz DEFAULT now()", "INSERT INTO files SELECT i, 'name ' || i, i FROM generate_series(1, 500) i")
	request := &leatv1.VerifyRequest{Subscription: "a", Tables: []string{"public.files"}, Target: copied.URL}
	if r := in.verify(t, request); r.Error != "" || r.Different != 0 || r.Compared != 500 {
		t.Fatalf("%v", r)
	}
	copied.exec(t, "UPDATE files SET size = 0 WHERE id = 10", "DELETE FROM files WHERE id = 20", "INSERT INTO files VALUES (900)")
	want := map[string]string{`{"id":10}`: "different[size]", `{"id":20}`: "missing[]", `{"id":900}`: "extra[]"}
	r := in.verify(t, request)
	if have := kinds(r); !maps.Equal(have, want) {
		t.Fatalf("found %v, want %v", have, want)
	}
	if slices.Contains(r.Repair, "900") || len(r.Repair) != 1 {
		t.Errorf("repair: %v", r.Repair)
	}
	for _, bad := range []string{"http://x", "mysql://u@127.0.0.1/", "::"} {
		stream, err := in.admin.Verify(t.Context(), connect.NewRequest(&leatv1.VerifyRequest{Subscription: "a", Target: bad}))
		if err == nil {
			stream.Receive()
			err = stream.Err()
			stream.Close()
		}
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
