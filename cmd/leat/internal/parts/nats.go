package parts

import (
	"fmt"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
	"github.com/leat-cdc/leat/sinks/nats"
)

// NATS returns the sink of a subscription to a stream of NATS JetStream. It connects to nothing.
func NATS(name string, sub *config.Subscription, enc encode.Options) (*nats.Sink, error) {
	n := sub.Deliver.NATS
	o := nats.Options{URL: n.URL.Reveal(), Servers: n.Servers, Credentials: n.Credentials, NKey: n.NKey, Source: sub.Source, Subscription: name, Stream: n.Stream, Timeout: n.Timeout.D()}
	if c := n.Create; c != nil {
		o.Create = &nats.Create{Replicas: c.Replicas, MaxAge: c.MaxAge.D(), MaxBytes: int64(c.MaxBytes), Duplicates: c.Duplicates.D()}
	}
	var err error
	if o.TLS, err = clientTLS(n.TLS); err != nil {
		return nil, err
	}
	if o.Subject, err = nats.ParseSubject(n.Subject); err != nil {
		return nil, fmt.Errorf("subject %q: %w", n.Subject, err)
	}
	if o.Encoder, err = records.New(records.Options{Options: enc, Format: formats[n.Encoding]}); err != nil {
		return nil, err
	}
	return nats.New(o)
}
