package app

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

const root = "../../../.."

type compose struct {
	Services map[string]struct {
		Image       string
		Build       string
		Command     []string
		Environment map[string]string
		Volumes     []string
		Ports       []string
		DependsOn   map[string]any `yaml:"depends_on"`
		Healthcheck map[string]any
	}
	Volumes map[string]any
}

// Docker may not run here; what the file says is held against what it names.
func TestComposeFileFitsWhatItNames(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	if err := yaml.UnmarshalWithOptions(text, &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	for name, s := range c.Services {
		if (s.Image == "") == (s.Build == "") {
			t.Errorf("service %s: image or build, one of them", name)
		}
		for dep := range s.DependsOn {
			if _, ok := c.Services[dep]; !ok {
				t.Errorf("service %s depends on %s, which is not there", name, dep)
			}
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("service %s: port %s is open to everyone", name, p)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, named := c.Volumes[from]; !named {
				if _, err := os.Stat(filepath.Join(root, from)); err != nil {
					t.Errorf("service %s: volume %s: %v", name, v, err)
				}
			}
		}
	}
	if !slices.Contains(c.Services["db"].Command, "wal_level=logical") {
		t.Error("the database does not write what logical replication needs")
	}
	env := c.Services["leat"].Environment
	cfg, err := config.Load(filepath.Join(root, "deploy", "leat.yaml"), config.Options{Env: func(k string) (string, bool) { v, ok := env[k]; return v, ok }})
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range cfg.Subscriptions {
		if host := sub.Deliver.Webhook.URL.Parsed().Hostname(); c.Services[host].Image == "" {
			t.Errorf("the webhook goes to %s, which is no service", host)
		}
	}
	if host := cfg.Sources["app"].Postgres.URL.Parsed().Hostname(); host != "db" {
		t.Errorf("the source is at %s", host)
	}
}

func TestDockerfileFitsTheModule(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)[1]
	if !strings.Contains(string(text), "golang:"+string(want)+"-") {
		t.Errorf("the image builds with another Go than go.mod's %s", want)
	}
	for _, path := range regexp.MustCompile(`\./cmd/\w+`).FindAllString(string(text), -1) {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
}
