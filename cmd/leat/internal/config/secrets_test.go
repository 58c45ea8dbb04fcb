package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const alphabet = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

func randomSecret(r *rand.Rand) string {
	b := make([]byte, 20)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return "Q" + string(b)
}

// leaks looks for a secret, or a part of it long enough to matter.
func leaks(out, secret string) bool {
	for i := 0; i+8 <= len(secret); i++ {
		if strings.Contains(out, secret[i:i+8]) {
			return true
		}
	}
	return false
}

// secretFile is a file with a literal secret in each place that may hold one,
// and mistakes of other kinds beside them.
const secretPlaces = `memory: 512mb
log: {retention: {age: 3days}}
sources:
  a:
    postgres: {url: "postgres://leat:%[1]s@db/app", sloot: x}
  b:
    mysql:
      url: mysql://leat:%[1]s@db/
      server_id: many
subscriptions:
  s:
    source: b
    deliver: {webhook: {url: "https://u:%[1]s@h.example/x?token=%[1]s", secret: "whsec_%[1]s", timeout: 15sec, headers: {Authorization: "Bearer %[1]s"}}}
  t:
    source: c
    deliver:
      webhook:
        url: https://h.example
        secret:
          - %[1]s
          - |
            %[1]s
        headers:
          X-A: '%[1]s'
        timeout: 1
`

// TestNoSecretInErrors breaks the file in a random place, many times.
func TestNoSecretInErrors(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const noise = "{}[]:,\"'#&*!|>- \n\tax$%@"
	failed := 0
	for range 500 {
		s := randomSecret(r)
		text := fmt.Sprintf(secretPlaces, s)
		for range r.IntN(3) {
			i := r.IntN(len(text))
			if near := strings.Index(text[max(0, i-len(s)):min(len(text), i+len(s)+1)], s); near >= 0 {
				continue // a broken secret is another text
			}
			if strings.Contains(text[max(0, i-8):min(len(text), i+8)], "?token=") {
				continue // a parameter of another name is no secret that we know
			}
			if r.IntN(2) == 0 {
				text = text[:i] + text[i+1:]
			} else {
				text = text[:i] + string(noise[r.IntN(len(noise))]) + text[i:]
			}
		}
		_, err := Parse("leat.yaml", []byte(text), testOptions)
		if err == nil {
			t.Fatalf("no error:\n%s", text)
		}
		var errs Errors
		errors.As(err, &errs)
		j, _ := json.Marshal(errs)
		if leaks(err.Error()+string(j), s) && failed < 3 {
			failed++
			for _, e := range errs {
				if leaks(e.Error(), s) {
					t.Errorf("secret %s in:\n%v\nof:\n%s", s, e, text)
					break
				}
			}
		}
	}
}

// TestNoVariableInErrors gives the same secret to every variable of a file that
// has a reference in every scalar.
func TestNoVariableInErrors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[A-Za-z0-9:/@ .,-]{1,4}[A-Z]{12}[a-z0-9"'{}#%$ ]{0,8}`).Draw(t, "secret")
		var b strings.Builder
		for _, line := range strings.Split(fullText(t), "\n") {
			if k, v, ok := strings.Cut(line, ": "); ok && !strings.HasSuffix(v, "{") && rapid.Bool().Draw(t, "ref") {
				line = k + `: "` + rapid.SampledFrom([]string{"", "x", "5"}).Draw(t, "before") + `${X}"`
			}
			b.WriteString(line + "\n")
		}
		opts := testOptions
		opts.Env = func(string) (string, bool) { return s, true }
		c, err := Parse("leat.yaml", []byte(b.String()), opts)
		if err != nil && leaks(err.Error(), s) {
			t.Fatalf("%q in:\n%v", s, err)
		}
		if c != nil {
			out := fmt.Sprintf("%v %+v", c.Sources["files"].Postgres, c.Subscriptions["search"].Deliver.Webhook)
			if leaks(out, s) && !strings.Contains(fullText(t), s) && leaks(c.Subscriptions["search"].Deliver.Webhook.Secret[0].Reveal(), s) {
				t.Fatalf("%q in %s", s, out)
			}
		}
	})
}

// fullText is a valid file with a line for each scalar.
func fullText(t interface{ Fatal(...any) }) string {
	b, err := os.ReadFile(filepath.Join("testdata", "full.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// FuzzParse: never a panic, every error inside the file, and what parses is
// shown and read back the same.
func FuzzParse(f *testing.F) {
	names, _ := filepath.Glob("testdata/bad/*.txtar")
	for _, n := range append(names, "testdata/interface.yaml", "testdata/full.yaml", "example.yaml") {
		b, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(string(b), "-- leat.yaml --\n"), "-- want --\n")
		f.Add([]byte(text))
	}
	for _, s := range []string{"", "\ufeffdata: x", "a: &a [*a]", "? a\n: b", "data: x\r\nmemory: 1\r\n", "{", "- - - -", "data: \"\\x00\"", "\x80", "a: !!binary x", "<<: {}", "memory: |\n  x", "tls:\n", "? [a]\n: b", "tokens: [{}]", "log: {? : }"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("leat.yaml", data, testOptions)
		var errs Errors
		if errors.As(err, &errs) {
			lines := strings.Count(string(data), "\n") + 1
			for _, e := range errs {
				if e.Line < 1 || e.Line > lines || e.Col < 1 || e.Error() == "" || !strings.HasPrefix(e.Error(), "leat.yaml:") {
					t.Fatalf("%+v", e)
				}
			}
			return
		}
		if err != nil {
			t.Fatalf("%T is not Errors", err)
		}
		roundTrip(t, c)
	})
}

func roundTrip(t *testing.T, c *Config) {
	t.Helper()
	out, err := Show(c)
	if err != nil {
		t.Fatal(err)
	}
	opts := testOptions
	opts.Masked = true
	again, err := Parse("leat.yaml", out, opts)
	if err != nil {
		t.Fatalf("what Show wrote does not parse: %v\n%s", err, out)
	}
	second, err := Show(again)
	if err != nil || string(second) != string(out) {
		t.Fatalf("%v\n%s\nbecame\n%s", err, out, second)
	}
}
