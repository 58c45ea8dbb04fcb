package parts

import (
	"net/netip"
	"testing"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/sinks/webhook"
)

// What the file says of a webhook's way out reaches the sink.
func TestWebhookOptions(t *testing.T) {
	cfg, err := config.Parse("leat.yaml", []byte(`
zone: eu/b
egress: {allow: [public, 10.0.0.0/8], hosts: ["*.example"]}
sources:
  files: {postgres: {url: "postgres://leat@db/app"}}
subscriptions:
  search:
    source: files
    deliver:
      webhook:
        urls: [{url: "https://a.example/x", zone: eu/b}, {url: "https://b.other/x", zone: eu/c}, {url: "https://10.0.0.1/x"}]
        secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
        probe: /health
        proxy: {url: "http://proxy:3128", resolve: proxy}
        tls: {ca: /ca.pem, cert: /c.pem, key: /k.pem}
    flow: {max_in_flight: 9, per_host: 3}
`), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := Webhook(cfg, cfg.Subscriptions["search"])
	if err != nil {
		t.Fatal(err)
	}
	want := []webhook.Endpoint{{URL: "https://a.example/x", Rank: 0}, {URL: "https://b.other/x", Rank: 1, Ask: true}, {URL: "https://10.0.0.1/x", Rank: 2, Ask: true}}
	for i, e := range want {
		if o.URLs[i] != e {
			t.Errorf("url %d: %+v, want %+v", i, o.URLs[i], e)
		}
	}
	if o.PerHost != 3 || o.MaxInFlight != 9 || o.Probe != "/health" || o.Proxy != (webhook.Proxy{URL: "http://proxy:3128", Resolves: true}) ||
		o.TLS != (webhook.TLS{CA: "/ca.pem", Cert: "/c.pem", Key: "/k.pem"}) || len(o.Secrets) != 1 {
		t.Errorf("%+v", o)
	}
	if !o.Permit(netip.MustParseAddr("10.0.0.1")) || o.Permit(netip.MustParseAddr("192.168.0.1")) {
		t.Error("egress")
	}
}
