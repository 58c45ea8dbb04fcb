package postgres

import (
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// TestFence: when a fence is passed, what was committed before it has come, also while others write and with no job.
func TestFence(t *testing.T) {
	t.Parallel()
	d := newDB(t, versions[len(versions)-1])
	d.exec(`create table files (id int primary key, v int)`, `create table mine (id int primary key)`)
	c := d.copying(nil, snapshot.Config{}, "", pipeline.SnapshotJob{ID: "a1"})
	c.open(false)
	stop := d.write(t, func(conn func(string, ...any), n int) {
		conn(`insert into files values ($1, 1) on conflict (id) do update set v = files.v + 1`, n%100)
	})
	defer stop()
	for n := range 20 {
		d.exec(`insert into mine select count(*) from mine`)
		passed := make(chan error, 1)
		go func() { passed <- c.stream.(pipeline.Fencer).Fence(t.Context()) }()
		for done := false; !done; {
			c.next()
			select {
			case err := <-passed:
				if err != nil {
					t.Fatal(err)
				}
				done = true
			default:
			}
		}
		if have := len(c.tables["public.mine"]); have != n+1 {
			t.Fatalf("behind the fence there are %d rows of %d", have, n+1)
		}
	}
	stop()
	ended := make(chan error, 1)
	go func() { ended <- c.stream.(pipeline.Fencer).Fence(t.Context()) }()
	c.close()
	if err := <-ended; err == nil {
		t.Fatal("a fence on a stream that ended was passed")
	}
}
