package parts

import (
	"fmt"
	"os"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/sched"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/gate"
)

// Subscription is what the file says of how a subscription delivers; what the installation gives it (memory,
// throttle, grace, the text of dead letters) is left empty. Errors name their place in the file.
func Subscription(cfg *config.Config, name string, form func(*schemas.Table) *cell.Form) (deliver.Config, error) {
	sub := cfg.Subscriptions[name]
	program, err := Filter(sub, form)
	if err != nil {
		return deliver.Config{}, cfg.Errorf("subscriptions."+name+".filter", "%v", err)
	}
	c := deliver.Config{Name: name, Source: sub.Source, Filter: program, From: start(sub.From), Order: orders[sub.Order],
		MaxInFlight: sub.Flow.MaxInFlight, Adaptive: sub.Deliver.Webhook != nil || sub.Deliver.Search != nil, Rate: sub.Flow.Rate,
		Batch:    deliver.Batch{Events: sub.Batch.Events, Bytes: int(sub.Batch.Bytes), Wait: sub.Batch.Wait.D()},
		Retry:    deliver.Retry{Initial: sub.Retry.Initial.D(), Max: sub.Retry.Max.D(), Attempts: sub.Retry.Attempts, Age: sub.Retry.Age.D()},
		Resolved: sub.Resolved.D()}
	if c.Priority, err = sched.ParseClass(sub.Priority); err != nil {
		return c, cfg.Errorf("subscriptions."+name+".priority", "%v", err)
	}
	switch sub.Exhausted {
	case "skip":
		c.Exhausted = deliver.ExhaustedSkip
	case "park":
		c.Exhausted = deliver.ExhaustedPark
	}
	switch sub.Laggard {
	case "skip":
		c.Laggard = deliver.LaggardSkip
	case "snapshot":
		c.Laggard = deliver.LaggardSnapshot
	}
	if sub.Deliver.Pull == nil { // which asks for itself
		if c.Admit, err = Admit(cfg, name, form); err != nil {
			return c, err
		}
	}
	switch d := sub.Deliver; {
	case d.Webhook != nil:
		c.Timeout = d.Webhook.Timeout.D()
	case d.Kafka != nil:
		c.Timeout = d.Kafka.Timeout.D()
		if d.Kafka.ExactlyOnce {
			c.Order, c.Whole = deliver.OrderSource, true
		}
	case d.Redis != nil:
		c.Timeout = d.Redis.Timeout.D()
	case d.NATS != nil:
		c.Timeout = d.NATS.Timeout.D()
	}
	if s := sub.Deliver.Search; s != nil {
		c.Timeout = s.Timeout.D()
	}
	if t := sub.Deliver.Table; t != nil {
		c.Timeout, c.MaxInFlight = t.Timeout.D(), min(c.MaxInFlight, t.Connections)
	}
	return c, nil
}

var orders = map[string]deliver.Order{"key": deliver.OrderKey, "source": deliver.OrderSource, "none": deliver.OrderNone}

func start(f config.From) deliver.Start {
	return deliver.Start{Latest: f.Kind == config.FromLatest, Snapshot: f.Kind == config.FromSnapshot, Offset: pipeline.Offset(f.Offset), Time: f.Time.Time}
}

// Filter compiles the tables and the filter of a subscription; nil when it takes everything.
func Filter(sub *config.Subscription, form func(*schemas.Table) *cell.Form) (*filter.Program, error) {
	if len(sub.Tables) == 0 && sub.Filter == "" {
		return nil, nil
	}
	return filter.Compile(filter.Options{Tables: sub.Tables, Expr: sub.Filter, Form: form})
}

// Encoding is how a subscription's events look, whoever gets them.
func Encoding(sub *config.Subscription, publicURL string, form func(*schemas.Table) *cell.Form) encode.Options {
	return encode.Options{Source: sub.Source, PublicURL: publicURL, Columns: sub.Columns, Mapping: mapping(sub), Int64AsString: sub.JSON.Int64 == "string", Form: form}
}

func mapping(sub *config.Subscription) map[string]encode.Mapping {
	if len(sub.Mapping) == 0 {
		return nil
	}
	all := map[string]encode.Mapping{}
	for table, m := range sub.Mapping {
		if m == nil {
			continue
		}
		e := encode.Mapping{Rename: m.Rename, Drop: m.Drop, Cast: m.Cast, Mask: m.Mask, Salt: m.Salt.Reveal(), Constant: map[string]any{}}
		for name, c := range m.Constant {
			e.Constant[name] = c.Value
		}
		all[table] = e
	}
	return all
}

// Admit returns what holds the tables of a subscription against its mapping and contract; nil where it has neither.
func Admit(cfg *config.Config, name string, form func(*schemas.Table) *cell.Form) (func(*pipeline.Delivery) error, error) {
	sub := cfg.Subscriptions[name]
	contract, err := Contract(sub)
	if err != nil {
		return nil, cfg.Errorf("subscriptions."+name+".contract", "%v", err)
	}
	if g := gate.New(gate.Options{Encoding: Encoding(sub, cfg.PublicURL, form), Contract: contract}); g != nil {
		return g.Admit, nil
	}
	return nil, nil
}

// maxContract bounds the file of a contract; bytes.
const maxContract = 1 << 20

// Contract is what the file says of a subscription's contract; nil when it has none.
func Contract(sub *config.Subscription) (*gate.Contract, error) {
	c := sub.Contract
	if c == nil {
		return nil, nil
	}
	format, err := gate.FormatOf(c.Schema)
	if err != nil {
		return nil, err
	}
	mode, err := compat.Parse(c.Compatibility)
	if err != nil {
		return nil, err
	}
	return &gate.Contract{Name: c.Schema, Format: format, Mode: mode, Tables: c.Tables, Read: func() (string, error) {
		if st, err := os.Stat(c.Schema); err == nil && (!st.Mode().IsRegular() || st.Size() > maxContract) {
			return "", fmt.Errorf("the contract %s is no file of at most 1 MiB", c.Schema)
		}
		p, err := os.ReadFile(c.Schema)
		if err != nil {
			return "", fmt.Errorf("read the contract: %w", err)
		}
		return string(p), nil
	}}, nil
}
