package pipeline

import (
	"bytes"
	"slices"
	"strings"
)

// WholeRange is the ID of the range that a key space is until it is first split. Every space has one.
const WholeRange = 0

// Range is [Start, End) of a key space, in encoded keys; a nil End means "to the end". Its ID is unique in
// its log and never reused (WholeRange: unique in its space).
type Range struct {
	ID    uint64 `json:"id"`
	Space string `json:"space"`
	Start []byte `json:"start,omitempty"`
	End   []byte `json:"end,omitempty"`
	// Parents are the ranges that it was made of: one after a split, several after a merge.
	Parents []uint64 `json:"parents,omitempty"`
}

// Contains reports whether the encoded key lies in the range.
func (r Range) Contains(key []byte) bool {
	return string(key) >= string(r.Start) && (r.End == nil || string(key) < string(r.End))
}

// RangeChange is one change of a key space's ranges: it closes ranges and opens others that cover the same
// keys. It stands in the log as a batch of its own (Batch.Ranges) and holds for the events from that batch's
// Base on; so every event has one owning range. It is made and checked by package partition.
type RangeChange struct {
	// Epoch counts the changes of the space, from 1.
	Epoch uint64 `json:"epoch"`
	Space string `json:"space"`
	// Closed and Opened, in the order of their keys. No Closed: Opened is the whole map of the space, as a
	// log states it where it begins.
	Closed []uint64 `json:"closed,omitempty"`
	Opened []Range  `json:"opened"`
	// Reason, for people: who asked, or what load was measured.
	Reason string `json:"reason,omitempty"`
}

// RangeAt is a change and the offset that it holds from.
type RangeAt struct {
	At Offset `json:"at"`
	RangeChange
}

const (
	// MaxRanges is how many ranges a log has at a time, those of spaces that were never split left out.
	MaxRanges = 1024
	// MaxRangeChanges is how many changes a log keeps at a time: it states them where each segment begins.
	MaxRangeChanges = 4096
)

// FoldRanges states what holds at oldest, one entry for each space, and behind it the changes after that: what a
// log that begins at oldest keeps of changes in log order.
func FoldRanges(all []RangeAt, oldest Offset) []RangeAt {
	n := 0
	states := 0
	for n < len(all) && all[n].At <= oldest {
		if len(all[n].Closed) == 0 && all[n].At == oldest {
			states++
		}
		n++
	}
	if n == states {
		return all
	}
	maps := map[string]*RangeAt{}
	for _, r := range all[:n] {
		m := maps[r.Space]
		if m == nil {
			m = &RangeAt{RangeChange: RangeChange{Space: r.Space}}
			maps[r.Space] = m
		}
		open := slices.DeleteFunc(m.Opened, func(o Range) bool { return slices.Contains(r.Closed, o.ID) })
		m.At, m.Epoch, m.Reason, m.Opened = oldest, r.Epoch, r.Reason, append(open, r.Opened...)
	}
	folded := make([]RangeAt, 0, len(maps)+len(all)-n)
	for _, m := range maps {
		slices.SortFunc(m.Opened, func(a, b Range) int { return bytes.Compare(a.Start, b.Start) })
		folded = append(folded, *m)
	}
	slices.SortFunc(folded, func(a, b RangeAt) int { return strings.Compare(a.Space, b.Space) })
	return append(folded, all[n:]...)
}
