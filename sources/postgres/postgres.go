// Package postgres reads the changes of a PostgreSQL database (15 and later) by logical replication: plugin
// pgoutput, a slot and a publication of its own.
//
// Two connections: the stream (replication=database), which package pgoutput decodes, and an ordinary one
// for the catalogue, over which types, keys and partitions are looked up and the publication is kept in
// step with the tables that the globs name. What the catalogue says is of now, what the stream says is
// of the moment that a row was written: names, types and replica identity come from the stream, the
// catalogue adds the primary key, what types are made of, and NOT NULL.
package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Config says what to read. It is plain data: New copies it.
type Config struct {
	// Name of the source, in errors, observations and the application_name.
	Name string
	// URL is postgres://user:password@host:port/database?… as pgx takes it, TLS files and PG… variables
	// included. The role needs LOGIN and REPLICATION; with Create, what CREATE and ALTER PUBLICATION need.
	URL string
	// Slot and Publication; default leat_<name>, with _ for -.
	Slot, Publication string
	// Create makes slot and publication when they are missing and adds tables to the publication.
	Create bool
	// Tables are globs over schema.table, those with ! take tables out; empty: all. A table is named
	// as it is or as its Subject.
	Tables []string
	// Columns that enter the log by table (globs over schema.table): names, or names with ! to leave out.
	Columns map[string][]string
	// Keys are the routing columns by table; only Check looks at them.
	Keys map[string][]string
	// Start is where reading begins when the log is empty and the slot new: now, earliest (as far back as
	// the slot reaches: the same as now for a new one) or an LSN. An existing slot goes on from where it stands.
	Start string
	// StatusInterval: the server is told at least so often where the log stands, and an idle or
	// filtered-out stream yields its position so often. Default 10 s; less if wal_sender_timeout asks for it.
	StatusInterval time.Duration
	// Silence is how long nothing may come, though the server is asked to answer once per StatusInterval, before the
	// connection counts as dead. Default: twice wal_sender_timeout, as a server that is at work on a large transaction
	// answers twice within that; at least 30 s, and 10 min where it is off.
	Silence time.Duration
	// CatalogInterval is how often the catalogue is asked for new tables. Default 3 s.
	CatalogInterval time.Duration
	// LookupTimeout is how long one question to the server may take, in the catalogue or while a stream begins; only
	// making a slot takes as long as the server is at it. Then it counts as lost and is tried again. Default 60 s.
	LookupTimeout time.Duration
	// BatchBytes and BatchEvents are the sizes at which a batch is cut. Default 1 MiB, 8,192.
	BatchBytes, BatchEvents int
	// Pause is how long a reader that is behind lets rows gather in the server's send queue before it reads
	// on; see gulp.go. Default 600 µs; negative: never.
	Pause time.Duration
	// Known returns the newest table versions of the log when a stream is opened, so that a change of
	// shape across a restart is told as one; may be nil.
	Known func() []*schemas.Table
	// SignalTable is a table ("schema.table") with columns owner, reason, ratio, until through which a person or
	// a program in the database throttles the reading; empty: none.
	SignalTable string
	// Observer is warned; its funcs may be nil.
	Observer pipeline.Observer
}

// Source is one database. It is safe for concurrent use; at most one Stream of it is open at a time.
type Source struct {
	cfg    Config
	tables globs
	conn   *pgconn.Config // of the stream
	plain  *pgx.ConnConfig
	mask   masker
	probe  prober

	mu     sync.Mutex
	opened int                // streams so far
	whole  uint32             // the transaction because of which none is streamed while it runs; 0: none
	placed map[uint32]carried // when the catalogue was last looked at
}

// New checks the configuration; it connects to nothing.
func New(c Config) (*Source, error) {
	s := &Source{cfg: c}
	cfg := &s.cfg
	cfg.Columns = columnsByTable(c.Columns)
	base := "leat_" + strings.ReplaceAll(c.Name, "-", "_")
	setDefault(&cfg.Slot, base)
	setDefault(&cfg.Publication, base)
	setDefault(&cfg.Start, "now")
	setDefault(&cfg.StatusInterval, 10*time.Second)
	setDefault(&cfg.CatalogInterval, 3*time.Second)
	setDefault(&cfg.LookupTimeout, lookupTimeout)
	setDefault(&cfg.BatchBytes, 1<<20)
	setDefault(&cfg.BatchEvents, 8192)
	setDefault(&cfg.Pause, 600*time.Microsecond)
	cfg.Observer = c.Observer.Fill()
	if len(cfg.Slot) > 63 || strings.Trim(cfg.Slot, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return nil, fmt.Errorf("slot %q: want at most 63 of a–z, 0–9 and _", cfg.Slot)
	}
	if cfg.Publication == "" || len(cfg.Publication) > 63 || strings.ContainsRune(cfg.Publication, 0) {
		return nil, fmt.Errorf("publication %q: want a name of at most 63 bytes", cfg.Publication)
	}
	if _, err := parseStart(cfg.Start); err != nil {
		return nil, err
	}
	var err error
	if s.tables, err = parseGlobs(c.Tables); err != nil {
		return nil, err
	}
	if err := s.parseURL(); err != nil {
		return nil, err
	}
	return s, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

func columnsByTable(c map[string][]string) map[string][]string {
	m := make(map[string][]string, len(c))
	for table, names := range c {
		m[table] = slices.Clone(names)
	}
	return m
}

// excluded reports whether the configuration keeps the column out of the log: one of the lists whose glob
// names the table does. In a list of names without !, what is not named is out.
func (s *Source) excluded(schema, table, column string) bool {
	for glob, list := range s.cfg.Columns {
		if len(list) == 0 || !schemas.MatchTable(glob, schema, table) {
			continue
		}
		if slices.Contains(list, "!"+column) {
			return true
		}
		keeps := func(c string) bool { return !strings.HasPrefix(c, "!") }
		if slices.ContainsFunc(list, keeps) && !slices.Contains(list, column) {
			return true
		}
	}
	return false
}

// TableInfo is what the database says about one table that the globs name.
type TableInfo struct {
	Schema, Name string
	// Key is the primary key in its order, empty without one.
	Key []string
	// ReplicaIdentity is default, index, full or nothing; IdentityColumns are what before images carry at
	// least (all columns under full are not listed).
	ReplicaIdentity string
	IdentityColumns []string
	Partitioned     bool
	// Columns that enter the log, in the table's order: those that the configuration leaves out are not here.
	Columns []string
	// Published: the publication has the table, by itself or through a schema, a root or FOR ALL TABLES.
	Published bool
	// Problem says why the table cannot be read, "" when it can; Cure what to do.
	Problem, Cure string
}

// Tables lists the tables that the globs name, by name. Partitions of a listed table are left out.
func (s *Source) Tables(ctx context.Context) ([]TableInfo, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	tables, err := c.tables(ctx, s.cfg.Publication)
	if err != nil {
		return nil, err
	}
	var infos []TableInfo
	for _, t := range s.wanted(tables) {
		info := t.info()
		info.Columns = slices.DeleteFunc(slices.Clone(t.columns), func(c string) bool { return s.excluded(t.schema, t.name, c) })
		infos = append(infos, info)
	}
	return infos, nil
}

// Server returns kind and version of the server, for people.
func (s *Source) Server(ctx context.Context) (string, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return "", err
	}
	defer c.close()
	settings, err := c.settings(ctx)
	if err != nil {
		return "", err
	}
	return "PostgreSQL " + settings["server_version"], nil
}

// letGo is how long Remove waits for another to let the slot go.
const letGo = 3 * time.Second

// Remove drops the slot and, if Leat made it, the publication. What is gone already is no error.
func (s *Source) Remove(ctx context.Context) error {
	c, err := s.catalog(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	slot, err := c.slot(ctx, s.cfg.Slot)
	if err != nil {
		return err
	}
	// The walsender of a stream that was just closed takes a moment to let go.
	for end := time.Now().Add(letGo); slot != nil && slot.active && err == nil && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(50 * time.Millisecond):
			slot, err = c.slot(ctx, s.cfg.Slot)
		}
	}
	if err != nil {
		return s.failure("look up replication slot "+s.cfg.Slot, err)
	}
	if slot != nil {
		if slot.active {
			return s.slotActive(slot)
		}
		if err := c.dropSlot(ctx, s.cfg.Slot); err != nil {
			return err
		}
	}
	pub, err := c.publication(ctx, s.cfg.Publication)
	if err != nil || pub == nil || !pub.ours {
		return err
	}
	return c.dropPublication(ctx, s.cfg.Publication)
}
