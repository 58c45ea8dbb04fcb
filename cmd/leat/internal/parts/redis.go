package parts

import (
	"fmt"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
	"github.com/leat-cdc/leat/sinks/redis"
)

// Redis returns the sink of a subscription to streams of Redis. It connects to nothing.
func Redis(name string, sub *config.Subscription, enc encode.Options) (*redis.Sink, error) {
	r := sub.Deliver.Redis
	o := redis.Options{URL: r.URL.Reveal(), Nodes: r.Nodes, Cluster: r.Cluster, Source: sub.Source, Subscription: name, MaxLen: int64(r.MaxLen), Timeout: r.Timeout.D()}
	var err error
	if o.TLS, err = clientTLS(r.TLS); err != nil {
		return nil, err
	}
	if o.Stream, err = records.ParseNameTemplate(r.Stream); err != nil {
		return nil, fmt.Errorf("stream %q: %w", r.Stream, err)
	}
	if o.Encoder, err = records.New(records.Options{Options: enc, Format: formats[r.Encoding]}); err != nil {
		return nil, err
	}
	return redis.New(o)
}
