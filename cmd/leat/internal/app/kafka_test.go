package app

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// What is committed is read from Kafka by another client: in order per key, once, a tombstone behind each delete.
func TestKafka(t *testing.T) {
	t.Parallel()
	at := servertest.Kafka(t, servers.KafkaOptions{}).Listeners[servers.ListenerPlain]
	db, topic := newPG(t), servertest.Name()
	in := install(t, t.TempDir(), db.yaml(fmt.Sprintf("stream: {source: files, deliver: {kafka: {brokers: ['%s'], topic: '%s.{schema}.{table}', topics: {partitions: 3}}}}", at, topic)))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i, 'f'||i, i*10 FROM generate_series(1,500) i", "UPDATE files SET size = 0 WHERE id % 5 = 0", "DELETE FROM files WHERE id <= 100")
	const events, tombstones = 500 + 100 + 100, 100
	client, err := kgo.NewClient(kgo.SeedBrokers(at), kgo.ConsumeTopics(topic+".public.files"), kgo.UnknownTopicRetries(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen, last, dead, none := map[string]bool{}, map[string]string{}, map[string]bool{}, 0
	for len(seen) < events || none < tombstones {
		f := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d events and %d tombstones: %v; %v", len(seen), none, f.Errors(), in.subscription(t, "stream"))
		}
		f.EachRecord(func(r *kgo.Record) {
			key := string(r.Key)
			if r.Value == nil {
				none++
				dead[key] = true
				return
			}
			var e event
			if err := json.Unmarshal(r.Value, &e); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf(`{"id":%v}`, e.Data.Key["id"]); key != want || seen[e.ID] || last[key] >= e.Sequence || dead[key] {
				t.Errorf("record %s of %s, its row's last is %s: %s", e.ID, key, last[key], r.Value)
			}
			seen[e.ID], last[key] = true, e.Sequence
		})
	}
	if len(dead) != tombstones || len(last) != 500 {
		t.Errorf("%d rows are dead of %d", len(dead), len(last))
	}
}
