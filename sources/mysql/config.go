package mysql

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Config of a source. Name and URL are required.
type Config struct {
	// Name of the source in Leat.
	Name string
	// URL is mysql://user:password@host:port/?tls=…: tls is disable, preferred (default), required,
	// verify-ca or verify-full, with ca, cert and key as files in PEM; socket is a path instead of
	// host and port; timeout bounds connecting (default 10s).
	URL string
	// ServerID towards the server, unlike that of its other replicas. Default: derived from Name.
	ServerID uint32
	// Tables are globs over database.table: * is any run of characters but a dot, ? is one; a leading
	// ! takes tables out. Default: all but the server's own.
	Tables []string
	// Columns that enter the log, by table: names, or names with a leading ! to leave out. Default: all.
	Columns map[string][]string
	// Keys are the routing keys by table; the stream does not need them, Check does.
	Keys map[string][]string
	// Start is where reading begins the first time: now (default), earliest, a GTID set, file:offset.
	Start string
	// BatchBytes and BatchEvents bound a batch; a larger transaction travels in chunks. Defaults:
	// 1 MiB, 8192.
	BatchBytes, BatchEvents int
	// StatusInterval is how often an idle or filtered-out stream yields its position. Default 10 s.
	StatusInterval time.Duration
	// Silence is how long nothing may come, not even one of the heartbeats that are asked for six times as often,
	// before the connection counts as dead. Default 30 s.
	Silence time.Duration
	// LookupTimeout is how long the server may say nothing while it is asked something, outside of the stream. Then the
	// connection counts as lost and it is tried again. Default 60 s.
	LookupTimeout time.Duration
	// Known returns the newest shapes that the log has, so that a change which fell between two
	// connections is told as such; nil = none are known. Called by Open.
	Known func() []*schemas.Table
	// SignalTable is a table ("database.table") with columns owner, reason, ratio, until (UTC) through which a
	// person or a program in the database throttles the reading; empty: none.
	SignalTable string
	// WatermarkTable is the table ("database.table") that snapshots write their watermarks to; it is made where the
	// user may. Its rows are never events. Default leat.watermark; "-": snapshots do not write to the server at all.
	WatermarkTable string
	// ReplicaURL is of a replica that snapshots read tables from, as URL is; empty: from the server itself.
	ReplicaURL string
	// Observer may be empty.
	Observer pipeline.Observer
}

const (
	defaultBatchBytes  = 1 << 20
	defaultBatchEvents = 8192
	defaultStatus      = 10 * time.Second
	defaultSilence     = 30 * time.Second
	defaultLookup      = 60 * time.Second
	// connectAttempt bounds connecting where the URL says nothing.
	connectAttempt = 10 * time.Second
)

// Source is a MySQL or MariaDB server to be read. Safe for concurrent use; one Stream at a time.
type Source struct {
	cfg     Config
	url     target
	replica target // of snapshots
	tables  globs
	columns []columnRule
	start   start
	at      progress
	probe   prober
	awaited awaited
	cutting atomic.Int32 // how many want each transaction in a batch of its own
	live    sync.Map     // liveKey → *schemas.Table: what the stream has
}

var _ pipeline.Source = (*Source)(nil)

// New checks the configuration; it does not connect.
func New(cfg Config) (*Source, error) {
	if cfg.Name == "" {
		return nil, fmt.Errorf("a MySQL source needs a name")
	}
	s := &Source{cfg: cfg}
	c := &s.cfg
	c.Observer = c.Observer.Fill()
	if c.BatchBytes <= 0 {
		c.BatchBytes = defaultBatchBytes
	}
	if c.BatchEvents <= 0 {
		c.BatchEvents = defaultBatchEvents
	}
	if c.StatusInterval <= 0 {
		c.StatusInterval = defaultStatus
	}
	if c.LookupTimeout <= 0 {
		c.LookupTimeout = defaultLookup
	}
	if c.Silence <= 0 {
		c.Silence = defaultSilence
	}
	if c.ServerID == 0 {
		c.ServerID = derivedServerID(c.Name)
	}
	var err error
	if s.url, err = parseURL(cfg.URL); err != nil {
		return nil, fmt.Errorf("source %s: %w", cfg.Name, err)
	}
	if s.tables, err = parseGlobs(cfg.Tables); err != nil {
		return nil, fmt.Errorf("source %s: %w", cfg.Name, err)
	}
	if cfg.ReplicaURL != "" {
		if s.replica, err = parseURL(cfg.ReplicaURL); err != nil {
			return nil, fmt.Errorf("source %s: snapshot: %w", cfg.Name, err)
		}
	}
	if c.WatermarkTable == "" {
		c.WatermarkTable = defaultSignal
	}
	if c.WatermarkTable != noSignal && strings.Count(c.WatermarkTable, ".") != 1 {
		return nil, fmt.Errorf("source %s: snapshot: signal: %q: want DATABASE.TABLE, or - to never write", cfg.Name, c.WatermarkTable)
	}
	s.tables.signalTable(c.WatermarkTable)
	s.awaited.wake = make(chan struct{}, 1)
	if s.start, err = parseStart(cfg.Start); err != nil {
		return nil, fmt.Errorf("source %s: %w", cfg.Name, err)
	}
	for _, table := range slices.Sorted(maps.Keys(cfg.Columns)) {
		rule, err := parseColumns(table, cfg.Columns[table])
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", cfg.Name, err)
		}
		s.columns = append(s.columns, rule)
	}
	return s, nil
}

// derivedServerID is stable for a name, in the upper half of the range, where people rarely number
// their servers.
func derivedServerID(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte("leat:" + name))
	return h.Sum32() | 1<<31
}

// globs over database.table.
type globs struct{ in, out []string }

func parseGlobs(list []string) (g globs, err error) {
	for _, p := range list {
		pattern, not := strings.CutPrefix(p, "!")
		if !strings.Contains(pattern, ".") {
			return g, fmt.Errorf("tables: %q: want DATABASE.TABLE, with * and ? as wildcards", p)
		}
		if not {
			g.out = append(g.out, pattern)
		} else {
			g.in = append(g.in, pattern)
		}
	}
	return g, nil
}

// own are the databases that the servers keep for themselves.
var own = []string{"mysql", "sys", "performance_schema", "information_schema", "ndbinfo"}

// match tells whether the table is wanted. fold: the server does not tell upper from lower case.
func (g globs) match(schema, table string, fold bool) bool {
	if slices.Contains(own, schema) {
		return false
	}
	named := func(p string) bool { return names(p, schema, table, fold) }
	return (len(g.in) == 0 || slices.ContainsFunc(g.in, named)) && !slices.ContainsFunc(g.out, named)
}

// exactly tells whether the table is named, not only matched by a glob.
func (g globs) exactly(schema, table string, fold bool) bool {
	return slices.ContainsFunc(g.in, func(p string) bool { return !strings.ContainsAny(p, "*?") && names(p, schema, table, fold) })
}

// names tells whether a glob names the table.
func names(pattern, schema, table string, fold bool) bool {
	if !fold {
		return schemas.MatchTable(pattern, schema, table)
	}
	pattern, schema, table = strings.ToLower(pattern), strings.ToLower(schema), strings.ToLower(table)
	if schemas.MatchTable(pattern, schema, table) {
		return true
	}
	s, t, _ := strings.Cut(strings.ToLower(schemas.Subject(schema, table)), ".") // %2E is %2e in the pattern
	return schemas.MatchTable(pattern, s, t)
}

// columnRule says which columns of the tables it matches stay out of the log.
type columnRule struct {
	pattern string
	keep    bool // names are those to keep
	names   []string
}

func parseColumns(table string, list []string) (columnRule, error) {
	r := columnRule{pattern: table}
	for i, n := range list {
		name, not := strings.CutPrefix(n, "!")
		if i > 0 && r.keep == not {
			return r, fmt.Errorf("columns of %s: %q: name either those to keep or, each with !, those to leave out", table, n)
		}
		r.keep = !not
		r.names = append(r.names, strings.ToLower(name))
	}
	return r, nil
}

// drops tells whether the column stays out. Column names have no case in MySQL.
func (s *Source) drops(schema, table, column string, fold bool) bool {
	for i := range s.columns {
		r := &s.columns[i]
		if len(r.names) > 0 && slices.Contains(r.names, strings.ToLower(column)) != r.keep && names(r.pattern, schema, table, fold) {
			return true
		}
	}
	return false
}
