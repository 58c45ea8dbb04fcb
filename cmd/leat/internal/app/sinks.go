package app

import (
	"context"
	"fmt"
	"net/netip"

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
			return newWebhook(d.Webhook, sub, encode.JSON(o), cfg.Egress.Permits)
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

func newWebhook(w *config.Webhook, sub *config.Subscription, enc *encode.Encoder, permit func(netip.Addr) bool) (pipeline.Sink, error) {
	var secrets []webhook.Secret
	for _, text := range w.Secret {
		secret, err := webhook.ParseSecret(text.Reveal())
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, secret)
	}
	headers := map[string]string{}
	for name, value := range w.Headers {
		headers[name] = value.Reveal()
	}
	return webhook.New(webhook.Options{URL: w.URL.Reveal(), Secrets: secrets, Timeout: w.Timeout.D(), Headers: headers, Fatal: w.Fatal,
		MaxInFlight: sub.Flow.MaxInFlight, Source: sub.Source, Encoder: enc, Permit: permit, Unordered: sub.Order == "none"})
}
