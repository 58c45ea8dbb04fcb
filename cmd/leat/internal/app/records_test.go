package app

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// Confluent's own deserialisers read what we write to Kafka, with no other registry than ours.
func TestConfluentDeserialisers(t *testing.T) {
	t.Parallel()
	python, err := servers.Python(t.Context(), nil, "../../../../clients/python/tests/requirements.txt")
	if err != nil {
		t.Fatalf("%v; the cure: install it, or set LEAT_CACHE to a folder with its packages", err)
	}
	at := servertest.Kafka(t, servers.KafkaOptions{}).Listeners[servers.ListenerPlain]
	db, topic := newPG(t), servertest.Name()
	db.exec(t, "CREATE TABLE kinds (id bigint PRIMARY KEY, price numeric(20,4), at timestamptz, day date, ref uuid, tags text[], body jsonb, raw bytea, ok boolean, ratio float8)")
	sub := func(form string) string {
		return fmt.Sprintf("%s: {source: files, tables: [public.kinds], deliver: {kafka: {brokers: ['%s'], topic: '%s.%s', encoding: %s}}}", form, at, topic, form, form)
	}
	in := install(t, t.TempDir(), db.yaml(sub("avro"), sub("protobuf")))
	in.streaming(t, "files")
	db.exec(t, `INSERT INTO kinds VALUES (1, -12345.6789, '2026-11-21 10:15:30.123456+00', '2026-11-21', '0198f0c2-0000-7000-8000-000000000000', '{a,NULL,"c d"}', '{"n": 1.50}', '\x00ff', true, 0.5)`,
		"INSERT INTO kinds (id, at, day) VALUES (2, 'infinity', '0044-03-15 BC')", "DELETE FROM kinds WHERE id = 1")
	for form, want := range map[string][]string{
		"avro": {`"key": {"id": 1}`, `"op": "insert"`, `"price": "-12345.6789"`, `"at": "2026-11-21 10:15:30.123456+00:00"`, `"day": "2026-11-21"`, `"ref": "0198f0c2-0000-7000-8000-000000000000"`,
			`"tags": ["a", null, "c d"]`, `"raw": "b'\\x00\\xff'"`, `"at": "infinity"`, `"day": "0044-03-15 BC"`, `"op": "delete"`, `"value": null`},
		"protobuf": {`"key": {"id": "1"}`, `"op": "OP_INSERT"`, `"price": "-12345.6789"`, `"at": "2026-11-21T10:15:30.123456Z"`, `"day": "2026-11-21"`, `"tags": ["a", null, "c d"]`, `"raw": "AP8="`,
			`"at": "infinity"`, `"op": "OP_DELETE"`, `"value": null`},
	} {
		out, err := exec.CommandContext(t.Context(), python, "testdata/deserialise.py", at, "http://"+in.addr+"/registry", topic+"."+form, form, "4").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s\n%v", form, err, out, in.subscription(t, form))
		}
		for _, part := range want {
			if !strings.Contains(string(out), part) {
				t.Errorf("%s: %s is not in\n%s", form, part, out)
			}
		}
	}
}
