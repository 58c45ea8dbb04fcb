package app

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// Changes of a database stand in a stream of Redis and in one of NATS, each once and in the same order per row, over a
// restart.
func TestRedisAndNATS(t *testing.T) {
	t.Parallel()
	v, n, db, dir := servertest.Valkey(t, servers.ValkeyOptions{}), servertest.NATS(t, servers.NATSOptions{}), newPG(t), t.TempDir()
	stream := servertest.Name()
	yaml := db.yaml(fmt.Sprintf("r: {source: files, deliver: {redis: {url: '%s', stream: %s}}}", v.URL, stream),
		fmt.Sprintf("n: {source: files, deliver: {nats: {url: '%s', stream: %s, subject: '%s.{schema}.{table}', create: {}}}}", n.URL, stream, stream))
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i, 'f'||i, 1 FROM generate_series(1,200) i", "UPDATE files SET size = 2 WHERE id % 5 = 0")
	u, err := url.Parse(v.URL)
	if err != nil {
		t.Fatal(err)
	}
	cache := redis.NewClient(&redis.Options{Addr: u.Host})
	defer cache.Close()
	nc, err := nats.Connect(n.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	there := func() (uint64, int64) {
		s, err := js.Stream(t.Context(), stream)
		if err != nil {
			return 0, 0 // not made yet
		}
		return s.CachedInfo().State.Msgs, cache.XLen(t.Context(), stream).Val()
	}
	both := func(want int) {
		t.Helper()
		until(t, fmt.Sprintf("%d in both", want), func() bool { a, b := there(); return a >= uint64(want) && b >= int64(want) })
	}
	both(240)
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	db.exec(t, "DELETE FROM files WHERE id <= 100", "UPDATE files SET size = 3 WHERE id % 5 = 0")
	install(t, dir, yaml)
	both(360)

	var redisIDs, natsIDs []string
	entries, err := cache.XRange(t.Context(), stream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	ordered := func(ids *[]string, last map[string]string, id, key string) {
		if *ids = append(*ids, id); last[key] >= id { // offsets of one log have as many digits
			t.Errorf("of %s %s comes behind %s", key, id, last[key])
		}
		last[key] = id
	}
	last := map[string]string{}
	for _, e := range entries {
		ordered(&redisIDs, last, fmt.Sprint(e.Values["id"]), fmt.Sprint(e.Values["key"]))
	}
	consumer, err := js.OrderedConsumer(t.Context(), stream, jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	clear(last)
	for range 360 {
		m, err := consumer.Next(jetstream.FetchMaxWait(30 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject() != stream+".public.files" {
			t.Error(m.Subject())
		}
		ordered(&natsIDs, last, m.Headers().Get("id"), m.Headers().Get("key"))
	}
	if a, b := there(); a != 360 || b != 360 || len(redisIDs) != 360 {
		t.Errorf("%d in NATS, %d in Redis", a, b)
	}
}
