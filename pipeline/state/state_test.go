package state

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCursorsConform(t *testing.T) {
	pipetest.TestCursors(t, func(t *testing.T) (pipeline.Cursors, func() pipeline.Cursors) {
		path := filepath.Join(t.TempDir(), "a folder?#%", "state.db")
		s := open(t, path)
		return s, func() pipeline.Cursors {
			check(t, s.Close())
			return open(t, path)
		}
	})
}

func TestThePauseOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	check(t, s.SetPaused(t.Context(), "search", true, "index rebuild"))
	check(t, s.PutSubscription(t.Context(), Subscription{Name: "search", Source: "files", Spec: "x"}))
	check(t, s.Close())
	s = open(t, path)
	paused, why, err := s.Paused(t.Context(), "search")
	if err != nil || !paused || why != "index rebuild" {
		t.Fatalf("paused %v %q %v", paused, why, err)
	}
	all, err := s.Subscriptions(t.Context())
	if err != nil || len(all) != 1 || all[0].Source != "files" || !all[0].Paused {
		t.Fatalf("%+v %v", all, err)
	}
	if paused, _, err := s.Paused(t.Context(), "unknown"); err != nil || paused {
		t.Fatalf("unknown: %v %v", paused, err)
	}
}

func TestOneThatIsKnownIsPausedAndResumed(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	check(t, s.PutSubscription(t.Context(), Subscription{Name: "search", Source: "files", Spec: "x"}))
	for _, want := range []bool{true, false, true} {
		check(t, s.SetPaused(t.Context(), "search", want, "why"))
		if paused, _, err := s.Paused(t.Context(), "search"); err != nil || paused != want {
			t.Fatalf("paused %v, want %v: %v", paused, want, err)
		}
	}
}

// TestWhatIsSavedIsSynced: each commit is on the disk when it returns, also of what was opened by migrations.
func TestWhatIsSavedIsSynced(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	var level int
	var mode string
	check(t, s.write.QueryRow("PRAGMA synchronous").Scan(&level))
	check(t, s.write.QueryRow("PRAGMA journal_mode").Scan(&mode))
	if level != 2 || mode != "wal" {
		t.Fatalf("synchronous=%d (want 2, FULL), journal_mode=%s", level, mode)
	}
}

func TestDeadLettersAndSkips(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	at := time.Date(2026, 11, 21, 10, 0, 0, 1000, time.UTC)
	d := pipeline.DeadLetter{Subscription: "search", ID: "files-7", Offset: 7, Table: "public.files", Key: []byte{1}, KeyJSON: `{"id":1}`,
		Reason: "422", Attempts: []pipeline.Attempt{{Time: at, Took: time.Second, Reason: "422"}}, Event: []byte("{}"), Time: at}
	other := d
	other.Offset, other.ID, other.Event = 9, "files-9", make([]byte, MaxEvent+1)
	check(t, s.PutDeadLetters(t.Context(), []pipeline.DeadLetter{d, other}))
	check(t, s.PutDeadLetters(t.Context(), []pipeline.DeadLetter{d}))
	got, err := s.DeadLetters(t.Context(), "search", 0, 10, true)
	check(t, err)
	other.Event = nil
	if !reflect.DeepEqual(got, []pipeline.DeadLetter{d, other}) {
		t.Fatalf("%+v", got)
	}
	if got, _ := s.DeadLetters(t.Context(), "search", 7, 1, false); len(got) != 1 || got[0].Offset != 9 {
		t.Fatalf("%+v", got)
	}
	if n, err := s.CountDeadLetters(t.Context(), "search"); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if got, err := s.DeadOffsets(t.Context(), "search", 8); err != nil || len(got) != 1 || got[0] != 9 {
		t.Fatal(got, err)
	}
	check(t, s.DeleteDeadLetters(t.Context(), "search", []pipeline.Offset{9, 12}))
	if got, _ := s.DeadLetters(t.Context(), "search", 0, 10, true); !reflect.DeepEqual(got, []pipeline.DeadLetter{d}) {
		t.Fatalf("%+v", got)
	}
	park := pipeline.Park{Subscription: "search", Log: "l1", Hash: 4, From: 12}
	buried := d
	buried.Offset, buried.ID = 12, "files-12"
	check(t, s.Bury(t.Context(), buried, park))
	if ps, err := s.Parks(t.Context(), "search"); len(ps) != 1 || err != nil {
		t.Fatal(ps, err)
	}
	if n, err := s.CountDeadLetters(t.Context(), "search"); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	check(t, s.DeleteParks(t.Context(), []pipeline.Park{park}))
	check(t, s.DeleteDeadLetters(t.Context(), "search", []pipeline.Offset{12}))
	check(t, s.exec(t.Context(), "refuse parks", "CREATE TRIGGER refuse BEFORE INSERT ON parks BEGIN SELECT RAISE(FAIL, 'no'); END"))
	if err := s.Bury(t.Context(), buried, park); err == nil {
		t.Fatal("a park that was refused is no error")
	}
	if n, err := s.CountDeadLetters(t.Context(), "search"); n != 1 || err != nil {
		t.Fatalf("a letter without its park was kept: %d %v", n, err)
	}
	skip := pipeline.Skip{Subscription: "search", Ranges: []pipeline.OffsetRange{{From: 1, To: 5}}, Reason: "seek", Time: at}
	check(t, s.PutSkip(t.Context(), skip))
	check(t, s.PutSkip(t.Context(), skip))
	if got, err := s.Skips(t.Context(), "search", 10); err != nil || !reflect.DeepEqual(got, []pipeline.Skip{skip}) {
		t.Fatalf("%+v %v", got, err)
	}
	check(t, s.DropSubscription(t.Context(), "search"))
	if n, _ := s.CountDeadLetters(t.Context(), "search"); n != 0 {
		t.Fatal("dead letters outlive their subscription")
	}
}

func TestSourcesAndAudit(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	check(t, s.PutSource(t.Context(), Source{Name: "files", Log: "l1", Spec: "a"}))
	check(t, s.PutSource(t.Context(), Source{Name: "files", Log: "l2", Spec: "b"}))
	all, err := s.Sources(t.Context())
	if err != nil || len(all) != 1 || all[0].Log != "l2" {
		t.Fatalf("%+v %v", all, err)
	}
	check(t, s.DropSource(t.Context(), "files"))
	if left, err := s.Sources(t.Context()); err != nil || len(left) != 0 {
		t.Fatalf("%+v %v", left, err)
	}
}

func TestTheAuditLog(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	check(t, s.Audit(t.Context(), Entry{Time: time.UnixMicro(4), Actor: "ci", Action: "pause", Name: "search"}))
	e := Entry{Time: time.UnixMicro(5).UTC(), Actor: "ci", Action: "seek", Name: "search", Arguments: `{"to":7}`, Outcome: OutcomeRefused, Detail: "behind"}
	check(t, s.Audit(t.Context(), e))
	check(t, s.Audit(t.Context(), Entry{Time: time.UnixMicro(6), Action: "pause", Name: "other"}))
	names := func(q AuditQuery) (all []string) {
		got, err := s.AuditLog(t.Context(), q)
		check(t, err)
		for _, e := range got {
			all = append(all, e.Action+" "+e.Name+" "+e.Arguments+" "+e.Outcome)
		}
		return all
	}
	first, second, third := "pause search {} done", `seek search {"to":7} refused`, "pause other {} done"
	for _, x := range []struct {
		q    AuditQuery
		want []string
	}{
		{AuditQuery{Limit: 5}, []string{first, second, third}},
		{AuditQuery{Limit: 2}, []string{second, third}},
		{AuditQuery{Limit: 5, Since: e.Time}, []string{second, third}},
		{AuditQuery{Limit: 5, Name: "search"}, []string{first, second}},
		{AuditQuery{Limit: 5, Name: "nobody"}, nil},
	} {
		if got := names(x.q); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%+v: %q, want %q", x.q, got, x.want)
		}
	}
	if got, err := s.AuditLog(t.Context(), AuditQuery{Limit: 1, Since: e.Time, Name: "search"}); err != nil || len(got) != 1 || got[0] != e {
		t.Fatalf("%+v %v", got, err)
	}
	check(t, s.auditUpTo(t.Context(), Entry{Time: time.UnixMicro(7), Action: "apply"}, 2))
	if got := names(AuditQuery{Limit: 5}); len(got) != 2 || got[0] != third {
		t.Errorf("what is left of a full audit log: %q", got)
	}
}

func TestThrottlesOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	check(t, s.PutSubscription(t.Context(), Subscription{Name: "search", Source: "files"}))
	a := Throttle{Name: "files", Ratio: 0.5, Reason: "migration", Owner: "ops", Since: time.UnixMicro(5).UTC(), Until: time.UnixMicro(9).UTC()}
	b := Throttle{Name: "search", Ratio: 0, Owner: "ops", Since: time.UnixMicro(5).UTC()}
	check(t, s.PutThrottle(t.Context(), Throttle{Name: "search", Ratio: 1, Owner: "ci"}))
	for _, x := range []Throttle{a, b} {
		check(t, s.PutThrottle(t.Context(), x))
	}
	check(t, s.Close())
	s = open(t, path)
	if got, err := s.Throttles(t.Context()); err != nil || !reflect.DeepEqual(got, []Throttle{a, b}) {
		t.Fatalf("%+v %v", got, err)
	}
	check(t, s.DropThrottle(t.Context(), "files"))
	check(t, s.DropSubscription(t.Context(), "search"))
	if got, err := s.Throttles(t.Context()); err != nil || len(got) != 0 {
		t.Fatalf("%+v %v", got, err)
	}
}

func TestANewerStateIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	check(t, s.exec(t.Context(), "age", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"))
	check(t, s.Close())
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrNewer) {
		t.Fatalf("got %v", err)
	}
}

func TestBackupIsACopyOfOneMoment(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "state.db"))
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for i := range 20 {
				if err := s.Save(t.Context(), string(rune('a'+n)), pipeline.Cursor{Log: "l", Low: pipeline.Offset(i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	check(t, s.Backup(t.Context(), filepath.Join(dir, "copy.db")))
	all.Wait()
	if s.Backup(t.Context(), filepath.Join(dir, "copy.db")) == nil {
		t.Fatal("a backup overwrites what is there")
	}
	b := open(t, filepath.Join(dir, "copy.db"))
	if _, err := b.Subscriptions(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"state.db", "copy.db"} {
		if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st.Mode(), err)
		}
	}
}

// TestANewFileOwesNothingToOldOnes: what a start that was cut off left, and the write-ahead log of a file that is gone,
// are not taken for parts of it.
func TestANewFileOwesNothingToOldOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	check(t, s.PutSubscription(t.Context(), Subscription{Name: "search", Source: "files", Spec: "x"}))
	wal, err := os.ReadFile(path + "-wal")
	check(t, err)
	check(t, s.Close())
	check(t, os.Remove(path))
	check(t, os.WriteFile(path+"-wal", wal, 0o600))
	check(t, os.WriteFile(path+".new", []byte("cut off"), 0o600))
	s = open(t, path)
	if all, err := s.Subscriptions(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%v %v", all, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("the part is still there")
	}
	check(t, s.PutSubscription(t.Context(), Subscription{Name: "archive", Source: "files", Spec: "x"}))
}
