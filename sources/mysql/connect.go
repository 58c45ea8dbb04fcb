package mysql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"github.com/leat-cdc/leat/pipeline"
)

// writeTimeout is what the server may wait for us while we are paused, in seconds: its maximum, a year.
const writeTimeout = 31536000

// conn is one connection to the server, with our session settings.
type conn struct {
	*client.Conn
	raw     net.Conn // below go-mysql; the TLS connection where there is TLS
	secure  bool
	silence time.Duration // Config.Silence
	lookup  time.Duration // Config.LookupTimeout
}

// connect opens a connection and sets the session up. The error is a *pipeline.SourceError.
func (s *Source) connect(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.url.timeout)
	defer cancel()
	config, err := s.url.tls()
	if err != nil {
		return nil, stopped("tls", "connect", "give files that can be read", err)
	}
	c, err := s.dial(ctx, config)
	if err != nil && s.url.mode == tlsPreferred && strings.Contains(err.Error(), "does not support TLS") {
		config = nil
		c, err = s.dial(ctx, nil)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return nil, connectError(err)
	}
	cn := &conn{Conn: c, raw: c.Conn.Conn, secure: config != nil, silence: s.cfg.Silence, lookup: s.cfg.LookupTimeout}
	if err := cn.session(ctx); err != nil {
		_ = cn.Close()
		return nil, err
	}
	return cn, nil
}

func (s *Source) dial(ctx context.Context, config *tls.Config) (*client.Conn, error) {
	dialer := &net.Dialer{KeepAlive: 15 * time.Second}
	var stop func() bool
	c, err := client.ConnectWithDialer(ctx, s.url.network, s.url.addr, s.url.user, s.url.password, "",
		func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := dialer.DialContext(ctx, network, addr)
			if err == nil { // go-mysql does not look at ctx again during the handshake, and sets deadlines of its own
				stop = context.AfterFunc(ctx, func() { _ = nc.Close() })
			}
			return nc, err
		},
		func(c *client.Conn) error {
			if config != nil {
				c.SetTLSConfig(config)
			}
			c.UnsetCapability(gomysql.CLIENT_DEPRECATE_EOF) // so that whoever reads answers by itself knows their form
			c.ReadTimeout, c.WriteTimeout = s.cfg.LookupTimeout, s.cfg.LookupTimeout
			c.SetAttributes(map[string]string{"program_name": "leat", "_client_role": "binary_log_listener"})
			return nil
		})
	if stop != nil {
		stop()
	}
	return c, err
}

// session is one list of settings for every connection of ours, so that a snapshot reads the same text
// as the stream; they are read back, since a pooler may change them behind our back.
func (c *conn) session(ctx context.Context) error {
	if _, err := c.exec(ctx, fmt.Sprintf(`SET NAMES utf8mb4, SESSION time_zone='+00:00', sql_mode='', net_write_timeout=%d, group_concat_max_len=1048576`, writeTimeout)); err != nil {
		return err
	}
	row, err := c.row(ctx, "SELECT @@session.time_zone, @@session.sql_mode, @@session.character_set_results, @@session.net_write_timeout")
	if err != nil {
		return err
	}
	if row[0] != "+00:00" || row[1] != "" || row[2] != "utf8mb4" || row[3] != fmt.Sprint(writeTimeout) {
		return stopped("session_settings", fmt.Sprintf("something between us and the server (a pooler?) changed our session's settings: time_zone %q, sql_mode %q, character_set_results %q, net_write_timeout %s", row[0], row[1], row[2], row[3]),
			"connect to the server itself", nil)
	}
	return nil
}

// exec runs one statement. The error is a *pipeline.SourceError.
func (c *conn) exec(ctx context.Context, sql string) (*gomysql.Result, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.raw.Close() }) // a deadline would be overwritten
	r, err := c.Execute(sql)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return r, nil
	}
	word, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
	var my *gomysql.MyError
	switch {
	case errors.As(err, &my):
		return nil, serverError("run "+word, my)
	case ctx.Err() != nil:
		return nil, transient("canceled", "run "+word, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded):
		e := transient("no_answer", "run "+word, fmt.Errorf("the server did not answer within %s", c.lookup))
		e.Cure = "check the network between and how busy the server is; it is tried again by itself"
		return nil, e
	}
	return nil, transient("unreachable", "run "+word, err)
}

// rows runs a query and returns all its rows as text, NULL as "".
func (c *conn) rows(ctx context.Context, sql string) ([][]string, error) {
	r, err := c.exec(ctx, sql)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Resultset == nil {
		return nil, nil
	}
	out := make([][]string, r.RowNumber())
	for i := range out {
		out[i] = make([]string, r.ColumnNumber())
		for j := range out[i] {
			if out[i][j], err = r.GetString(i, j); err != nil {
				return nil, transient("protocol", "read a result", err)
			}
			out[i][j] = strings.Clone(out[i][j])
		}
	}
	return out, nil
}

// row is rows for queries that give one row.
func (c *conn) row(ctx context.Context, sql string) ([]string, error) {
	all, err := c.rows(ctx, sql)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, transient("protocol", "read a result", fmt.Errorf("%d rows, want 1", len(all)))
	}
	return all[0], nil
}

// mysqlErrorNumber returns the server's error number in err, 0 when there is none. Errors of exec
// carry it in their text only: callers that care look at the code.
func code(err error) string {
	var se *pipeline.SourceError
	if errors.As(err, &se) {
		return se.Code
	}
	return ""
}
