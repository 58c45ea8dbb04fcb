package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// Duration is a length of time, written with a unit: 250ms, 30s, 72h, 7d, 1h30m.
type Duration time.Duration

// D is the duration as the standard library has it.
func (d Duration) D() time.Duration { return time.Duration(d) }

var durationUnits = []struct {
	name string
	size time.Duration
}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}

// String prints the duration as the file would have it.
func (d Duration) String() string {
	if d == 0 {
		return "0s"
	}
	v := time.Duration(d)
	for _, u := range durationUnits {
		if v%u.size == 0 && (u.name != "d" || v >= 7*u.size) {
			return strconv.FormatInt(int64(v/u.size), 10) + u.name
		}
	}
	return v.String()
}

// ParseDuration reads a duration as the file would have it, for flags.
func ParseDuration(text string) (time.Duration, error) {
	var d Duration
	if p := d.decodeText(text); p != nil {
		return 0, fmt.Errorf("%q %s; %s", text, p.Msg, p.Cure)
	}
	return d.D(), nil
}

var (
	durationText = regexp.MustCompile(`^(?:\d+(?:\.\d+)?(?:ms|[smhd]))+$`)
	durationPart = regexp.MustCompile(`(\d+(?:\.\d+)?)(ms|[smhd])`)
	number       = regexp.MustCompile(`^-?[\d.]+$`)
	numberUnit   = regexp.MustCompile(`^([\d.]+)\s*([A-Za-zµ]+)$`)
)

func (d *Duration) decodeText(s string) *yamltree.Problem {
	const want = "a duration is a number and a unit: 250ms, 30s, 72h, 7d"
	if !durationText.MatchString(s) {
		p := yamltree.Wrong("is not a duration").Fix(want)
		if number.MatchString(s) {
			return yamltree.Wrong("has no unit").Fix("did you mean %ss? %s", strings.TrimPrefix(s, "-"), want)
		}
		if m := numberUnit.FindStringSubmatch(s); m != nil {
			words := map[string]string{"sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m", "minutes": "m", "hour": "h", "hours": "h", "hr": "h", "hrs": "h", "day": "d", "days": "d", "msec": "ms", "millis": "ms"}
			p = yamltree.Wrong("has an unknown unit").Fix("units are ms, s, m, h, d")
			if u := words[strings.ToLower(m[2])]; u != "" {
				return p.Fix("did you mean %s%s? units are ms, s, m, h, d", m[1], u)
			}
		}
		return p
	}
	var sum float64
	var exact int64
	for _, m := range durationPart.FindAllStringSubmatch(s, -1) {
		for _, u := range durationUnits {
			if u.name != m[2] {
				continue
			}
			f, _ := strconv.ParseFloat(m[1], 64)
			sum += f * float64(u.size)
			exact += int64(math.Round(f * float64(u.size)))
		}
	}
	if sum >= math.MaxInt64 {
		return yamltree.Wrong("is too long a duration").Fix("at most 106751d")
	}
	*d = Duration(exact)
	return nil
}

// Size is a number of bytes, written with a unit: 512MiB, 20GB.
type Size int64

var sizeUnits = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

// String prints the size as the file would have it.
func (s Size) String() string {
	if s == 0 {
		return "0B"
	}
	best := sizeUnits[len(sizeUnits)-1]
	for _, u := range sizeUnits {
		if int64(s)%u.size == 0 && u.size > best.size {
			best = u
		}
	}
	return strconv.FormatInt(int64(s)/best.size, 10) + best.name
}

var sizeText = regexp.MustCompile(`^(\d+(?:\.\d+)?)([A-Za-z]+)$`)

func (s *Size) decodeText(text string) *yamltree.Problem {
	const want = "a size is a number and a unit: 512MiB, 20GB"
	if number.MatchString(text) {
		return yamltree.Wrong("has no unit").Fix("did you mean %sMiB? %s", strings.TrimPrefix(text, "-"), want)
	}
	m := sizeText.FindStringSubmatch(text)
	if m == nil {
		return yamltree.Wrong("is not a size").Fix(want)
	}
	f, _ := strconv.ParseFloat(m[1], 64)
	for _, u := range sizeUnits {
		if u.name != m[2] {
			continue
		}
		v := f * float64(u.size)
		if v >= math.MaxInt64 {
			return yamltree.Wrong("is too large a size").Fix("at most 8388607TiB")
		}
		if n, err := strconv.ParseInt(m[1], 10, 64); err == nil {
			*s = Size(n * u.size) // exact beyond 2^53
		} else {
			*s = Size(math.Round(v))
		}
		return nil
	}
	p := yamltree.Wrong("has an unknown unit").Fix("units are B, kB, MB, GB, TB (1000) and KiB, MiB, GiB, TiB (1024)")
	for _, u := range sizeUnits {
		if strings.EqualFold(u.name, m[2]) || strings.EqualFold(strings.TrimSuffix(u.name, "iB"), m[2]) {
			return p.Fix("did you mean %s%s? units are B, kB, MB, GB, TB (1000) and KiB, MiB, GiB, TiB (1024)", m[1], u.name)
		}
	}
	return p
}

// Time is a moment, written as RFC 3339: 2026-11-21T10:15:30Z.
type Time struct{ time.Time }

// String prints the moment as RFC 3339.
func (t Time) String() string { return t.Format(time.RFC3339Nano) }

func (t *Time) decodeText(s string) *yamltree.Problem {
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return yamltree.Wrong("is not a time").Fix("a time is written as RFC 3339, with its zone: 2026-11-21T10:15:30Z")
	}
	t.Time = v
	return nil
}

// FromKind says which field of a From counts.
type FromKind string

// Kinds of From.
const (
	FromEarliest FromKind = "earliest" // the oldest event that is kept
	FromLatest   FromKind = "latest"   // what comes after now
	FromSnapshot FromKind = "snapshot" // a copy of the rows first
	FromOffset   FromKind = "offset"
	FromTime     FromKind = "time"
)

// From is where delivery begins when a subscription is new.
type From struct {
	Kind   FromKind
	Offset uint64 // with FromOffset: Leat's own log offset
	Time   Time   // with FromTime: commit time
}

// String prints it as the file would have it.
func (f From) String() string {
	switch f.Kind {
	case FromOffset:
		return fmt.Sprintf("{offset: %d}", f.Offset)
	case FromTime:
		return fmt.Sprintf("{time: %s}", f.Time)
	}
	return string(f.Kind)
}

func (f *From) decodeText(s string) *yamltree.Problem {
	words := []string{"earliest", "latest", "snapshot"}
	for _, w := range words {
		if s == w {
			*f = From{Kind: FromKind(w)}
			return nil
		}
	}
	if _, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return yamltree.Wrong("is not a beginning").Fix("a time is written {time: %s}", s)
	}
	return yamltree.Wrong("is not a beginning").Fix("%s (or {offset: N}, {time: 2026-11-21T10:15:30Z})", yamltree.DidYouMean(s, supported("subscriptions.x.from", words)))
}

func (f *From) decodeNode(d *decoder, n *yamltree.Node, path string) {
	if n.Kind != yamltree.KindMap {
		d.text(n, path, f, "")
		return
	}
	if len(n.Keys) != 1 {
		d.doc.Fail(n, path, "from wants exactly one of offset and time", "write {offset: N} or {time: 2026-11-21T10:15:30Z}")
		return
	}
	key, v, p := n.Keys[0], n.Items[0], yamltree.Join(path, n.Keys[0].Name())
	switch key.Raw {
	case "offset":
		f.Kind = FromOffset
		if v.Open {
			d.open[p] = v.Raw
			return
		}
		o, err := strconv.ParseUint(v.Text, 10, 64)
		if err != nil || v.Kind != yamltree.KindInt && !v.Ref {
			d.doc.Fail(v, p, yamltree.Quote(v)+" is not an offset", "an offset is a whole number: the sequence of an event")
			return
		}
		f.Offset = o
	case "time":
		f.Kind = FromTime
		d.text(v, p, &f.Time, "")
	default:
		d.doc.Fail(key, p, "unknown field "+yamltree.QuoteKey(key)+" in from", yamltree.DidYouMean(key.Raw, []string{"offset", "time"}))
	}
}

// StartKind says what a Start is.
type StartKind string

// Kinds of Start.
const (
	StartNow      StartKind = "now"
	StartEarliest StartKind = "earliest"
	StartLSN      StartKind = "lsn"  // PostgreSQL: 0/16B3748
	StartGTID     StartKind = "gtid" // MySQL uuid:1-5[,…], MariaDB 0-1-100[,…]
	StartFile     StartKind = "file" // MySQL, MariaDB: binlog.000003:1547
)

// Start is where reading of a source begins the first time.
type Start struct {
	Kind  StartKind
	Value string // as written; "" for now and earliest
}

// String prints it as the file would have it.
func (s Start) String() string {
	if s.Value != "" {
		return s.Value
	}
	return string(s.Kind)
}

var startForms = []struct {
	kind StartKind
	re   *regexp.Regexp
}{
	{StartNow, regexp.MustCompile(`^now$`)},
	{StartEarliest, regexp.MustCompile(`^earliest$`)},
	{StartLSN, regexp.MustCompile(`^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$`)},
	{StartGTID, regexp.MustCompile(`^\d+-\d+-\d+(?:\s*,\s*\d+-\d+-\d+)*$`)},
	{StartGTID, regexp.MustCompile(`^` + gtidSet + `(?:\s*,\s*` + gtidSet + `)*$`)},
	{StartFile, regexp.MustCompile(`^[A-Za-z0-9._-]+\.\d+:\d+$`)},
}

const gtidSet = `[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?::(?:[a-z_][a-z0-9_]{0,31}|\d+(?:-\d+)?))+`

func (s *Start) decodeText(text string) *yamltree.Problem {
	for _, f := range startForms {
		if f.re.MatchString(text) {
			*s = Start{Kind: f.kind}
			if f.kind != StartNow && f.kind != StartEarliest {
				s.Value = text
			}
			return nil
		}
	}
	return yamltree.Wrong("is not a start").Fix("now, earliest, an LSN (0/16B3748), a GTID set (uuid:1-5 or 0-1-100), or file:position (binlog.000003:1547)")
}
