package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/pipeline"
)

// lookupTimeout is the default of Config.LookupTimeout.
const lookupTimeout = 60 * time.Second

// limited gives what is asked of the server a limit of its own. end is to be deferred: it says so in the error when
// the limit was the reason, which is transient.
func (s *Source) limited(ctx context.Context, what string) (inner context.Context, end func(err *error)) {
	inner, cancel := context.WithTimeout(ctx, s.cfg.LookupTimeout)
	return inner, func(err *error) {
		late := inner.Err() != nil && ctx.Err() == nil
		cancel()
		if *err != nil && late {
			*err = &pipeline.SourceError{
				Code: CodeNoAnswer, What: fmt.Sprintf("source %s: %s", s.cfg.Name, what),
				Err:  fmt.Errorf("the server did not answer within %s", s.cfg.LookupTimeout),
				Cure: "check the network between and how busy the server is; it is tried again by itself",
			}
		}
	}
}

// begin takes the connection for one look-up; end gives it back. A look-up that takes too long closes it.
func (c *catalog) begin(ctx context.Context, what string) (inner context.Context, end func(err *error)) {
	c.mu.Lock()
	inner, over := c.s.limited(ctx, what)
	return inner, func(err *error) {
		over(err)
		c.mu.Unlock()
	}
}

// patiently runs f in a transaction in which the server itself gives up, before our limit, on whatever `setting`
// (lock_timeout, statement_timeout) is about: so what has to wait for others costs no connection.
func (c *catalog) patiently(ctx context.Context, setting string, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("set local %s = %d", setting, max(c.s.cfg.LookupTimeout/2, time.Millisecond).Milliseconds())); err != nil {
			return err
		}
		return f(tx)
	})
}

// attended runs f, which may take as long as the server is at it (a new slot waits for every transaction that runs),
// and ends it when the catalogue's connection says that conn's backend is gone, or says nothing.
func (s *Source) attended(ctx context.Context, c *catalog, conn *pgconn.PgConn, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(s.cfg.LookupTimeout)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := c.runs(ctx, conn.PID(), what); err != nil {
				cancel(err)
				return
			}
		}
	}()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	cancel(nil)
	<-done
	return err
}

// runs is an error when the server has no backend of that number.
func (c *catalog) runs(ctx context.Context, pid uint32, what string) (err error) {
	ctx, end := c.begin(ctx, what)
	defer end(&err)
	var is bool
	if err := c.conn.QueryRow(ctx, "select exists (select from pg_stat_activity where pid = $1)", int32(pid)).Scan(&is); err != nil {
		return c.s.failure(what, err)
	}
	if !is {
		return &pipeline.SourceError{Code: CodeConnectionLost, What: fmt.Sprintf("source %s: %s", c.s.cfg.Name, what), Err: fmt.Errorf("its backend %d is gone", pid)}
	}
	return nil
}
