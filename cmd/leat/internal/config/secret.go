package config

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// Secret is a text that never prints itself: fmt, JSON, YAML and slog all show
// a mask. [Secret.Reveal] gives the text. The zero Secret is empty.
//
// The text hides behind two pointers: of a Secret in an unexported field fmt
// prints the content by reflection, without asking Format, and follows one
// pointer where the verb does not fit, but never two.
type Secret struct{ at **hidden }

func hide(h hidden) Secret { p := &h; return Secret{&p} }

func (s Secret) in() *hidden {
	if s.at == nil {
		return &hidden{}
	}
	return *s.at
}

type hidden struct {
	value  string // resolved
	raw    string // as it may be shown: a reference, file:PATH, or with masks
	parsed *url.URL
}

// NewSecret wraps a text.
func NewSecret(value string) Secret { return hide(hidden{value: value, raw: Mask}) }

// Reveal returns the text.
func (s Secret) Reveal() string { return s.in().value }

// IsZero says whether there is no secret.
func (s Secret) IsZero() bool { return s.at == nil }

// String returns what may be shown: ${NAME} and file:PATH as they stand in the
// file, else a mask.
func (s Secret) String() string { return s.in().raw }

// GoString masks.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// Format masks, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalText masks.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON masks.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalYAML masks.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue masks.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Secrets is one secret, or a list while one takes the place of another.
type Secrets []Secret

// URL is a URL whose password never prints itself. The zero URL is empty.
type URL struct{ Secret }

// Parsed returns a copy of the URL with its password; do not print it. It is
// nil for the zero URL and for one left open by NoExpand.
func (u URL) Parsed() *url.URL {
	if u.in().parsed == nil {
		return nil
	}
	c := *u.in().parsed
	return &c
}

// reason is the cause of a failed file operation without its path twice.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return yamltree.MaskText(err.Error())
}

// resolveSecret turns a scalar into a Secret. The error is reported; ok is false.
func (d *decoder) resolveSecret(n *yamltree.Node, path string) (s Secret, ok bool) {
	if n.Kind != yamltree.KindString {
		d.doc.Fail(n, path, fmt.Sprintf("%s is %s, want a string", d.label(path), n.Kind), "write it in quotes, as ${NAME}, or as file:/run/secrets/NAME")
		return s, false
	}
	if n.Open {
		d.open[path] = yamltree.MaskText(yamltree.MaskDefaults(n.Raw))
		return hide(hidden{raw: yamltree.MaskText(yamltree.MaskDefaults(n.Raw))}), true
	}
	value, raw := n.Text, Mask
	if yamltree.Reference.MatchString(n.Raw) {
		raw = n.Raw
	} else if n.Ref {
		raw = maskMixed(n.Raw)
	}
	if strings.HasPrefix(value, "file:") {
		if !n.Ref {
			raw = n.Raw
		}
		if d.opts.NoExpand {
			d.open[path] = raw
			return hide(hidden{raw: raw}), true
		}
		var p *yamltree.Problem
		if value, p = secretFile(value, d.opts); p != nil {
			d.doc.Fail(n, path, p.Msg, p.Cure)
			return s, false
		}
	}
	if value == "" {
		d.doc.Fail(n, path, d.label(path)+" is empty", "give the secret as ${NAME}, or as file:/run/secrets/NAME")
		return s, false
	}
	if strings.Contains(value, Mask) {
		if !d.opts.Masked {
			d.doc.Fail(n, path, d.label(path)+" is masked", "this is the output of config show: put the secret back, as ${NAME} or file:PATH")
			return s, false
		}
		if !n.Ref {
			raw = value
		}
	}
	return hide(hidden{value: value, raw: raw}), true
}

// maskMixed keeps the references of a text and masks what stands around them.
func maskMixed(raw string) string {
	pieces, p := yamltree.SplitReferences(raw)
	if p != nil {
		return Mask
	}
	var b strings.Builder
	for _, p := range pieces {
		switch {
		case p.Name == "":
			b.WriteString(Mask)
		case p.HasDef:
			b.WriteString("${" + p.Name + ":-" + Mask + "}")
		default:
			b.WriteString("${" + p.Name + "}")
		}
	}
	return b.String()
}

func (s *Secret) decodeNode(d *decoder, n *yamltree.Node, path string) {
	*s, _ = d.resolveSecret(n, path)
}

func (s *Secrets) decodeNode(d *decoder, n *yamltree.Node, path string) {
	list := map[string]*yamltree.Node{path: n}
	order := []string{path}
	if n.Kind == yamltree.KindSeq {
		order = order[:0]
		for i, item := range n.Items {
			p := yamltree.Join(path, strconv.Itoa(i))
			order, list[p] = append(order, p), item
		}
	}
	if len(order) == 0 {
		d.doc.Fail(n, path, d.label(path)+" is an empty list", "leat init makes a secret; give it as ${NAME} or file:PATH")
	}
	for _, p := range order {
		if list[p].Failed {
			continue
		}
		one, ok := d.resolveSecret(list[p], p)
		if !ok {
			continue
		}
		if pr := webhookSecret(one); pr != nil && !d.Open(p) {
			d.doc.Fail(list[p], p, pr.Msg, pr.Cure)
			continue
		}
		*s = append(*s, one)
	}
}

// webhookSecret checks the form of a Standard Webhooks secret
// (standardwebhooks.com, "Signature scheme"): 24 to 64 random bytes, or an
// Ed25519 seed or private key.
func webhookSecret(s Secret) *yamltree.Problem {
	v := s.Reveal()
	if strings.Contains(v, Mask) { // only with Options.Masked
		return nil
	}
	const cure = "want whsec_ (HMAC) or whsk_ (Ed25519) and then base64; leat init makes one"
	kind, rest, found := strings.Cut(v, "_")
	if !found || kind != "whsec" && kind != "whsk" {
		return yamltree.Wrong("the webhook secret does not begin with whsec_ or whsk_").Fix(cure)
	}
	b, err := base64.StdEncoding.DecodeString(rest)
	switch {
	case err != nil:
		return yamltree.Wrong("the webhook secret is not base64 after %s_", kind).Fix(cure)
	case kind == "whsec" && (len(b) < 24 || len(b) > 64):
		return yamltree.Wrong("the webhook secret has %d bytes, want 24 to 64", len(b)).Fix(cure)
	case kind == "whsk" && len(b) != 32 && len(b) != 64:
		return yamltree.Wrong("the Ed25519 key has %d bytes, want 32 (seed) or 64 (private key)", len(b)).Fix(cure)
	}
	return nil
}

func (u *URL) decodeNode(d *decoder, n *yamltree.Node, path string) {
	s, ok := d.resolveSecret(n, path)
	if !ok {
		return
	}
	if d.Open(path) || d.opts.Masked && strings.Contains(s.in().value, Mask) {
		u.Secret = s // nothing to be judged
		return
	}
	// The library's errors quote the URL, and with it the password.
	parsed, err := url.Parse(s.in().value)
	if err != nil || parsed.Scheme == "" || parsed.Opaque != "" || parsed.Host == "" && parsed.Query().Get("host") == "" {
		d.doc.Fail(n, path, d.label(path)+" is not a URL", "want scheme://user:password@host:port/…; percent-encode special characters of a password, or put it into a ${VARIABLE}, which needs no encoding")
		return
	}
	relative(parsed, d.opts.Dir)
	s.in().value, s.in().parsed = parsed.String(), parsed
	if !yamltree.Reference.MatchString(n.Raw) && !strings.HasPrefix(n.Raw, "file:") {
		s.in().raw = yamltree.MaskText(yamltree.MaskDefaults(n.Raw))
	}
	u.Secret = s
}

// relative makes the TLS files of a database URL relative to the folder of the
// config, like all other paths.
func relative(u *url.URL, dir string) {
	q, changed := u.Query(), false
	for _, k := range []string{"sslcert", "sslkey", "sslrootcert"} {
		if v := q.Get(k); v != "" && v != "system" && !filepath.IsAbs(v) && u.Scheme != "https" && u.Scheme != "http" {
			q.Set(k, filepath.Join(dir, v))
			changed = true
		}
	}
	if changed {
		u.RawQuery = q.Encode()
	}
}
