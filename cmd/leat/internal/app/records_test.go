package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	schemaregistry "github.com/leat-cdc/leat/schemas/registry"
	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
)

// forms are the encodings that Confluent's clients read.
var forms = []string{"avro", "protobuf", "json_schema"}

// Confluent's own deserialisers read every type of the three databases from what we write to Kafka, with our registry and
// with one elsewhere: rows before and after, what is absent, values that a type has no form for.
func TestConfluentDeserialisers(t *testing.T) {
	t.Parallel()
	python, err := servers.Python(t.Context(), nil, "../../../../clients/python/tests/requirements.txt")
	if err != nil {
		t.Fatalf("%v; the cure: install it, or set LEAT_CACHE to a folder with its packages", err)
	}
	t.Run("own", func(t *testing.T) {
		t.Parallel()
		everyKind(t, python, t.TempDir(), "", "")
	})
	t.Run("elsewhere", func(t *testing.T) {
		t.Parallel()
		at, dir := servertest.Registry(t).URL, t.TempDir()
		g := newGate(t, at, "Bearer geheim")
		everyKind(t, python, dir, g.config(t, dir, "", "geheim"), at)
	})
}

// everyKind writes the kinds and compares what is read. Elsewhere is the registry that readers ask, empty for our own.
func everyKind(t *testing.T, python, dir, registry, elsewhere string) {
	at := servertest.Kafka(t, servers.KafkaOptions{}).Listeners[servers.ListenerPlain]
	list, topic := kindBases(t), servertest.Name()
	yaml := top + registry + "sources:\n"
	for i := range list {
		yaml += list[i].source
		list[i].exec(t, list[i].create())
	}
	yaml += "subscriptions:\n"
	var args []string
	for i := range list {
		for _, form := range forms {
			name := list[i].name + "-" + strings.TrimSuffix(form, "_schema")
			yaml += fmt.Sprintf("  %s: {source: %s, deliver: {kafka: {brokers: ['%s'], topic: '%s.%s', encoding: %s}}}\n", name, list[i].name, at, topic, name, form)
			args = append(args, fmt.Sprintf("%s.%s:%s:%d", topic, name, form, len(list[i].expect(form))))
		}
	}
	in := install(t, dir, yaml)
	for i := range list {
		in.streaming(t, list[i].name)
		list[i].exec(t, list[i].writes()...)
	}
	if elsewhere == "" {
		elsewhere = "http://" + in.addr + "/registry"
	} else {
		for i := range list {
			name := list[i].name + "-protobuf"
			until(t, name, func() bool { return in.subscription(t, name).Delivered > 0 })
			compile(t, elsewhere, dir, topic+"."+name)
		}
	}
	var wrong bytes.Buffer
	cmd := exec.CommandContext(t.Context(), python, append([]string{"testdata/deserialise.py", at, elsewhere, dir}, args...)...)
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s\n%v", err, out, wrong.String(), in.status(t).Subscriptions)
	}
	got := map[string][]record{}
	for line := range strings.Lines(string(out)) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		got[r.Topic] = append(got[r.Topic], r)
	}
	for i := range list {
		for _, form := range forms {
			t.Run(list[i].name+"-"+form, func(t *testing.T) {
				list[i].compare(t, form, got[topic+"."+list[i].name+"-"+strings.TrimSuffix(form, "_schema")])
			})
		}
	}
}

// compile does what protoc does of the files of a topic: Apicurio gives no descriptors.
func compile(t *testing.T, registry, dir, topic string) {
	t.Helper()
	c, err := schemaregistry.NewClient(schemaregistry.ClientOptions{URL: registry})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, subject := range []string{topic + "-key", topic + "-value"} {
		texts, err := c.Versions(t.Context(), subject, shape.Protobuf)
		if err != nil || len(texts) == 0 {
			t.Fatal(subject, texts, err)
		}
		descriptor, err := compat.SerializedProtobuf(texts[len(texts)-1])
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, subject), []byte(descriptor), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// record is one as the program prints it.
type record struct {
	Topic string
	Key   map[string]json.RawMessage
	Value *struct {
		Op            string
		Before, After map[string]json.RawMessage
		Absent        []string
		BeforeAbsent  []string `json:"before_absent"`
	}
}
