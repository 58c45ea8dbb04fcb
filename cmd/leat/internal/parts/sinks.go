package parts

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path/filepath"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
	"github.com/leat-cdc/leat/sinks/file"
	"github.com/leat-cdc/leat/sinks/parquet"
	"github.com/leat-cdc/leat/sinks/pull"
	"github.com/leat-cdc/leat/sinks/search"
	"github.com/leat-cdc/leat/sinks/stdout"
	"github.com/leat-cdc/leat/sinks/table"
	"github.com/leat-cdc/leat/sinks/webhook"
)

// Sinks is what the sinks of an installation have in common.
type Sinks struct {
	// PublicURL of the installation, without a slash at its end.
	PublicURL string
	// Form reads the rows of a table version.
	Form func(*schemas.Table) *cell.Form
	// Share of what was encoded; nil = each sink encodes for itself.
	Share *encode.Share
	// Schemas gives the schemas of records their ids.
	Schemas records.Schemas
	// Tables of a source's log; nil: they are not known.
	Tables func(source string) []*schemas.Table
	// Hub serves the pull subscribers.
	Hub *pull.Hub
	// Stdout is where stdout sinks write.
	Stdout io.Writer
	// Opened, when set, is told of each webhook that was opened.
	Opened func(subscription string, w *webhook.Sink)
	// Searches, when set, is told of each search sink that was opened.
	Searches func(subscription string, w *search.Sink)
}

// Open returns what opens the sink of a subscription. A new sink is one case here.
func (s Sinks) Open(cfg *config.Config, name string) func(context.Context) (pipeline.Sink, error) {
	sub := cfg.Subscriptions[name]
	o := Encoding(sub, s.PublicURL, s.Form)
	o.Share = s.Share
	if sub.Filter != "" || len(sub.Tables) > 0 {
		o.Share = nil // what few take is not worth keeping for others
	}
	switch d := sub.Deliver; {
	case d.Webhook != nil:
		o.Separator = ','
		return func(context.Context) (pipeline.Sink, error) {
			return s.webhook(cfg, name, encode.JSON(o))
		}
	case d.Pull != nil:
		enc := encode.Proto(o)
		return func(context.Context) (pipeline.Sink, error) {
			admit, err := Admit(cfg, name, s.Form)
			if err != nil {
				return nil, err
			}
			return s.Hub.Sink(name, pull.Options{Source: sub.Source, Encoder: enc, Lease: d.Pull.Lease.D(), Order: pullOrders[sub.Order], Admit: admit}), nil
		}
	case d.Search != nil:
		return func(context.Context) (pipeline.Sink, error) {
			o, err := Search(sub, s.Form)
			if err != nil {
				return nil, err
			}
			w, err := search.New(o)
			if err == nil && s.Searches != nil {
				s.Searches(name, w)
			}
			return w, err
		}
	case d.Table != nil:
		return func(context.Context) (pipeline.Sink, error) {
			return table.New(TableSink(sub, s.Form))
		}
	case d.Parquet != nil:
		return func(context.Context) (pipeline.Sink, error) {
			return parquet.New(Parquet(cfg, name, encode.Proto(o)))
		}
	case d.File != nil:
		o.Separator = '\n'
		return func(context.Context) (pipeline.Sink, error) {
			return file.New(file.Options{Path: d.File.Path, Source: sub.Source, Rotate: int64(d.File.Rotate), Keep: d.File.Keep, Encoder: encode.JSON(o)}), nil
		}
	case d.Kafka != nil:
		return func(context.Context) (pipeline.Sink, error) {
			return Kafka(name, sub, o, s.Schemas, s.tables(sub))
		}
	case d.Redis != nil:
		return func(context.Context) (pipeline.Sink, error) {
			return Redis(name, sub, o)
		}
	case d.NATS != nil:
		return func(context.Context) (pipeline.Sink, error) {
			return NATS(name, sub, o)
		}
	case d.Stdout != nil:
		o.Separator = '\n'
		return func(context.Context) (pipeline.Sink, error) {
			return stdout.New(stdout.Options{Writer: s.Stdout, Source: sub.Source, Encoder: encode.JSON(o)}), nil
		}
	}
	return func(context.Context) (pipeline.Sink, error) {
		return nil, fmt.Errorf("subscription %q names no sink", name)
	}
}

// tables are those of the source's that the subscription asks for, whatever its filter says of their rows; nil when they
// are not known.
func (s Sinks) tables(sub *config.Subscription) func() []*schemas.Table {
	in, err := filter.ParseTables(sub.Tables)
	if s.Tables == nil || err != nil {
		return nil
	}
	return func() (all []*schemas.Table) {
		for _, t := range s.Tables(sub.Source) {
			if len(sub.Tables) == 0 || in.Match(t.Schema, t.Name) {
				all = append(all, t)
			}
		}
		return all
	}
}

var pullOrders = map[string]pull.Order{"key": pull.ByKey, "source": pull.BySource, "none": pull.NoOrder}

func (s Sinks) webhook(cfg *config.Config, name string, enc *encode.Encoder) (pipeline.Sink, error) {
	o, err := Webhook(cfg, cfg.Subscriptions[name])
	if err != nil {
		return nil, err
	}
	o.Encoder = enc
	if u, err := url.Parse(s.PublicURL); err == nil {
		o.Origin = u.Hostname()
	}
	w, err := webhook.New(o)
	if err != nil {
		return nil, err
	}
	if s.Opened != nil {
		s.Opened(name, w)
	}
	return w, nil
}

// Parquet returns the options of a sink of Parquet files.
func Parquet(cfg *config.Config, name string, enc *encode.Encoder) parquet.Options {
	sub := cfg.Subscriptions[name]
	d := sub.Deliver.Parquet
	return parquet.Options{Subscription: name, Source: sub.Source, Path: d.Path, S3: ParquetS3(d), Stage: filepath.Join(cfg.Data, "parquet", name),
		RollBytes: int64(d.Roll.Bytes), RollAge: d.Roll.Age.D(), Compression: d.Compression, Encoder: enc}
}

// ParquetS3 is how the bucket is reached.
func ParquetS3(d *config.Parquet) (o parquet.S3) {
	if s := d.S3; s != nil {
		o = parquet.S3{Endpoint: s.Endpoint, Region: s.Region, AccessKey: s.AccessKey.Reveal(), SecretKey: s.SecretKey.Reveal()}
	}
	return o
}

// Search returns the options of a search sink.
func Search(sub *config.Subscription, form func(*schemas.Table) *cell.Form) (o search.Options, err error) {
	d := sub.Deliver.Search
	o = search.Options{URL: d.URL.Reveal(), APIKey: d.APIKey.Reveal(), Timeout: d.Timeout.D(), Index: d.Index, Soft: d.Deletes == "soft", Tombstones: d.GCDeletes.D(),
		Shards: d.Shards, Replicas: d.Replicas, Encoding: Encoding(sub, "", form)}
	o.TLS, err = clientTLS(d.TLS)
	return o, err
}

// TableSink returns the options of a table sink.
func TableSink(sub *config.Subscription, form func(*schemas.Table) *cell.Form) table.Options {
	d := sub.Deliver.Table
	o := table.Options{URL: d.URL.Reveal(), Name: d.Name, Create: d.Create, Evolve: d.Evolve, Guard: d.Guard, Connections: d.Connections, Timeout: d.Timeout.D(),
		Encoding: Encoding(sub, "", form)}
	if o.Guard == "none" {
		o.Guard = ""
	}
	return o
}

// Webhook returns all options of a webhook but the encoder and our own name.
func Webhook(cfg *config.Config, sub *config.Subscription) (webhook.Options, error) {
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
