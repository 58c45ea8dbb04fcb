package yamltree

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// DidYouMean names the word nearest to got, if one is near, else lists the
// words when they are few.
func DidYouMean(got string, words []string) string {
	best, limit := "", max(1, utf8.RuneCountInString(got)/3)
	sorted := append([]string(nil), words...)
	sort.Strings(sorted)
	for _, w := range sorted {
		if d := distance(strings.ToLower(got), strings.ToLower(w)); d <= limit {
			best, limit = w, d-1
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("did you mean %q?", best)
	case len(words) == 0:
		return ""
	case len(words) == 1:
		return "known: " + words[0]
	default:
		return "one of: " + strings.Join(words, ", ")
	}
}

// distance is the edit distance with transpositions (optimal string alignment).
func distance(s, t string) int {
	a, b := []rune(s), []rune(t)
	const far = 64
	if len(a) > far || len(b) > far {
		return far
	}
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
