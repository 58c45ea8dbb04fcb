package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/schemas/cell/form"
)

func itoa(i int) string { return strconv.Itoa(i) }

func (c *checker) subscription(path string, s *Subscription) {
	if p := path + ".source"; s.Source != "" && c.ok(p) && c.cfg.Sources[s.Source] == nil && c.doc.Paths["sources."+s.Source] == nil {
		known := sortedKeys(c.cfg.Sources)
		cure := yamltree.DidYouMean(s.Source, known)
		if n := c.doc.Paths[p]; n != nil && n.Ref {
			cure = "known: " + strings.Join(known, ", ")
			c.fail(p, cure, "there is no source of the name that %s gives", yamltree.Quote(n))
		} else {
			c.fail(p, cure, "there is no source %q", s.Source)
		}
	}
	if src := c.cfg.Sources[s.Source]; src != nil && src.Status != nil {
		for _, field := range []string{"tables", "columns"} {
			if p := path + "." + field; c.doc.Paths[p] != nil && c.ok(p) {
				c.doc.Fail(c.keyOf(p), p, p+" has no meaning for the status source "+s.Source, "remove it: a status source has messages, no tables")
			}
		}
	}
	if src := c.cfg.Sources[s.Source]; src != nil && src.Status != nil && s.Filter != "" {
		if p, err := filter.Compile(filter.Options{Expr: s.Filter, Form: form.Of}); err == nil && p.OfRows() {
			c.fail(path+".filter", `like message.content.kind == "laggard" || message.content.state == "stopped"`, "%s.filter speaks of rows, but the status source %s has messages", path, s.Source)
		}
	}
	if src := c.cfg.Sources[s.Source]; src != nil && !src.Snapshots() {
		if p := path + ".from"; s.From.Kind == FromSnapshot && c.ok(p) {
			c.fail(p, "use earliest, latest, {offset: N} or {time: T}", "%s: the source %s has no rows that could be copied", p, s.Source)
		}
		if p := path + ".laggard"; s.Laggard == "snapshot" && c.ok(p) {
			c.fail(p, "use hold or skip", "%s: the source %s has no rows that could be copied", p, s.Source)
		}
	}
	for _, t := range sortedKeys(s.Columns) {
		c.columns(yamltree.Join(path+".columns", t), s.Columns[t])
	}
	for _, t := range sortedKeys(s.Mapping) {
		c.mapping(yamltree.Join(path+".mapping", t), s.Mapping[t])
	}
	c.contract(path+".contract", s.Contract)
	c.filter(path+".filter", s.Filter)
	c.deliver(path+".deliver", s)
	if s.Retry.Max < s.Retry.Initial && c.ok(path+".retry") {
		c.fail(path+".retry.max", "max is the longest wait, initial the first", "%s.retry.max is smaller than initial", path)
	}
	if s.Batch.Bytes > c.cfg.Memory && c.ok(path+".batch.bytes") && c.ok("memory") {
		c.fail(path+".batch.bytes", "make it smaller, or memory larger", "%s.batch.bytes is more than memory (%s)", path, c.cfg.Memory)
	}
	if w := s.Deliver.Webhook; w != nil && c.ok(path+".batch.wait") && c.ok(path+".resolved") && s.Resolved > 0 && s.Batch.Wait > s.Resolved {
		c.fail(path+".batch.wait", "a delivery cannot wait longer than the next leat.resolved", "%s.batch.wait is longer than resolved", path)
	}
}

// filter compiles the expression; which columns there are only the database can say.
func (c *checker) filter(path, expr string) {
	if expr == "" || !c.ok(path) {
		return
	}
	if _, err := filter.Compile(filter.Options{Expr: expr, Form: form.Of}); err != nil {
		if where := (*filter.ExprError)(nil); c.doc.Paths[path] != nil && c.doc.Paths[path].Ref && errors.As(err, &where) {
			err = fmt.Errorf("line %d, column %d of the value that the variable gives", where.Line, where.Column) // which may be a secret
		}
		c.fail(path, "docs/subscribers.md tells what a filter may say; like op == 'delete' || after.size > 100", "%s does not compile: %v", path, err)
	}
}

func (c *checker) deliver(path string, sub *Subscription) {
	s := sub.Deliver
	n := c.doc.Paths[path]
	if n == nil || n.Kind != yamltree.KindMap && n.Kind != yamltree.KindNull {
		return // reported already
	}
	const cure = "exactly one of: webhook, pull, kafka, redis, nats, search, table, parquet, file, stdout; make one subscription for each"
	if len(n.Keys) > 1 {
		c.doc.Fail(n.Keys[1], path, path+" names more than one way to deliver", cure)
	}
	if len(n.Keys) == 0 && !n.Failed {
		c.fail(path, cure, "%s names no way to deliver", path)
	}
	if s.Webhook != nil {
		c.webhook(path+".webhook", s.Webhook)
	}
	if s.Kafka != nil {
		c.kafka(path+".kafka", sub, s.Kafka)
	}
	if s.Redis != nil {
		c.redis(path+".redis", sub, s.Redis)
	}
	if s.NATS != nil {
		c.nats(path+".nats", sub, s.NATS)
	}
	if s.Search != nil {
		c.search(path+".search", s.Search)
	}
	if s.Table != nil {
		c.table(path+".table", sub, s.Table)
	}
	if s.Parquet != nil {
		c.parquet(path+".parquet", s.Parquet)
	}
}

func (c *checker) search(path string, s *Search) {
	p := path + ".url"
	if u := s.URL.Parsed(); u != nil && c.ok(p) {
		switch {
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			c.fail(p, "want https://USER:PASSWORD@HOST:PORT", "%s is not an http or https URL", p)
		case u.User != nil && c.doc.Paths[path+".api_key"] != nil:
			c.fail(path+".api_key", "give one of them", "%s has an api_key, and its url a user", path)
		}
	}
	if t := s.TLS; t != nil && c.ok(path+".tls") && (t.Cert == "") != (t.Key == "") {
		c.fail(path+".tls", "give both cert and key, or neither", "%s.tls has only one of cert and key", path)
	}
}

func (c *checker) webhook(path string, w *Webhook) {
	c.webhookURLs(path, w)
	c.wayOut(path, w)
	if !c.ok(path + ".fatal") {
		return
	}
	for i, st := range w.Fatal {
		f := path + ".fatal." + itoa(i)
		if slices.Contains([]int{401, 403, 404, 408, 410, 413, 429}, st) {
			c.fail(f, "of these statuses 4xx that speak of an event may be fatal, like 400, 409, 422", "%s: %d speaks of the endpoint or of the pace, not of an event", f, st)
		}
	}
}

// headers refuses what could not be sent, or not as it stands there.
func (c *checker) headers(path string, w *Webhook, user bool) {
	for _, name := range sortedKeys(w.Headers) {
		p := yamltree.Join(path+".headers", name)
		if !c.ok(p) {
			continue
		}
		if strings.EqualFold(name, "Authorization") && user {
			c.fail(p, "give one of them", "%s.headers has Authorization, and the url has a user: both would be the same header", path)
		}
		// RFC 9110, 5.5: no control characters but the tab.
		if strings.ContainsFunc(w.Headers[name].Reveal(), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			c.fail(p, "a value is one line", "%s holds a character that a header cannot", p)
		}
	}
}

// destination checks what can be known of the address before it is resolved.
func (c *checker) destination(path string, u *url.URL) {
	if !c.ok("egress") || !c.ok("listen") {
		return
	}
	host := u.Hostname()
	allow := strings.Join(c.cfg.Egress.Allow, ", ")
	a, err := netip.ParseAddr(host)
	switch {
	case err == nil && !c.cfg.Egress.Permits(a):
		cure := "allow its network in egress: allow: [" + allow + ", " + addressClass(a) + "]"
		if addressClass(a) == "" {
			cure = "link-local, metadata, multicast and unspecified addresses are never allowed"
		}
		c.fail(path, cure, "%s goes to an address that egress forbids (allowed: %s)", path, allow)
	case err == nil && u.Scheme == "http" && !insidePlain(a):
		c.fail(path, "use https", "%s is plain http to a public address; the events would travel in the clear", path)
	case err != nil && loopbackHost(host) && !c.cfg.Egress.Permits(netip.MustParseAddr("127.0.0.1")):
		c.fail(path, "add loopback to egress: allow", "%s goes to an address that egress forbids (allowed: %s)", path, allow)
	case err != nil && u.Scheme == "http" && !loopbackHost(host) && !c.cfg.Egress.inside():
		// The name may only resolve to what egress allows: public ones, and
		// there plain http may not go.
		c.fail(path, "use https; or, for a host in your own network, add private to egress: allow", "%s is plain http to a host that can only be public (egress allows: %s)", path, allow)
	}
}

// inside says whether anything but public and loopback addresses is allowed.
func (e Egress) inside() bool {
	return slices.ContainsFunc(e.Allow, func(s string) bool { return s != "public" && s != "loopback" })
}

// insidePlain says whether plain http may go to the address.
func insidePlain(a netip.Addr) bool { a = a.Unmap(); return a.IsLoopback() || a.IsPrivate() }

// addressClass is public, private or loopback, or "" for what is never allowed.
func addressClass(a netip.Addr) string {
	a = a.Unmap()
	switch {
	case never(a):
		return ""
	case a.IsLoopback():
		return "loopback"
	case a.IsPrivate(), sharedSpace.Contains(a), benchmarks.Contains(a):
		return "private"
	}
	return "public"
}

var (
	sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598: carriers' and overlay networks
	benchmarks  = netip.MustParsePrefix("198.18.0.0/15") // RFC 2544: laboratories' and overlay networks
	nat64       = netip.MustParsePrefix("64:ff9b::/96")  // RFC 6052: an IPv4 address inside
	nowhere     = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("100.100.100.200/32"), // metadata service of one provider, within the shared space
		netip.MustParsePrefix("fd00:ec2::254/128"),  // of another, within the private IPv6 space
		netip.MustParsePrefix("168.63.129.16/32"),   // of another: a public address, answered by its own hosts
		netip.MustParsePrefix("192.0.0.0/24"),       // RFC 6890: of protocols; metadata of another
		// IPv6 with an IPv4 address inside, of which nothing honest is left, and the old link-local's sibling.
		netip.MustParsePrefix("::/96"),          // RFC 4291, 2.5.5.1; loopback is taken out below
		netip.MustParsePrefix("64:ff9b:1::/48"), // RFC 8215
		netip.MustParsePrefix("2001::/32"),      // RFC 4380
		netip.MustParsePrefix("2002::/16"),      // RFC 3056, 7526
		netip.MustParsePrefix("fec0::/10"),      // RFC 3879
	}
)

func never(a netip.Addr) bool {
	if nat64.Contains(a) {
		b := a.As16()
		return addressClass(netip.AddrFrom4([4]byte(b[12:]))) != "public"
	}
	return !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() ||
		!a.IsLoopback() && slices.ContainsFunc(nowhere, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Permits says whether a webhook may go to the address. It is to be asked at
// dial time, of the address that is dialed: a name may resolve differently the
// next time.
func (e Egress) Permits(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	class := addressClass(a)
	if class == "" {
		return false
	}
	for _, s := range e.Allow {
		if s == class {
			return true
		}
		if p, err := netip.ParsePrefix(s); err == nil && p.Contains(a) {
			return true
		}
	}
	return false
}
