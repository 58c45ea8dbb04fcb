package app

import (
	"context"
	"fmt"
	"net/url"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/file"
	"github.com/leat-cdc/leat/sinks/pull"
	"github.com/leat-cdc/leat/sinks/stdout"
	"github.com/leat-cdc/leat/sinks/webhook"
)

// sinkOf returns what opens the sink of a subscription. A new sink is one case here.
func (s *Server) sinkOf(cfg *config.Config, name string, sub *config.Subscription) func(context.Context) (pipeline.Sink, error) {
	o := encode.Options{Source: sub.Source, PublicURL: s.publicURL, Columns: sub.Columns, Int64AsString: sub.JSON.Int64 == "string",
		Form: s.forms.Of, Share: s.share}
	if sub.Filter != "" || len(sub.Tables) > 0 {
		o.Share = nil // what few take is not worth keeping for others
	}
	switch d := sub.Deliver; {
	case d.Webhook != nil:
		o.Separator = ','
		return func(context.Context) (pipeline.Sink, error) {
			return s.newWebhook(cfg, name, encode.JSON(o))
		}
	case d.Pull != nil:
		enc := encode.Proto(o)
		return func(context.Context) (pipeline.Sink, error) {
			return s.hub.Sink(name, pull.Options{Source: sub.Source, Encoder: enc, Lease: d.Pull.Lease.D(), Order: pullOrders[sub.Order]}), nil
		}
	case d.File != nil:
		o.Separator = '\n'
		return func(context.Context) (pipeline.Sink, error) {
			return file.New(file.Options{Path: d.File.Path, Source: sub.Source, Rotate: int64(d.File.Rotate), Keep: d.File.Keep, Encoder: encode.JSON(o)}), nil
		}
	case d.Stdout != nil:
		o.Separator = '\n'
		return func(context.Context) (pipeline.Sink, error) {
			return stdout.New(stdout.Options{Writer: s.o.Stdout, Source: sub.Source, Encoder: encode.JSON(o)}), nil
		}
	}
	return func(context.Context) (pipeline.Sink, error) {
		return nil, fmt.Errorf("subscription %q names no sink", name)
	}
}

var pullOrders = map[string]pull.Order{"key": pull.ByKey, "source": pull.BySource, "none": pull.NoOrder}

func (s *Server) newWebhook(cfg *config.Config, name string, enc *encode.Encoder) (pipeline.Sink, error) {
	o, err := webhookOptions(cfg, cfg.Subscriptions[name])
	if err != nil {
		return nil, err
	}
	o.Encoder = enc
	if u, err := url.Parse(s.publicURL); err == nil {
		o.Origin = u.Hostname()
	}
	w, err := webhook.New(o)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.webhooks[name] = w
	s.mu.Unlock()
	return w, nil
}

// webhookOptions are all but the encoder and our own name.
func webhookOptions(cfg *config.Config, sub *config.Subscription) (webhook.Options, error) {
	w := sub.Deliver.Webhook
	o := webhook.Options{Timeout: w.Timeout.D(), Headers: map[string]string{}, Fatal: w.Fatal, MaxInFlight: sub.Flow.MaxInFlight, PerHost: sub.Flow.PerHost,
		Source: sub.Source, Permit: cfg.Egress.Permits, Unordered: sub.Order == "none", Probe: w.Probe}
	for _, text := range w.Secret {
		secret, err := webhook.ParseSecret(text.Reveal())
		if err != nil {
			return o, err
		}
		o.Secrets = append(o.Secrets, secret)
	}
	for name, value := range w.Headers {
		o.Headers[name] = value.Reveal()
	}
	for _, t := range w.Targets() {
		e := webhook.Endpoint{URL: t.URL.Reveal(), Rank: cfg.Rank(t.Zone), Ask: w.Handshake == "always"}
		if u := t.URL.Parsed(); u != nil {
			e.Ask = e.Ask || cfg.Egress.Asks(u.Hostname())
		}
		o.URLs = append(o.URLs, e)
	}
	if p := w.Proxy; p != nil {
		o.Proxy = webhook.Proxy{URL: p.URL.Reveal(), Resolves: p.Resolve == "proxy"}
	}
	if t := w.TLS; t != nil {
		o.TLS = webhook.TLS{CA: t.CA, Cert: t.Cert, Key: t.Key}
	}
	return o, nil
}
