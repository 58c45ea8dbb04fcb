package config

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
	"github.com/leat-cdc/leat/sinks/encode/records"
	"github.com/leat-cdc/leat/sinks/redis"
)

// Redis is a server or cluster of Redis or Valkey, or what speaks like them: an entry of a stream for each event, each
// once, in order per key.
type Redis struct {
	// redis://USER:PASSWORD@HOST:PORT/DATABASE of the server, or of a node of the
	// cluster; rediss:// over TLS.
	URL URL `json:"url" need:"true"`
	// Whether the server is a node of a cluster.
	Cluster bool `json:"cluster" default:"false"`
	// Other nodes of the cluster to begin with, HOST:PORT.
	Nodes []string `json:"nodes" form:"node"`
	// Stream of a table's events: a name, with {source}, {schema}, {table},
	// {subscription}. Of events of no table {schema}.{table} is leat.messages.
	Stream string `json:"stream" default:"{source}.{schema}.{table}" form:"stream"`
	// How many entries a stream keeps, about; 0: all, until somebody trims it.
	MaxLen int `json:"max_len" default:"0" min:"0" max:"1000000000000"`
	// Form of the events: json (CloudEvents structured) or debezium (its change event
	// as JSON without schemas).
	Encoding string `json:"encoding" default:"json" enum:"json|debezium"`
	// Whom to trust, and who we are (mutual TLS), of rediss://.
	TLS *ClientTLS `json:"tls"`
	// How long a delivery, and each answer, may take, 1s to 10m.
	Timeout Duration `json:"timeout" default:"30s" min:"1s" max:"10m"`
}

func checkNode(s string) *yamltree.Problem {
	p := checkBroker(s)
	if p != nil {
		p = p.Fix("like redis-2:6379")
	}
	return p
}

// checkStream is of a name with fields.
func checkStream(s string) *yamltree.Problem {
	_, err := records.ParseNameTemplate(s)
	var field *records.NameFieldError
	switch {
	case errors.As(err, &field):
		return yamltree.Wrong("names a field in braces that there is not").Fix("%s (like {source}.{schema}.{table})", yamltree.DidYouMean(field.Field, records.NameFields))
	case err != nil || s == "" || len(s) > 500 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return yamltree.Wrong("is not the name of a stream").Fix("text on one line, and fields in braces: like leat.{schema}.{table}")
	}
	return nil
}

// redis holds the rules over several fields.
func (c *checker) redis(path string, s *Subscription, r *Redis) {
	p := path + ".url"
	if u := r.URL.Parsed(); u != nil && c.ok(p) {
		var wrong *redis.URLError
		if err := redis.CheckURL(r.URL.Reveal(), r.Cluster); errors.As(err, &wrong) {
			c.fail(p, "want "+redis.URLForm, "%s: %s", p, wrong.What)
		} else if u.Scheme == "redis" && r.TLS != nil && c.ok(path+".tls") {
			c.fail(path+".tls", "begin the url with rediss://, or remove tls", "%s.tls is of no use: its url is redis://", path)
		}
	}
	if len(r.Nodes) > 0 && !r.Cluster && c.ok(path+".nodes") {
		c.fail(path+".nodes", "add cluster: true, or remove nodes", "%s.nodes are of a cluster", path)
	}
	c.tlsPair(path, r.TLS)
	c.unresolved(path, s)
	c.ownStream(path, s, r)
}

// ownStream refuses a stream that another subscription of the source writes too: entries are known by the offsets in
// their ids, so each would take the other's for its own, and leave its events out.
func (c *checker) ownStream(path string, s *Subscription, r *Redis) {
	u := r.URL.Parsed()
	if u == nil || strings.Contains(r.Stream, "{subscription}") || !c.ok(path+".url") || !c.ok(path+".stream") {
		return
	}
	mine := strings.TrimSuffix(strings.TrimPrefix(path, "subscriptions."), ".deliver.redis")
	for _, name := range slices.Sorted(maps.Keys(c.cfg.Subscriptions)) {
		other := c.cfg.Subscriptions[name]
		if name >= mine || other == nil || other.Source != s.Source || other.Deliver.Redis == nil || other.Deliver.Redis.Stream != r.Stream || apart(s.Tables, other.Tables) {
			continue
		}
		if o := other.Deliver.Redis.URL.Parsed(); o != nil && o.Host == u.Host && strings.Trim(o.Path, "/") == strings.Trim(u.Path, "/") {
			c.fail(path+".stream", "put {subscription} into one of them, or name it otherwise", "%s.stream is that of subscription %s too: each would take the other's entries for its own", path, name)
			return
		}
	}
}

// apart reports whether two lists of tables surely have none in common: both are of names.
func apart(a, b []string) bool {
	named := func(all []string) bool {
		return len(all) > 0 && !slices.ContainsFunc(all, func(t string) bool { return strings.ContainsAny(t, "*?!") })
	}
	return named(a) && named(b) && !slices.ContainsFunc(a, func(t string) bool { return slices.Contains(b, t) })
}

// tlsPair wants both or neither.
func (c *checker) tlsPair(path string, t *ClientTLS) {
	if t != nil && c.ok(path+".tls") && (t.Cert == "") != (t.Key == "") {
		c.fail(path+".tls", "give both cert and key, or neither", "%s.tls has one of cert and key", path)
	}
}

// unresolved refuses leat.resolved events where they do not go.
func (c *checker) unresolved(path string, s *Subscription) {
	sub, kind, _ := strings.Cut(path, ".deliver.")
	if s.Resolved > 0 && c.ok(sub+".resolved") {
		c.fail(sub+".resolved", "remove it", "%s.resolved: leat.resolved events do not go to %s in this version", sub, kind)
	}
}
