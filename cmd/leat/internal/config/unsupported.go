package config

import (
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// unsupported lists what interface and schema know and this version lacks: it
// is refused, never accepted and ignored. To lift one, delete its line.
// Sinks without a struct in Deliver need one as well.
var unsupported = []struct {
	path   string   // one * for each name or number
	values []string // the words refused; nil: the field as such
	cure   string
	warn   bool // accepted, since it does no harm, but said
}{
	{path: "log.backend", values: []string{"kafka"}, cure: "use disk"},
	{path: "subscriptions.*.deliver.lambda", cure: "use webhook, pull, kafka, redis, nats, search, table, parquet, file or stdout"},
	{path: "tokens.*.roles.*", values: []string{"publish"}, cure: "the role allows nothing yet", warn: true},
}

// refuseUnsupported reports what of the table stands in the file, and returns
// the warnings.
func refuseUnsupported(d *yamltree.Document) (warnings Errors) {
	var walk func(n *yamltree.Node, key *yamltree.Node, at, pattern string)
	walk = func(n, key *yamltree.Node, at, pattern string) {
		for _, u := range unsupported {
			if match, _ := path.Match(strings.ReplaceAll(u.path, ".", "/"), pattern); !match || n.Failed {
				continue
			}
			switch {
			case u.values == nil:
				d.Fail(key, at, at+" is not supported by this version", u.cure)
			case n.Kind != yamltree.KindString || n.Open || !slices.Contains(u.values, n.Text):
				continue
			case u.warn:
				warnings = append(warnings, d.ErrorAt(n, at, at+": "+n.Text+" is not supported by this version", u.cure))
				continue
			default:
				d.Fail(n, at, at+": "+n.Text+" is not supported by this version", u.cure)
			}
			n.Failed = true
		}
		for i, v := range n.Items {
			switch {
			case n.Kind == yamltree.KindSeq:
				k := strconv.Itoa(i)
				walk(v, v, yamltree.Join(at, k), pattern+"/"+k)
			case pattern == "":
				walk(v, n.Keys[i], n.Keys[i].Raw, n.Keys[i].Raw)
			default:
				walk(v, n.Keys[i], yamltree.Join(at, n.Keys[i].Name()), pattern+"/"+strings.ReplaceAll(n.Keys[i].Raw, "/", "_"))
			}
		}
	}
	walk(d.Root, d.Root, "", "")
	return warnings
}

// supported leaves out of words what the table refuses at a path.
func supported(at string, words []string) []string {
	for _, u := range unsupported {
		if match, _ := path.Match(strings.ReplaceAll(u.path, ".", "/"), strings.ReplaceAll(at, ".", "/")); match && !u.warn {
			words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return slices.Contains(u.values, w) })
		}
	}
	return words
}

// unsupportedAt says, for the schema, what is refused at a path with a * for
// each name.
func unsupportedAt(at string) string {
	for _, u := range unsupported {
		if u.path != at || u.warn {
			continue
		}
		if u.values == nil {
			return "Not supported by this version."
		}
		return "Not supported by this version: " + strings.Join(u.values, ", ") + "."
	}
	return ""
}

func reflectOf(p any) reflect.Value { return reflect.ValueOf(p).Elem() }
