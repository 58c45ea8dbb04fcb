// Package state keeps what must outlive the process and is no event: cursors, pauses, dead letters, what was
// skipped, which sources and subscriptions there are, and who changed what. One SQLite file, written ahead
// and synced at each commit (journal_mode=WAL, synchronous=FULL): what a method returned from is durable.
package state

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // the driver "sqlite": no cgo
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/leat-cdc/leat/pipeline"
)

//go:embed migrations/*.sql
var files embed.FS

// Store is the state of one installation. Safe for concurrent use.
type Store struct {
	// SQLite takes one writer at a time: writes share one connection, so that they queue here instead of
	// failing there; reads have their own.
	write, read *sql.DB
	saves       saves
}

var _ pipeline.Cursors = (*Store)(nil)

// ErrNewer: the file was written by a newer version.
var ErrNewer = errors.New("the state was written by a newer version of Leat; run that version, or restore a backup made before the upgrade")

// cure says what SQLite's own words leave out.
func cure(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR:
		return fmt.Errorf("%w; the disk may be full: it needs some space in the data folder to begin", err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w; the file is damaged: restore the data folder from a backup (leat backup)", err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%w; the data folder and its files must belong to the user that runs Leat", err)
	}
	return err
}

// NoSpace reports whether an error says that the disk is full, of the state or of any file.
func NoSpace(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		code := e.Code() & 0xff
		return code == sqlite3.SQLITE_FULL || code == sqlite3.SQLITE_IOERR // the shared memory's file too
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Open opens the state in the file at path, makes it when it is not there and brings an older one up to
// this version. ErrNewer.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(ctx, path); err != nil {
			return nil, fmt.Errorf("make the state %s: %w", path, cure(err))
		}
	}
	dsn := dsn(path, "_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)")
	s := &Store{saves: saves{turn: make(chan struct{}, 1)}}
	var err error
	if s.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil {
		return nil, fmt.Errorf("open the state %s: %w", path, err)
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write); err != nil {
		s.write.Close()
		return nil, fmt.Errorf("open the state %s: %w", path, cure(err))
	}
	if s.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		s.write.Close()
		return nil, fmt.Errorf("open the state %s: %w", path, err)
	}
	s.read.SetMaxOpenConns(4)
	return s, nil
}

func dsn(path, query string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + query
}

// create makes a file of this version's schema. It gets its name when it is whole and synced: so the migrations
// need no sync of their own, of which there would be twenty.
func create(ctx context.Context, path string) (err error) {
	part := path + ".new"
	for _, old := range []string{part, path + "-wal", path + "-shm"} { // of a start that was cut off; of a file that somebody took away
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o600) // SQLite itself would make it readable to all
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	db, err := sql.Open("sqlite", dsn(part, "_pragma=journal_mode(MEMORY)&_pragma=synchronous(OFF)&_txlock=immediate"))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	err = migrate(ctx, db)
	if err == nil {
		_, err = db.ExecContext(ctx, "PRAGMA journal_mode=WAL") // stays with the file
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(files, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	known := p.ListSources()
	if newest := known[len(known)-1].Version; have > newest {
		return fmt.Errorf("%w (its schema is %d, this version knows %d)", ErrNewer, have, newest)
	}
	_, err = p.Up(ctx)
	return err
}

// Close closes the file. Idempotent.
func (s *Store) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }

// Backup writes a copy of the state as it is at one moment to a new file. Writes wait for it.
func (s *Store) Backup(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("back up the state: %s exists already", path)
	}
	if _, err := s.write.ExecContext(ctx, "VACUUM INTO ?", path); err != nil {
		return fmt.Errorf("back up the state to %s: %w", path, err)
	}
	return os.Chmod(path, 0o600)
}

// Copy writes a copy of the state in the file at path, which a server may be using, to a new file. The
// original is only read: its schema stays as it is, also when it is not this version's.
func Copy(ctx context.Context, path, to string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("back up the state: %w", err)
	}
	if _, err := os.Stat(to); err == nil {
		return fmt.Errorf("back up the state: %s exists already", to)
	}
	db, err := sql.Open("sqlite", dsn(path, "mode=rw&_pragma=busy_timeout(10000)"))
	if err != nil {
		return fmt.Errorf("back up the state %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return fmt.Errorf("back up the state to %s: %w", to, err)
	}
	return os.Chmod(to, 0o600)
}

func (s *Store) exec(ctx context.Context, doing, query string, args ...any) error {
	if _, err := s.write.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

func micros(t time.Time) int64     { return t.UnixMicro() }
func fromMicros(n int64) time.Time { return time.UnixMicro(n).UTC() }
