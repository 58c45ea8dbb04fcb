package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// wholeReader is a read_committed consumer that notes which rows of which source transaction stand in which transaction of
// Kafka.
type wholeReader struct {
	mu    sync.Mutex
	group int // of Kafka's transactions
	rows  int
	in    map[int64]int // group of each source transaction
	seen  map[int64]map[int64]bool
	last  string // sequence
	wrong string
}

// take takes a record of the topic, which has one partition.
func (r *wholeReader) take(rec *kgo.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.Attrs.IsControl() {
		r.group++
		return
	}
	var e struct {
		Sequence string
		Data     struct{ After struct{ Tx, N int64 } }
	}
	if err := json.Unmarshal(rec.Value, &e); err != nil {
		r.wrong = err.Error()
	}
	if e.Sequence == "" || e.Data.After.Tx == 0 { // what is resolved
		return
	}
	tx := e.Data.After.Tx
	if r.seen[tx] == nil {
		r.seen[tx], r.in[tx] = map[int64]bool{}, r.group
	}
	switch {
	case e.Sequence <= r.last:
		r.wrong = fmt.Sprintf("%s comes behind %s", e.Sequence, r.last)
	case r.in[tx] != r.group:
		r.wrong = fmt.Sprintf("row %d of transaction %d is in Kafka's %d, others in %d", e.Data.After.N, tx, r.group, r.in[tx])
	case r.seen[tx][e.Data.After.N]:
		r.wrong = fmt.Sprintf("row %d of transaction %d came again", e.Data.After.N, tx)
	}
	r.last, r.seen[tx][e.Data.After.N] = e.Sequence, true
	r.rows++
}

func (r *wholeReader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rows
}

// writeWhole commits transactions of rows (tx, n) of which the last ones are not kept by the filter, until ctx ends, then
// returns how many kept rows each has.
func writeWhole(ctx context.Context, db *sql.DB, rng *rand.Rand) (kept map[int64]int64, err error) {
	kept = map[int64]int64{}
	for tx := int64(1); ctx.Err() == nil; tx++ {
		n := int64(1 + rng.IntN(8))
		if rng.IntN(12) == 0 {
			n = int64(200 + rng.IntN(900)) // many Deliveries
		}
		drop := rng.Int64N(min(n, 100))
		t, err := db.Begin()
		if err != nil {
			return kept, err
		}
		for i, table := range []string{"files", "folders"} {
			if _, err := t.Exec(fmt.Sprintf("INSERT INTO %s SELECT $1, i, i <= $2 FROM generate_series(1, $3) i WHERE i %% 2 = $4", table), tx, n-drop, n, i); err != nil {
				return kept, err
			}
		}
		if err := t.Commit(); err != nil {
			return kept, err
		}
		kept[tx] = n - drop
		<-time.NewTimer(time.Duration(rng.IntN(30)) * time.Millisecond).C
	}
	return kept, nil
}

// Killed while it produces whole transactions, also within large ones: a read_committed consumer reads each row once, in
// commit order, those of a transaction of the source in one of Kafka.
func TestKilledWhileProducingWhole(t *testing.T) {
	t.Parallel()
	at := servertest.Kafka(t, servers.KafkaOptions{}).Listeners[servers.ListenerPlain]
	server, topic := servertest.Postgres(t, servers.PostgresOptions{}), servertest.Name()
	db, err := sql.Open("postgres", server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, table := range []string{"files", "folders"} {
		if _, err := db.Exec("CREATE TABLE " + table + " (tx bigint, n bigint, kept bool, PRIMARY KEY (tx, n))"); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	config := fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    postgres: {url: '%s', slot: %s}\n    tables: ['public.*']\nsubscriptions:\n  search:\n    source: files\n"+
		"    filter: 'after.kept'\n    resolved: 100ms\n    batch: {events: 50}\n    deliver: {kafka: {brokers: ['%s'], topic: %s, topics: {partitions: 1}, exactly_once: true}}\n", freeAddr(t), server.URL, server.Name, at, topic)
	if err := os.WriteFile(filepath.Join(dir, "leat.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &wholeReader{in: map[int64]int{}, seen: map[int64]map[int64]bool{}}
	consumeWhole(t, r, at, topic)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	p := startLeat(t, leatBinary(t), dir)
	p.ready()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	type result struct {
		kept map[int64]int64
		err  error
	}
	done := make(chan result, 1)
	go func() {
		kept, err := writeWhole(ctx, db, rand.New(rand.NewPCG(seed, 2)))
		done <- result{kept, err}
	}()
	kills := kafkaKills(t)
	for range kills {
		r.grows(t, p, r.count()+1)
		<-time.NewTimer(time.Duration(rng.IntN(600)) * time.Millisecond).C
		p.kill()
		p = startLeat(t, leatBinary(t), dir)
	}
	stop()
	wrote := <-done
	if wrote.err != nil {
		t.Fatalf("workload: %v", wrote.err)
	}
	rows := 0
	for _, n := range wrote.kept {
		rows += int(n)
	}
	r.grows(t, p, rows)
	r.mu.Lock()
	defer r.mu.Unlock()
	for tx, n := range wrote.kept {
		if int64(len(r.seen[tx])) != n && r.wrong == "" {
			r.wrong = fmt.Sprintf("transaction %d has %d rows of %d", tx, len(r.seen[tx]), n)
		}
	}
	if r.wrong != "" {
		t.Error(r.wrong)
	}
	t.Logf("%d rows of %d transactions in %d of Kafka's over %d kills", r.rows, len(wrote.kept), r.group, kills)
}

// grows waits until n rows were read.
func (r *wholeReader) grows(t *testing.T, p *process, n int) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); r.count() < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d rows of %d came\n%s", r.count(), n, p.log())
		}
		<-time.NewTimer(20 * time.Millisecond).C
	}
}

// consumeWhole hands each record of the topic to r until the test ends.
func consumeWhole(t *testing.T, r *wholeReader, broker, topic string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic), kgo.UnknownTopicRetries(-1), kgo.MetadataMinAge(50*time.Millisecond), kgo.MetadataMaxAge(time.Second),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			client.PollFetches(ctx).EachRecord(r.take)
		}
	})
	t.Cleanup(func() { cancel(); reading.Wait(); client.Close() })
}
