package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// kafkaKills is how often the process is killed while it produces: LEAT_KILLS of make test-kafka-kills, few in make test.
func kafkaKills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("LEAT_KILLS")
	if text == "" {
		return 4
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("LEAT_KILLS: %v", err)
	}
	return n
}

// Killed while it produces, Leat goes on behind what Kafka has: another client reads each event once, in order per key.
func TestKilledWhileProducing(t *testing.T) {
	t.Parallel()
	const keys = 300
	at := servertest.Kafka(t, servers.KafkaOptions{}).Listeners[servers.ListenerPlain]
	db, topic := servertest.Postgres(t, servers.PostgresOptions{}), servertest.Name()
	w := &workload{driver: "postgres", dsn: db.URL, table: "public.files",
		create: "CREATE TABLE files (id bigint PRIMARY KEY, n bigint, path text)",
		upsert: "INSERT INTO files VALUES ($1, 1, 'new') ON CONFLICT (id) DO UPDATE SET n = files.n + 1, path = 'changed'",
		remove: "DELETE FROM files WHERE id = $1"}
	var err error
	if w.db, err = sql.Open(w.driver, w.dsn); err != nil {
		t.Fatal(err)
	}
	defer w.db.Close()
	if _, err := w.db.Exec(w.create); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    postgres: {url: '%s', slot: %s}\n    tables: ['public.files']\nsubscriptions:\n  search:\n    source: files\n"+
		"    batch: {events: 50}\n    deliver: {kafka: {brokers: ['%s'], topic: %s, topics: {partitions: 3}}}\n", freeAddr(t), db.URL, db.Name, at, topic)
	if err := os.WriteFile(filepath.Join(dir, "leat.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &receiver{ids: map[string]uint64{}, last: map[int64]string{}, rows: map[int64]int64{}}
	consume(t, r, at, topic)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	p := startLeat(t, leatBinary(t), dir)
	p.ready()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx, rand.New(rand.NewPCG(seed, 2)), keys) }()
	kills := kafkaKills(t)
	for range kills {
		r.progress(t, p)
		<-time.NewTimer(time.Duration(rng.IntN(400)) * time.Millisecond).C
		p.kill()
		p = startLeat(t, leatBinary(t), dir)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatalf("workload: %v", err)
	}
	r.equals(t, p, w.rows(t))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.again > 0 {
		t.Errorf("%d events of %d came again over %d kills", r.again, len(r.ids), kills)
	}
	t.Logf("%d events over %d kills", len(r.ids), kills)
}

// consume hands each record of the topic to r until the test ends.
func consume(t *testing.T, r *receiver, broker, topic string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic), kgo.UnknownTopicRetries(-1), kgo.MetadataMinAge(50*time.Millisecond), kgo.MetadataMaxAge(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			client.PollFetches(ctx).EachRecord(func(rec *kgo.Record) {
				if rec.Value == nil {
					return
				}
				r.mu.Lock()
				r.take(rec.Value)
				r.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() { cancel(); reading.Wait(); client.Close() })
}
