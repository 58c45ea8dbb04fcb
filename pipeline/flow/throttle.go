package flow

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Throttle is somebody's wish that less is read or sent.
type Throttle struct {
	// Owner is who wants it (a token's name, "flag file /run/x", a row's owner); one owner has one.
	Owner, Reason string
	// Ratio of the full speed that is left, 0 (stopped) to 1.
	Ratio float64
	// Until is when it ends by itself; zero = when its owner ends it.
	Until time.Time
}

// String names owner, ratio, reason and end.
func (t Throttle) String() string {
	s := fmt.Sprintf("%s throttles to %.0f %%", t.Owner, 100*t.Ratio)
	if t.Ratio == 0 {
		s = t.Owner + " paused it"
	}
	if t.Reason != "" {
		s += " (" + t.Reason + ")"
	}
	if !t.Until.IsZero() {
		s += " until " + t.Until.UTC().Format(time.RFC3339)
	}
	return s
}

// Throttles are those of one source or subscription, by owner: the lowest ratio counts. The zero value holds
// none. Not for concurrent use.
type Throttles struct{ all []Throttle }

// Set adds t, in place of what its owner had; a Ratio of 1 or more ends that.
func (s *Throttles) Set(t Throttle) {
	s.all = slices.DeleteFunc(s.all, func(o Throttle) bool { return o.Owner == t.Owner })
	if t.Ratio >= 1 {
		return
	}
	t.Ratio = max(t.Ratio, 0)
	s.all = append(s.all, t)
	slices.SortFunc(s.all, func(a, b Throttle) int {
		return cmp.Or(cmp.Compare(a.Ratio, b.Ratio), cmp.Compare(a.Owner, b.Owner))
	})
}

// And returns s with the list besides; s stays as it is.
func (s *Throttles) And(list []Throttle) *Throttles {
	both := &Throttles{all: slices.Clone(s.all)}
	for _, t := range list {
		both.Set(t)
	}
	return both
}

// Replace puts those whose owner begins with prefix in the place of all such: what one poll of a signal table
// brought. Owners in the list come without the prefix.
func (s *Throttles) Replace(prefix string, list []Throttle) {
	s.all = slices.DeleteFunc(s.all, func(o Throttle) bool { return len(o.Owner) >= len(prefix) && o.Owner[:len(prefix)] == prefix })
	for _, t := range list {
		t.Owner = prefix + t.Owner
		s.Set(t)
	}
}

// In returns those in force at now, the lowest ratio first; the rest is forgotten.
func (s *Throttles) In(now time.Time) []Throttle {
	s.all = slices.DeleteFunc(s.all, func(o Throttle) bool { return !o.Until.IsZero() && !now.Before(o.Until) })
	return slices.Clone(s.all)
}
