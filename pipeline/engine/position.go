package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
)

// errBeforeLog: the position is older than what the log keeps.
var errBeforeLog = errors.New("older than the log")

// place is a source position that can be compared with others of the same line: an LSN, or file and offset of a
// binlog, or the number of a GTID within its server or domain.
type place struct {
	line string // of which only equal ones can be compared
	high uint64
	low  uint64
}

// parsePlace reads the forms in which events show their position: 16/B374D848, binlog.000003:1234,
// uuid:23, 0-1-270.
func parsePlace(s string) (place, bool) {
	if a, b, ok := strings.Cut(s, "/"); ok {
		high, err1 := strconv.ParseUint(a, 16, 32)
		low, err2 := strconv.ParseUint(b, 16, 32)
		return place{"lsn", high, low}, err1 == nil && err2 == nil
	}
	if i := strings.LastIndexByte(s, ':'); i > 0 {
		low, err := strconv.ParseUint(s[i+1:], 10, 64)
		if err != nil {
			return place{}, false
		}
		if dot := strings.LastIndexByte(s[:i], '.'); dot >= 0 {
			high, err := strconv.ParseUint(s[dot+1:i], 10, 64)
			return place{"file " + s[:dot], high, low}, err == nil
		}
		return place{"gtid " + strings.ToLower(s[:i]), 0, low}, true
	}
	if p := strings.Split(s, "-"); len(p) == 3 {
		low, err := strconv.ParseUint(p[2], 10, 64)
		return place{"domain " + p[0], 0, low}, err == nil // a sequence counts on when its server changes
	}
	return place{}, false
}

func (p place) before(q place) bool { return p.high < q.high || p.high == q.high && p.low < q.low }

// findPosition returns the first event at or behind a position of the source: by halves, as positions of one
// line only grow in a log. Transactions of other lines (servers, domains) are passed over.
func findPosition(ctx context.Context, log pipeline.Log, position string) (pipeline.Offset, error) {
	want, ok := parsePlace(position)
	if !ok {
		return 0, refuse("%q is no position of a source: give one as events show it, such as 16/B374D848, binlog.000003:1234 or a GTID", position)
	}
	oldest, next := log.Bounds()
	low, high := oldest, next
	for low < high {
		mid := low + (high-low)/2
		at, found, ok, err := placeFrom(ctx, log, mid, next, want.line)
		switch {
		case err != nil:
			return 0, err
		case ok && at.before(want):
			low = found + 1
		default:
			high = mid
		}
	}
	at, found, ok, err := placeFrom(ctx, log, low, next, want.line)
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, refuse("position %s lies beyond the end of the log (offset %d), or is one of another server", position, next)
	case low == oldest && want.before(at):
		return 0, errBeforeLog
	}
	return found, nil
}

// placeFrom returns the position of the first event in [from, to) whose position is of the line, and its offset.
func placeFrom(ctx context.Context, log pipeline.Log, from, to pipeline.Offset, line string) (at place, found pipeline.Offset, ok bool, err error) {
	lr, err := log.Read(from)
	if err != nil {
		return at, 0, false, fmt.Errorf("read the log: %w", err)
	}
	defer lr.Close()
	for from < to {
		b, err := lr.Next(ctx)
		if err != nil {
			return at, 0, false, fmt.Errorf("read the log: %w", err)
		}
		at, found, ok = placeIn(b, from, to, line)
		from = b.Next()
		b.Release()
		if ok {
			return at, found, true, nil
		}
	}
	return at, 0, false, nil
}

func placeIn(b *pipeline.Batch, from, to pipeline.Offset, line string) (at place, found pipeline.Offset, ok bool) {
	for i := range b.Txs {
		first, end := b.Offset(int(b.Txs[i].First)), b.Next()
		if i+1 < len(b.Txs) {
			end = b.Offset(int(b.Txs[i+1].First))
		}
		if first = max(first, from); first >= min(end, to) || !b.Txs[i].Position.Present() {
			continue
		}
		if p, ok := parsePlace(string(b.Bytes(b.Txs[i].Position))); ok && p.line == line {
			return p, first, true
		}
	}
	return at, 0, false
}
