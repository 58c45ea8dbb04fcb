package kafka

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/schemas"
)

func TestTemplate(t *testing.T) {
	files := &schemas.Table{Schema: "public", Name: "ordnér x"}
	for text, want := range map[string]string{
		"{source}.{schema}.{table}": "files.public.ordn_r_x", "all": "all", "a-{subscription}_{table}": "a-search_ordn_r_x",
	} {
		if got, err := template(t, text).name("files", "search", files); err != nil || got != want {
			t.Errorf("%s gives %s, %v", text, got, err)
		}
	}
	if got, _ := template(t, "{schema}.{table}").name("files", "search", nil); got != "leat.messages" {
		t.Error(got)
	}
	for _, text := range []string{"", ".", "a b", "{table", "table}", "{table}}", "ä", string(make([]byte, 300))} {
		if _, err := ParseTemplate(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	var field *FieldError
	if _, err := ParseTemplate("{tabel}"); !errors.As(err, &field) || field.Field != "tabel" {
		t.Error(err)
	}
	long := &schemas.Table{Schema: "public", Name: string(make([]byte, 250))}
	if _, err := template(t, "{table}").name("", "", long); err == nil {
		t.Error("a name of 250 characters is taken")
	}
}

// The vectors of Kafka's own test, and another client's partitioner.
func TestPartition(t *testing.T) {
	for key, want := range map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%s) = %d, want %d", key, got, want)
		}
	}
	java := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	rapid.Check(t, func(t *rapid.T) {
		key, n := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key"), rapid.IntRange(1, 1000).Draw(t, "partitions")
		if got, want := partitionOf(key, n), java.Partition(&kgo.Record{Key: key}, n); got != want {
			t.Fatalf("%x of %d: %d, want %d", key, n, got, want)
		}
	})
}
