package config

import (
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"sort"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// derive fills in the defaults that depend on other fields.
func (c *Config) derive() {
	if len(c.Egress.Allow) == 0 {
		c.Egress.Allow = []string{"public"}
		if onLoopback(c.Listen) {
			c.Egress.Allow = append(c.Egress.Allow, "loopback")
		}
	}
	if c.PublicURL == "" {
		c.PublicURL = publicURL(c.Listen, c.TLS.Enabled())
	}
	for name, s := range c.Subscriptions {
		if s == nil || !s.Deliver.large() {
			continue
		}
		at := "subscriptions." + name
		if c.doc.Paths[at+".batch.events"] == nil {
			s.Batch.Events = kafkaEvents
		}
		if c.doc.Paths[at+".batch.bytes"] == nil {
			s.Batch.Bytes = min(kafkaBytes, c.Memory)
		}
		if s.Deliver.Kafka != nil && c.doc.Paths[at+".flow.max_in_flight"] == nil {
			s.Flow.MaxInFlight = kafkaInFlight
		}
	}
	for name, s := range c.Sources {
		if s == nil {
			continue
		}
		if p := s.Postgres; p != nil {
			if p.Slot == "" {
				p.Slot = derivedName(name)
			}
			if p.Publication == "" {
				p.Publication = derivedName(name)
			}
		}
		if m := s.MySQL; m != nil && m.ServerID == 0 {
			m.ServerID = derivedID(name)
		}
	}
}

func publicURL(listen string, tls bool) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http://"
	if tls {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port)
}

// derivedName is leat_<source>, in the letters that a slot may have. Names of
// sources have no _, so two of them never meet; long ones end in a hash.
func derivedName(source string) string {
	s := "leat_" + strings.ReplaceAll(source, "-", "_")
	if len(s) > 63 {
		s = fmt.Sprintf("%s_%08x", s[:54], hash(source))
	}
	return s
}

// derivedID is a server id above those that people give by hand.
func derivedID(source string) uint32 { return 1<<30 + hash(source)%(3<<30) }

func hash(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

func onLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	return err == nil && loopbackHost(host)
}

func loopbackHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// registry checks what can be known of it without asking it.
func (c *checker) registry(r Registry) {
	u := r.URL.Parsed()
	if u == nil || !c.ok("registry.url") {
		return
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		c.fail("registry.url", "like https://user:${PASSWORD}@registry.internal:8081", "registry.url is not the http or https address of a registry")
	}
	if u.User != nil && !r.Token.IsZero() {
		c.fail("registry.token", "give one of them", "registry has a token, and its url a user: both would be the same header")
	}
	if t := r.TLS; t != nil && c.ok("registry.tls") {
		switch {
		case u.Scheme == "http":
			c.fail("registry.tls", "begin the url with https://, or remove tls", "registry.tls is of no use: its url is http")
		case (t.Cert == "") != (t.Key == ""):
			c.fail("registry.tls", "give both cert and key, or neither", "registry.tls has one of cert and key")
		}
	}
}

// checker holds the rules over several fields.
type checker struct {
	doc *yamltree.Document
	cfg *Config
}

func (c *checker) all() {
	c.api()
	c.registry(c.cfg.Registry)
	for _, name := range sortedKeys(c.cfg.Sources) {
		if s := c.cfg.Sources[name]; s != nil {
			c.source("sources."+name, s)
		}
	}
	c.clashes()
	for _, name := range sortedKeys(c.cfg.Subscriptions) {
		if s := c.cfg.Subscriptions[name]; s != nil {
			c.subscription("subscriptions."+name, s)
		}
	}
	c.fileClashes()
}

// ok says whether the value at path can be judged: it is not open, and nothing
// was reported about it.
func (c *checker) ok(path string) bool {
	if c.cfg.Open(path) {
		return false
	}
	for _, e := range c.doc.Errs {
		if e.Path == path || strings.HasPrefix(e.Path, path+".") {
			return false
		}
	}
	n := c.doc.Paths[path]
	return n == nil || !n.Failed
}

func (c *checker) fail(path, cure, format string, args ...any) {
	c.doc.Fail(c.doc.Nearest(path), path, fmt.Sprintf(format, args...), cure)
}

func (c *checker) api() {
	cfg := c.cfg
	names := map[string]int{}
	for i, t := range cfg.Tokens {
		p := fmt.Sprintf("tokens.%d", i)
		if first, dup := names[t.Name]; dup && c.ok(p+".name") {
			c.fail(p+".name", "give each token a name of its own", "tokens.%d has the name of tokens.%d", i, first)
		}
		names[t.Name] = i
		for j, r := range t.Roles {
			rp := fmt.Sprintf("%s.roles.%d", p, j)
			if sub, is := strings.CutPrefix(r, "subscribe:"); is && c.ok(rp) && cfg.Subscriptions[sub] == nil {
				c.fail(rp, yamltree.DidYouMean(sub, sortedKeys(cfg.Subscriptions)), "there is no subscription %q", sub)
			}
		}
	}
	if !c.ok("listen") || onLoopback(cfg.Listen) {
		return
	}
	if len(cfg.Tokens) == 0 && c.ok("tokens") {
		c.fail("listen", "add tokens, or listen on 127.0.0.1", "listen is not on loopback and there are no tokens: everyone could use the API")
	}
	if !cfg.TLS.Enabled() && !cfg.TLS.Off && c.ok("tls") {
		c.fail("listen", "add tls: {cert: …, key: …}; or say tls: off, where something before Leat does TLS", "listen is not on loopback and there is no tls: tokens and events would travel in the clear")
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
