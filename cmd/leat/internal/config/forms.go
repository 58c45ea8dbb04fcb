package config

import (
	"encoding/hex"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var (
	nameText   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	slotText   = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
	headerText = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	notName    = regexp.MustCompile(`[^a-z0-9-]+`)
)

// forms are the syntaxes that the tags form and keys name.
var forms = map[string]func(string) *problem{
	"name":     checkName,
	"path":     checkPath,
	"listen":   checkListen,
	"base_url": checkBaseURL,
	"sha256":   checkSHA256,
	"role":     checkRole,
	"egress":   checkEgress,
	"glob":     checkGlob,
	"table":    checkTable,
	"column":   checkColumn,
	"plain":    checkPlain,
	"pg_slot":  checkSlot,
	"pg_name":  checkIdentifier,
	"header":   checkHeader,
}

func checkName(s string) *problem {
	if nameText.MatchString(s) {
		return nil
	}
	p := wrong("is not a name").fix("a name is a letter and then letters, digits and -, all lower case, at most 63")
	if near := strings.Trim(notName.ReplaceAllString(strings.ToLower(s), "-"), "-0123456789"); nameText.MatchString(near) {
		return p.fix("did you mean %s? %s", near, p.cure)
	}
	return p
}

func checkPath(s string) *problem {
	if strings.ContainsAny(s, "\x00\n") {
		return wrong("is not a path").fix("a path is one line")
	}
	return nil
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

func checkListen(s string) *problem {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return wrong("is not host:port").fix("like 127.0.0.1:7070, or [::1]:7070")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return wrong("has no port from 0 to 65535").fix("like 127.0.0.1:7070")
	}
	return nil
}

func checkBaseURL(s string) *problem {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return wrong("is not an http or https URL").fix("like https://leat.example.com")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return wrong("has more than scheme, host and path").fix("like https://leat.example.com")
	}
	return nil
}

func checkSHA256(s string) *problem {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 {
		return wrong("is not a SHA-256").fix("64 hexadecimal digits, as sha256sum prints of the token without a line end")
	}
	return nil
}

func checkRole(s string) *problem {
	if name, ok := strings.CutPrefix(s, "subscribe:"); ok {
		if checkName(name) != nil {
			return wrong("names no subscription").fix("write subscribe:NAME")
		}
		return nil
	}
	roles := []string{"read", "operate", "publish", "subscribe:NAME"}
	for _, r := range roles[:3] {
		if s == r {
			return nil
		}
	}
	return wrong("is not a role").fix("%s", didYouMean(s, roles))
}

func checkEgress(s string) *problem {
	classes := []string{"public", "private", "loopback"}
	for _, c := range classes {
		if s == c {
			return nil
		}
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil {
			return wrong("is an address, not a network").fix("did you mean %s/%d?", a, a.BitLen())
		}
		return wrong("is not an address class or a CIDR").fix("%s (or a CIDR like 10.1.0.0/16)", didYouMean(s, classes))
	}
	if p.Masked() != p {
		return wrong("has bits beyond its length").fix("did you mean %s?", p.Masked())
	}
	return nil
}

func checkTable(s string) *problem {
	if strings.HasPrefix(s, "!") {
		return wrong("begins with !").fix("here only a table's name is wanted, like public.files")
	}
	return checkGlob(s)
}

func checkColumn(s string) *problem { return checkPlain(strings.TrimPrefix(s, "!")) }

func checkPlain(s string) *problem {
	if s == "" || strings.HasPrefix(s, "!") || strings.ContainsAny(s, "\x00\n") {
		return wrong("is not a column name").fix("the column's name as the database has it")
	}
	return nil
}

func checkSlot(s string) *problem {
	if !slotText.MatchString(s) {
		return wrong("is not a slot name").fix("PostgreSQL allows lower-case letters, digits and _, at most 63")
	}
	return nil
}

func checkIdentifier(s string) *problem {
	if len(s) > 63 || strings.ContainsAny(s, "\x00\n") {
		return wrong("is not an identifier").fix("PostgreSQL allows at most 63 bytes")
	}
	return nil
}

func checkHeader(s string) *problem {
	if !headerText.MatchString(s) {
		return wrong("is not a header name").fix("like X-Tenant")
	}
	switch l := strings.ToLower(s); {
	case l == "content-type", l == "content-length", l == "host", l == "transfer-encoding", l == "connection",
		strings.HasPrefix(l, "webhook-"), strings.HasPrefix(l, "delivery-"):
		return wrong("is set by Leat").fix("remove it")
	}
	return nil
}

func (t *TLS) decodeNode(d *decoder, n *node, path string) {
	switch {
	case n.open:
		d.open[path] = n.raw
	case n.kind == kindString && n.text == "off":
		t.Off = true
	case n.kind == kindMap:
		type plain TLS
		d.structure(n, path, reflectOf((*plain)(t)))
	default:
		d.doc.fail(n, path, "tls is neither off nor a mapping", "write tls: off, or tls: {cert: server.pem, key: server-key.pem}")
	}
}
