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

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

var (
	nameText = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	slotText = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
	notName  = regexp.MustCompile(`[^a-z0-9-]+`)
)

// forms are the syntaxes that the tags form and keys name.
var forms = map[string]func(string) *yamltree.Problem{
	"name":     checkName,
	"path":     checkPath,
	"listen":   checkListen,
	"base_url": checkBaseURL,
	"sha256":   checkSHA256,
	"role":     checkRole,
	"egress":   checkEgress,
	"glob":     checkGlob,
	"table":    checkTable,
	"signal":   checkSignal,
	"column":   checkColumn,
	"plain":    checkPlain,
	"pg_slot":  checkSlot,
	"pg_name":  checkIdentifier,
	"header":   checkHeader,
	"url_path": checkURLPath,
	"zone":     checkZone,
	"host":     checkHost,
	"index":    checkIndex,
	"broker":   checkBroker,
	"topic":    checkTopic,
	"place":    checkPlace,
	"target":   checkTarget,

	"node":   checkNode,
	"stream": checkStream,

	"nats_server": checkNATSServer,
	"nats_stream": checkNATSStream,
	"subject":     checkSubject,

	"kafka_setting": checkKafkaSetting,
	"transactional": checkTransactional,
}

// checkIndex is of a name in which {source}, {schema} and {table} stand for their names.
func checkIndex(s string) *yamltree.Problem {
	rest := strings.NewReplacer("{source}", "", "{schema}", "", "{table}", "").Replace(s)
	switch {
	case strings.ContainsAny(rest, "{}"):
		return yamltree.Wrong("has a field that is not known").Fix("these there are: {source}, {schema}, {table}")
	case !strings.Contains(s, "{table}"):
		return yamltree.Wrong("does not name the table").Fix("write {table} in it: rows of two tables may have the same key")
	case strings.ContainsAny(rest, `\\/*?"<>| ,#:`) || strings.ToLower(rest) != rest || len(s) > 200:
		return yamltree.Wrong("is not the name of an index").Fix("lower case, at most 200, without spaces and any of \\ / * ? \" < > | , # :")
	}
	return nil
}

func checkName(s string) *yamltree.Problem {
	if nameText.MatchString(s) {
		return nil
	}
	p := yamltree.Wrong("is not a name").Fix("a name is a letter and then letters, digits and -, all lower case, at most 63")
	if near := strings.Trim(notName.ReplaceAllString(strings.ToLower(s), "-"), "-0123456789"); nameText.MatchString(near) {
		return p.Fix("did you mean %s? %s", near, p.Cure)
	}
	return p
}

// checkSignal is of a table that is written to, or - for none.
func checkSignal(s string) *yamltree.Problem {
	if s == "-" {
		return nil
	}
	if strings.ContainsAny(s, "*?") || strings.Count(s, ".") != 1 {
		return yamltree.Wrong("is not one table").Fix("name it as DATABASE.TABLE, or - to never write to the database")
	}
	return checkTable(s)
}

func checkPath(s string) *yamltree.Problem {
	if strings.ContainsAny(s, "\x00\n") {
		return yamltree.Wrong("is not a path").Fix("a path is one line")
	}
	return nil
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

func checkListen(s string) *yamltree.Problem {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return yamltree.Wrong("is not host:port").Fix("like 127.0.0.1:7070, or [::1]:7070")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return yamltree.Wrong("has no port from 0 to 65535").Fix("like 127.0.0.1:7070")
	}
	return nil
}

func checkBaseURL(s string) *yamltree.Problem {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return yamltree.Wrong("is not an http or https URL").Fix("like https://leat.example.com")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return yamltree.Wrong("has more than scheme, host and path").Fix("like https://leat.example.com")
	}
	return nil
}

func checkSHA256(s string) *yamltree.Problem {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 {
		return yamltree.Wrong("is not a SHA-256").Fix("64 hexadecimal digits, as sha256sum prints of the token without a line end")
	}
	return nil
}

func checkRole(s string) *yamltree.Problem {
	if name, ok := strings.CutPrefix(s, "subscribe:"); ok {
		if checkName(name) != nil {
			return yamltree.Wrong("names no subscription").Fix("write subscribe:NAME")
		}
		return nil
	}
	roles := []string{"read", "operate", "publish", "subscribe:NAME"}
	for _, r := range roles[:3] {
		if s == r {
			return nil
		}
	}
	return yamltree.Wrong("is not a role").Fix("%s", yamltree.DidYouMean(s, roles))
}

func checkEgress(s string) *yamltree.Problem {
	classes := []string{"public", "private", "loopback"}
	for _, c := range classes {
		if s == c {
			return nil
		}
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil {
			return yamltree.Wrong("is an address, not a network").Fix("did you mean %s/%d?", a, a.BitLen())
		}
		return yamltree.Wrong("is not an address class or a CIDR").Fix("%s (or a CIDR like 10.1.0.0/16)", yamltree.DidYouMean(s, classes))
	}
	if p.Masked() != p {
		return yamltree.Wrong("has bits beyond its length").Fix("did you mean %s?", p.Masked())
	}
	return nil
}

func checkTable(s string) *yamltree.Problem {
	if strings.HasPrefix(s, "!") {
		return yamltree.Wrong("begins with !").Fix("here only a table's name is wanted, like public.files")
	}
	return checkGlob(s)
}

func checkColumn(s string) *yamltree.Problem { return checkPlain(strings.TrimPrefix(s, "!")) }

func checkPlain(s string) *yamltree.Problem {
	if s == "" || strings.HasPrefix(s, "!") || strings.ContainsAny(s, "\x00\n") {
		return yamltree.Wrong("is not a column name").Fix("the column's name as the database has it")
	}
	return nil
}

func checkSlot(s string) *yamltree.Problem {
	if !slotText.MatchString(s) {
		return yamltree.Wrong("is not a slot name").Fix("PostgreSQL allows lower-case letters, digits and _, at most 63")
	}
	return nil
}

func checkIdentifier(s string) *yamltree.Problem {
	if len(s) > 63 || strings.ContainsAny(s, "\x00\n") {
		return yamltree.Wrong("is not an identifier").Fix("PostgreSQL allows at most 63 bytes")
	}
	return nil
}

func checkHeader(s string) *yamltree.Problem {
	if !yamltree.HeaderName.MatchString(s) {
		return yamltree.Wrong("is not a header name").Fix("like X-Tenant")
	}
	switch l := strings.ToLower(s); {
	case l == "content-type", l == "content-length", l == "host", l == "transfer-encoding", l == "connection",
		strings.HasPrefix(l, "webhook-"), strings.HasPrefix(l, "delivery-"):
		return yamltree.Wrong("is set by Leat").Fix("remove it")
	}
	return nil
}

func (t *TLS) decodeNode(d *decoder, n *yamltree.Node, path string) {
	switch {
	case n.Open:
		d.open[path] = n.Raw
	case n.Kind == yamltree.KindString && n.Text == "off":
		t.Off = true
	case n.Kind == yamltree.KindMap:
		type plain TLS
		d.structure(n, path, reflectOf((*plain)(t)))
	default:
		d.doc.Fail(n, path, "tls is neither off nor a mapping", "write tls: off, or tls: {cert: server.pem, key: server-key.pem}")
	}
}
