package api

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// places are the hosts and origins under which a server without tokens may be called. A page of another
// origin whose name was pointed at 127.0.0.1 (DNS rebinding) sends that name as Host; a page that simply
// calls 127.0.0.1 sends its own Origin, or Sec-Fetch-Site.
// https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header
type places struct {
	hosts, origins map[string]bool
}

// newPlaces lists them: loopback names, the listen host and public_url's.
func newPlaces(listen, port, publicURL string, tls bool) *places {
	p := &places{map[string]bool{}, map[string]bool{}}
	scheme, usual := "http", "80"
	if tls {
		scheme, usual = "https", "443"
	}
	names := []string{"localhost", "127.0.0.1", "[::1]"}
	if h, _, err := net.SplitHostPort(listen); err == nil && h != "" {
		if strings.Contains(h, ":") {
			h = "[" + h + "]"
		}
		names = append(names, strings.ToLower(h))
	}
	for _, h := range names {
		p.hosts[h+":"+port] = true
		p.origins[scheme+"://"+h+":"+port] = true
		if port == usual {
			p.hosts[h] = true
			p.origins[scheme+"://"+h] = true
		}
	}
	if u, err := url.Parse(publicURL); err == nil && u.Host != "" {
		host := strings.ToLower(u.Host)
		p.hosts[host] = true
		p.origins[strings.ToLower(u.Scheme)+"://"+host] = true
	}
	return p
}

// refuse says why a request is not served; empty when it is.
func (p *places) refuse(r *http.Request) string {
	if !p.hosts[strings.ToLower(r.Host)] {
		return "this Host is not served; without tokens only loopback names, the host of listen and that of public_url are"
	}
	for _, o := range r.Header.Values("Origin") {
		if !p.origins[strings.ToLower(o)] {
			return "this Origin is not served"
		}
	}
	for _, s := range r.Header.Values("Sec-Fetch-Site") {
		if s != "same-origin" && s != "none" {
			return "requests of other sites are not served"
		}
	}
	return ""
}
