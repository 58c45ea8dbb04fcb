package config

import (
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// Targets lists the URLs of the webhook, one or several.
func (w *Webhook) Targets() []WebhookURL {
	if len(w.URLs) > 0 {
		return w.URLs
	}
	return []WebhookURL{{URL: w.URL}}
}

// Rank says how near a zone is to the server's: 0 the same, 1 in the same region, 2 elsewhere or not known.
func (c *Config) Rank(zone string) int {
	region, _, _ := strings.Cut(zone, "/")
	own, _, _ := strings.Cut(c.Zone, "/")
	switch {
	case zone == "" || region != own:
		return 2
	case zone == c.Zone:
		return 0
	}
	return 1
}

// Asks says whether a host must agree before it is called: egress.hosts is set and does not name it.
func (e Egress) Asks(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return len(e.Hosts) > 0 && !slices.ContainsFunc(e.Hosts, func(pattern string) bool {
		a, err := netip.ParseAddr(pattern)
		b, err2 := netip.ParseAddr(host)
		if err == nil && err2 == nil {
			return a.Unmap() == b.Unmap()
		}
		rest, wild := strings.CutPrefix(strings.ToLower(pattern), "*.")
		return !wild && host == rest || wild && strings.HasSuffix(host, "."+rest)
	})
}

func (c *checker) webhookURLs(at string, w *Webhook) {
	if !c.ok(at) {
		return
	}
	one, many := c.doc.Paths[at+".url"], c.doc.Paths[at+".urls"]
	user := false
	switch {
	case one != nil && many != nil:
		c.fail(at+".urls", "give url, or urls: [{url: …}, …]", "%s has both url and urls", at)
	case one == nil && many == nil:
		c.fail(at, "write url: https://host/path, or urls: [{url: …}, …]", "url is missing in %s", at)
	case many != nil && len(w.URLs) == 0 && c.ok(at+".urls"):
		c.fail(at+".urls", "name at least one, as {url: https://host/path}", "%s.urls is an empty list", at)
	case one != nil:
		user = c.webhookURL(at+".url", w.URL.Parsed(), w.Proxy != nil)
	}
	seen := map[string]int{}
	for i, u := range w.URLs {
		p := at + ".urls." + itoa(i) + ".url"
		if first, twice := seen[u.URL.Reveal()]; twice && u.URL.Parsed() != nil {
			c.fail(p, "name each once", "%s is the same as urls.%d", p, first)
		}
		seen[u.URL.Reveal()] = i
		user = c.webhookURL(p, u.URL.Parsed(), w.Proxy != nil) || user
	}
	c.headers(at, w, user)
}

// webhookURL checks one URL; user: it names one.
func (c *checker) webhookURL(p string, u *url.URL, proxy bool) (user bool) {
	if u == nil || !c.ok(p) {
		return false
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		c.fail(p, "want https://host/path", "%s is not an http or https URL", p)
		return false
	}
	if u.Fragment != "" {
		c.fail(p, "remove what begins with #", "%s has a fragment, which is never sent", p)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			c.fail(p, "a port is 1 to 65535", "%s has no possible port", p)
		}
	}
	if proxy && u.Scheme == "http" {
		c.fail(p, "use https, or no proxy: plain http stays inside", "%s is plain http through a proxy", p)
		return u.User != nil
	}
	c.destination(p, u)
	return u.User != nil
}

// wayOut checks proxy and tls.
func (c *checker) wayOut(at string, w *Webhook) {
	if p := at + ".proxy.url"; w.Proxy != nil && c.ok(p) {
		if u := w.Proxy.URL.Parsed(); u != nil && u.Scheme != "http" && u.Scheme != "https" {
			c.fail(p, "want http://host:port", "%s is not an http or https URL", p)
		}
	}
	if t := w.TLS; t != nil && c.ok(at+".tls") && (t.Cert == "") != (t.Key == "") {
		open := slices.ContainsFunc([]string{"cert", "key"}, func(f string) bool { return c.cfg.Open(at + ".tls." + f) })
		if !open {
			c.fail(at+".tls", "a certificate goes with its private key: {cert: …, key: …}", "%s.tls names one of cert and key", at)
		}
	}
}

func checkURLPath(s string) *yamltree.Problem {
	if u, err := url.Parse(s); err != nil || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || u.Fragment != "" || path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") && u.Path != "/" {
		return yamltree.Wrong("is not a path of a URL").Fix("like /healthz: the host is that of the url")
	}
	return nil
}

var (
	zoneText = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$`)
	hostText = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
)

func checkZone(s string) *yamltree.Problem {
	if !zoneText.MatchString(s) {
		return yamltree.Wrong("is not a zone").Fix("write REGION or REGION/ZONE, like eu-west-1/b")
	}
	return nil
}

func checkHost(s string) *yamltree.Problem {
	if _, err := netip.ParseAddr(s); err != nil && !hostText.MatchString(s) {
		return yamltree.Wrong("is not a host").Fix("a name, *.example.com, or an address; without scheme, port and path")
	}
	return nil
}
