package webhook

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// leastMask is the length of the shortest text that is hidden: shorter ones occur by chance.
const leastMask = 4

// maskedTexts lists what must not be shown of an endpoint, longest first: the values of its headers, user
// information and query, whole, in the parts that a subscriber may repeat, and as JSON would have them.
func maskedTexts(urls []*url.URL, headers map[string]string) []string {
	var all []string
	for _, v := range headers {
		all = append(append(all, v), strings.Fields(v)...)
	}
	for _, u := range urls {
		all = append(all, urlSecrets(u)...)
	}
	for _, m := range slices.Clone(all) {
		if b, err := json.Marshal(m); err == nil {
			all = append(all, string(b[1:len(b)-1]))
		}
		if b, err := base64.StdEncoding.DecodeString(m); err == nil && strings.Contains(string(b), ":") {
			_, password, _ := strings.Cut(string(b), ":") // Basic authorization by hand
			all = append(all, string(b), password)
		}
	}
	all = slices.DeleteFunc(all, func(m string) bool { return len(m) < leastMask || isScheme(m) })
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return slices.Compact(all)
}

// urlSecrets lists the user information and query of a URL.
func urlSecrets(u *url.URL) (all []string) {
	if u.User != nil {
		p, _ := u.User.Password()
		h := http.Header{}
		setBasic(h, u.User.Username(), p)
		_, basic, _ := strings.Cut(h.Get("Authorization"), " ")
		all = append(all, p, u.User.String(), strings.TrimRight(basic, "="), url.QueryEscape(p))
	}
	if u.RawQuery != "" {
		all = append(all, u.RawQuery)
		for pair := range strings.SplitSeq(u.RawQuery, "&") {
			_, raw, _ := strings.Cut(pair, "=")
			all = append(all, raw)
		}
		for _, values := range u.Query() {
			all = append(all, values...)
		}
	}
	return all
}

// isScheme reports whether a word of a header names only how to authorize.
func isScheme(word string) bool {
	return slices.ContainsFunc([]string{"Basic", "Bearer", "Token"}, func(s string) bool { return strings.EqualFold(s, word) })
}

// mask hides our own secrets, should the subscriber or an error repeat them.
func (s *Sink) mask(text string) string {
	for _, m := range s.masks {
		text = strings.ReplaceAll(text, m, "***")
	}
	return text
}
