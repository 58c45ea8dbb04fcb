package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// expand replaces the references of all values, once, on the tree: what a
// variable holds can never add a field or a line.
func expand(d *yamltree.Document, opts Options) { expandNode(d, d.Root, "", opts) }

func expandNode(d *yamltree.Document, n *yamltree.Node, path string, opts Options) {
	for i, v := range n.Items {
		key := fmt.Sprint(i)
		if n.Kind == yamltree.KindMap {
			key = n.Keys[i].Name()
		}
		expandNode(d, v, yamltree.Join(path, key), opts)
	}
	if n.Kind != yamltree.KindString || !strings.Contains(n.Raw, "${") {
		return
	}
	pieces, p := yamltree.SplitReferences(n.Raw)
	if p != nil {
		n.Failed = true
		d.Fail(n, path, p.Msg, p.Cure)
		return
	}
	for _, p := range pieces {
		n.Ref = n.Ref || p.Name != ""
	}
	if n.Ref && opts.NoExpand {
		n.Open = true
		return
	}
	url := strings.HasSuffix(path, ".url")
	n.Text = resolve(d, n, path, pieces, opts, url)
}

// resolve joins the pieces with the values of the variables. In the user and
// password part of a URL a value is percent-encoded, so that a password may
// hold any character.
func resolve(d *yamltree.Document, n *yamltree.Node, path string, pieces []yamltree.Piece, opts Options, url bool) string {
	from, to := -1, -1
	if url {
		from, to = userinfo(pieces)
	}
	var b strings.Builder
	at := 0 // place in the text with one NUL per reference, which userinfo counts in
	for _, p := range pieces {
		if p.Name == "" {
			b.WriteString(p.Text)
			at += len(p.Text)
			continue
		}
		value, ok := opts.Env(p.Name)
		switch {
		case p.HasDef && value == "":
			value = p.Def
		case !ok:
			n.Failed = true
			d.Fail(n, path, fmt.Sprintf("the environment variable %s is not set", p.Name), fmt.Sprintf("set it, or give a default: ${%s:-…}", p.Name))
			return ""
		}
		if at >= from && at < to {
			value = escapeUserinfo(value)
		}
		b.WriteString(value)
		at++
	}
	return b.String()
}

// userinfo finds the part between :// and the last @ of the authority.
func userinfo(pieces []yamltree.Piece) (from, to int) {
	var b strings.Builder
	for _, p := range pieces {
		if p.Name != "" {
			b.WriteByte(0)
		}
		b.WriteString(p.Text)
	}
	s := b.String()
	i := strings.Index(s, "://")
	if i < 0 {
		return -1, -1
	}
	auth := s[i+3:]
	if j := strings.IndexAny(auth, "/?#"); j >= 0 {
		auth = auth[:j]
	}
	return i + 3, i + 3 + strings.LastIndexByte(auth, '@')
}

func escapeUserinfo(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// secretFile reads the target of file:PATH. One line end at its end is not
// part of the secret.
func secretFile(text string, opts Options) (string, *yamltree.Problem) {
	path := strings.TrimPrefix(text, "file:")
	if path == "" {
		return "", yamltree.Wrong("file: names no file").Fix("write file:/run/secrets/NAME")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(opts.Dir, path)
	}
	b, err := opts.ReadFile(path)
	if err != nil {
		return "", yamltree.Wrong("the secret's file cannot be read: %s", reason(err)).Fix("the file must exist, be regular, at most %s, and readable by the server", Size(maxSecret))
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}
