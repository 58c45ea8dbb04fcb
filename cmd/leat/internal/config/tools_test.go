package config

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func compiled(t *testing.T) (*jsonschema.Schema, []byte) {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("leat.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("leat.json")
	if err != nil {
		t.Fatal(err)
	}
	return s, text
}

func instance(t *testing.T, text string) any {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSchema(t *testing.T) {
	s, text := compiled(t)
	if !json.Valid(text) || !strings.Contains(string(text), "draft/2020-12") {
		t.Error("not a schema of draft 2020-12")
	}
	// What the design shows, the parts that this version lacks included.
	full := strings.NewReplacer("#load:", "load:").Replace(readTest(t, "interface.yaml"))
	for _, good := range []string{full, readTest(t, "full.yaml"), string(Example()), "memory: ${SIZE}\n"} {
		if err := s.Validate(instance(t, good)); err != nil {
			t.Errorf("%v\n%s", err, good)
		}
	}
	for _, name := range []string{"unknown-field", "unknown-nested", "wrong-unit", "no-unit", "wrong-type", "wrong-type-nested", "quoted-bool", "missing-required", "missing-secret", "bad-name", "deliver-two", "deliver-none", "both-databases", "no-database", "enum", "tls-half", "ranges"} {
		text, _, _ := strings.Cut(readTest(t, filepath.Join("bad", name+".txtar")), "-- want --\n")
		if s.Validate(instance(t, strings.TrimPrefix(text, "-- leat.yaml --\n"))) == nil {
			t.Errorf("the schema takes %s", name)
		}
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	missing := 0
	var walk func(v any, path string)
	walk = func(v any, path string) {
		m, ok := v.(map[string]any)
		if !ok {
			return
		}
		if props, ok := m["properties"].(map[string]any); ok {
			for name, p := range props {
				if p.(map[string]any)["description"] == nil && !strings.Contains(path, "oneOf") {
					missing++
					t.Errorf("%s.%s has no description", path, name)
				}
			}
		}
		for k, x := range m {
			walk(x, path+"/"+k)
		}
	}
	walk(doc, "")
	for _, want := range []string{`"default": "512MiB"`, `"default": 100`, `Not supported by this version: kafka.`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the schema lacks %s", want)
		}
	}
}

func TestShow(t *testing.T) {
	for _, name := range []string{"interface.yaml", "full.yaml"} {
		c := parse(t, readTest(t, name))
		roundTrip(t, c)
		out, err := Show(c)
		if err != nil || leaks(string(out), goodSecret) || strings.Contains(string(out), "p@ss") {
			t.Errorf("%v\n%s", err, out)
		}
		if name == "interface.yaml" { // its secrets are references: no mask, and nothing differs
			again := parse(t, string(out))
			if d := Diff(c, again); len(d) > 0 {
				t.Errorf("what Show wrote differs: %v\n%s", d, out)
			}
		}
	}
}

func TestDiff(t *testing.T) {
	old := readTest(t, "interface.yaml")
	now := strings.NewReplacer("timeout: 15s", "timeout: 20s", "memory: 512MiB", "memory: 1GiB", "from: earliest", "from: latest",
		"  trace:", "  other:", "exhausted: park", "exhausted: skip", "${WEBHOOK_SECRET}", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "[namespace_id]", "[id]").Replace(old)
	got := ""
	for _, c := range Diff(parse(t, old), parse(t, now)) {
		got += c.String() + "\n"
	}
	want := `~ memory: 512MiB → 1GiB (takes effect at the next start)
~ sources.files.keys.public.files: [namespace_id] → [id] (holds for what is read from now on)
+ subscriptions.other
~ subscriptions.search.deliver.webhook.secret: ${WEBHOOK_SECRET} → ********
~ subscriptions.search.deliver.webhook.timeout: 15s → 20s
~ subscriptions.search.exhausted: park → skip
~ subscriptions.search.from: earliest → latest (changes nothing: from is read once, when the subscription is new; leat seek moves forward, leat backfill brings rows)
- subscriptions.trace (kept and paused; leat apply --drop trace drops it)
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	keep := parse(t, old)
	keep.Log.Retention.Size++
	if d := Diff(parse(t, old), keep); len(d) != 1 || d[0].Path != "log.retention.size" || d[0].Note != "" { // it holds at once
		t.Error(d)
	}
	if d := Diff(parse(t, old), parse(t, old)); len(d) != 0 {
		t.Error(d)
	}
	// The same text, another value of the variable.
	other := testOptions
	other.Env = func(n string) (string, bool) {
		if n == "PGPASSWORD" {
			return "rotated-now", true
		}
		return env(n)
	}
	c, err := Parse("leat.yaml", []byte(old), other)
	if err != nil {
		t.Fatal(err)
	}
	d := Diff(parse(t, old), c)
	if len(d) != 1 || d[0].Path != "sources.files.postgres.url" || strings.Contains(d[0].String(), "rotated") {
		t.Error(d)
	}
	if d := Diff(nil, c); len(d) == 0 || d[0].Op != Added {
		t.Error(d)
	}
}

func TestInit(t *testing.T) {
	for _, o := range []InitOptions{{}, {URL: "mysql://leat:${MYPASSWORD}@db:3306/"}, {URL: "postgres://leat:${PGPASSWORD}@db/app", Tables: []string{"public.files", "a.b"}}} {
		out, err := Init(o)
		if err != nil {
			t.Fatal(err)
		}
		c := parse(t, string(out))
		if c.CheckRun() != nil || c.Sources["main"] == nil || len(c.Subscriptions) != 2 {
			t.Errorf("%s", out)
		}
		if o.Tables != nil && len(c.Sources["main"].Tables) != 2 {
			t.Error(c.Sources["main"].Tables)
		}
	}
	if _, err := Init(InitOptions{URL: "postgres://leat:s3cr3t@db/app"}); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Error(err)
	}
	if err := parse(t, "memory: 1GiB").CheckRun(); err == nil || !strings.Contains(err.Error(), "leat.yaml:1:1: data is missing") {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "leat.yaml")
	if _, err := Load(path, testOptions); err == nil || !strings.Contains(err.Error(), "leat init") {
		t.Error(err)
	}
	if _, err := Load(dir, testOptions); err == nil {
		t.Error("a folder was read")
	}
	if err := os.WriteFile(path, []byte("data: d\nsources: {a: {postgres: {url: 'file:u'}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "u"), []byte("postgres://u:p@h/d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Data != filepath.Join(dir, "d") || c.Sources["a"].Postgres.URL.Reveal() != "postgres://u:p@h/d" || c.Sources["a"].Postgres.URL.String() != "file:u" {
		t.Errorf("%s %s", c.Data, c.Sources["a"].Postgres.URL)
	}
}

func TestWarnings(t *testing.T) {
	w := parse(t, readTest(t, "full.yaml")).Warnings()
	if len(w) != 1 || w[0].Line != 9 || w[0].Path != "tokens.0.roles.2" {
		t.Error(w)
	}
}

func TestPermits(t *testing.T) {
	def := parse(t, "data: x").Egress
	wide := Egress{Allow: []string{"public", "private", "loopback", "0.0.0.0/0", "::/0"}}
	for _, x := range []struct {
		addr      string
		def, wide bool
	}{
		{"8.8.8.8", true, true}, {"127.0.0.1", true, true}, {"::1", true, true}, {"10.0.0.1", false, true}, {"192.168.1.1", false, true},
		{"fd00::1", false, true}, {"100.64.0.1", false, true}, {"2001:4860:4860::8888", true, true}, {"::ffff:10.0.0.1", false, true},
		{"169.254.169.254", false, false}, {"::ffff:169.254.169.254", false, false}, {"fe80::1%eth0", false, false}, {"0.0.0.0", false, false},
		{"::", false, false}, {"224.0.0.1", false, false}, {"fd00:ec2::254", false, false}, {"100.100.100.200", false, false},
		{"64:ff9b::a9fe:a9fe", false, false}, {"64:ff9b::a00:1", false, false}, {"255.255.255.255", false, false},
		{"168.63.129.16", false, false}, {"192.0.0.192", false, false}, {"::169.254.169.254", false, false}, {"::127.0.0.1", false, false},
		{"2002:a9fe:a9fe::1", false, false}, {"64:ff9b:1::a9fe:a9fe", false, false}, {"2001::a9fe:a9fe", false, false}, {"fec0::1", false, false},
	} {
		a := netip.MustParseAddr(x.addr)
		if def.Permits(a) != x.def || wide.Permits(a) != x.wide {
			t.Errorf("%s: default %v, wide %v", a, def.Permits(a), wide.Permits(a))
		}
	}
}

func TestMatchTable(t *testing.T) {
	for _, x := range []struct {
		globs string
		table string
		want  bool
	}{
		{"public.*", "public.a", true}, {"public.*", "public.a.b", false}, {"*.*", "x.y", true}, {"public.* !public.tmp_*", "public.tmp_1", false},
		{"!public.tmp_* public.*", "public.tmp_1", false}, {"!public.tmp_*", "public.a", true}, {"", "public.a", true},
		{"shop_?.o*s", "shop_1.orders", true}, {"shop_?.o*s", "shop_10.orders", false}, {"a.b", "a.b", true}, {"a.b", "a.bc", false},
		{"*a*b*.x", "aab.x", true}, {"a.*b", "a.xbxb", true}, {"a?b", "a.b", false},
	} {
		if got := MatchTable(strings.Fields(x.globs), x.table); got != x.want {
			t.Errorf("%s %s: %v", x.globs, x.table, got)
		}
	}
}

// TestHostile feeds what would make the YAML parser recurse or crawl.
func TestHostile(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("[", 1<<19), strings.Repeat("- ", 1<<19), strings.Repeat("? ", 1<<18), strings.Repeat("a:\n", 1<<18),
		strings.Repeat("x", yamltree.MaxFile+1), "{" + strings.Repeat("a,", 1<<18), "data: \xff", "data: \x00", strings.Repeat(" ", 1<<18) + "a: b",
	} {
		if _, err := Parse("leat.yaml", []byte(text), testOptions); err == nil || len(err.Error()) > 2000 {
			t.Errorf("%.10q: %v", text, err)
		}
	}
}

func TestPermitsMapped(t *testing.T) {
	e := Egress{Allow: []string{"10.0.0.0/8"}}
	if !e.Permits(netip.MustParseAddr("::ffff:10.0.0.1")) || e.Permits(netip.MustParseAddr("8.8.8.8")) {
		t.Error("an IPv4 address in IPv6 form is the same address")
	}
}
