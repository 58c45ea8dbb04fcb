// Package pg is PostgreSQL as a target of the table sink.
//
// Rows travel as one array per column and are unnested there, so that a statement has as many parameters as columns,
// however many rows it writes.
package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/leat-cdc/leat/sinks/table/target"
)

// Server is one PostgreSQL database.
type Server struct {
	config  *pgconn.Config
	timeout time.Duration

	mu     sync.Mutex
	idle   []*pgconn.PgConn
	closed bool
}

// New reads a URL or connection string; it does not connect. Its errors show no password. timeout bounds connecting.
func New(url string, timeout time.Duration) (*Server, error) {
	c, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	c.ConnectTimeout = min(timeout, 10*time.Second)
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "leat"
	}
	c.RuntimeParams["client_encoding"] = "UTF8" // of the cells, whatever the database's is
	// What runs out of time is cancelled on the server too: it would hold its locks.
	c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: 2 * time.Second}
	}
	return &Server{config: c, timeout: timeout}, nil
}

// Close implements target.Server.
func (s *Server) Close() error {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.closed = nil, true
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, c := range idle {
		_ = c.Close(ctx) // the server sees the end of it either way
	}
	return nil
}

// take returns a connection; used: it was used before.
func (s *Server) take(ctx context.Context) (c *pgconn.PgConn, used bool, err error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		c = s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return c, true, nil
	}
	s.mu.Unlock()
	c, err = pgconn.ConnectConfig(ctx, s.config)
	return c, false, err
}

// give takes a connection back.
func (s *Server) give(c *pgconn.PgConn) {
	s.mu.Lock()
	if !s.closed && !c.IsClosed() && c.TxStatus() == 'I' {
		s.idle = append(s.idle, c)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = c.Close(ctx) // it is of no use any more
}

// with runs f on a connection. One that was used before may have ended meanwhile: then it is run again on others, as
// doing the same twice does no harm.
func (s *Server) with(ctx context.Context, f func(*pgconn.PgConn) error) error {
	for {
		c, used, err := s.take(ctx)
		if err != nil {
			return fault(ctx, err)
		}
		err = f(c)
		broken := c.IsClosed()
		s.give(c)
		if err == nil {
			return nil
		}
		if used && broken && ctx.Err() == nil {
			continue
		}
		return fault(ctx, err)
	}
}

// query runs one statement and calls row, when not nil, with each row's values as text, nil for NULL.
func query(ctx context.Context, c *pgconn.PgConn, sql string, row func([][]byte) error, args ...string) error {
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	r := c.ExecParams(ctx, sql, values, nil, nil, nil)
	for r.NextRow() {
		if row == nil {
			continue
		}
		if err := row(r.Values()); err != nil {
			_, _ = r.Close() // the first error says it
			return err
		}
	}
	_, err := r.Close()
	return err
}

func (s *Server) exec(ctx context.Context, sql string) error {
	return s.with(ctx, func(c *pgconn.PgConn) error { return query(ctx, c, sql, nil) })
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Quoted implements target.Server.
func (s *Server) Quoted(n target.Name) string {
	if n.Schema == "" {
		return quote(n.Table)
	}
	return quote(n.Schema) + "." + quote(n.Table)
}

// fault says what an error means.
func fault(ctx context.Context, err error) error {
	var f *target.Fault
	if errors.As(err, &f) {
		return err
	}
	var e *pgconn.PgError
	var connecting *pgconn.ConnectError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &connecting) && !errors.As(err, &e):
		return &target.Fault{Kind: target.Away, Text: target.Shorten("no connection: " + connecting.Error()), Err: err}
	case !errors.As(err, &e):
		return &target.Fault{Kind: target.Away, Text: target.Shorten("the connection was lost: " + err.Error()), Err: err}
	}
	return &target.Fault{Kind: meant(e), Code: e.Code, Text: textOf(e)}
}

// raised: by a function of the target, in whatever language and with whatever code.
func raised(e *pgconn.PgError) bool {
	return strings.HasPrefix(e.Code, "P0") || strings.HasPrefix(e.File, "pl_") || strings.HasPrefix(e.File, "plpy") || strings.HasPrefix(e.File, "plperl") || strings.HasPrefix(e.File, "pltcl")
}

func meant(e *pgconn.PgError) target.Kind {
	if kind := kindOf(e.Code); kind == target.Again || !raised(e) {
		return kind
	}
	return target.Unfit
}

// kindOf sorts the server's codes. https://www.postgresql.org/docs/current/errcodes-appendix.html
func kindOf(code string) target.Kind {
	switch code {
	case "23505", "23503", "23P01", "21000": // unique, foreign key, exclusion; one row twice in a statement
		return target.Conflict
	case "40001", "40P01", "55P03":
		return target.Again
	case "42P01", "3F000", "42703", "42804", "42P10", "42883", "42846", "42704", "42601", "428C9", "42P16", "0A000":
		return target.Changed
	case "42501", "25006":
		return target.Away
	case "54000", "54001", "54011":
		return target.Unfit
	case "57014":
		return target.Unknown
	}
	switch code[:min(2, len(code))] {
	case "22", "23", "44":
		return target.Unfit
	case "08", "28", "3D", "53", "57", "58":
		return target.Away
	case "P0": // a trigger's own
		return target.Unfit
	}
	return target.Unknown
}

// textOf is a server's error without what it quotes of rows.
func textOf(e *pgconn.PgError) string {
	if raised(e) {
		return "a trigger or function of the target refuses the row"
	}
	if kindOf(e.Code) == target.Unknown && e.Code != "57014" { // it may quote a row
		return "the target refuses the statement: see its log"
	}
	text := e.Message
	if c := e.Code[:min(2, len(e.Code))]; c == "22" || c == "23" || c == "44" || c == "21" {
		if from, to := strings.IndexByte(text, '"'), strings.LastIndexByte(text, '"'); from >= 0 {
			text = strings.TrimRight(text[:from]+"…"+text[to+1:], " :…")
		}
		text, _, _ = strings.Cut(text, ": 0x")
	}
	if e.ColumnName != "" {
		text += ", column " + e.ColumnName
	}
	if e.ConstraintName != "" {
		text += ", constraint " + e.ConstraintName
	}
	return target.Shorten(text)
}
