package demo

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/demo/workload"
	"github.com/leat-cdc/leat/internal/servers"
)

// database is where the demo's filesystem lives.
type database interface {
	// setup makes the schema and its tables; what an earlier demo left there is dropped first.
	setup(ctx context.Context) error
	// drop removes everything that the demo and Leat made in the database. Leat no longer runs.
	drop(ctx context.Context) error
	// session is a connection for one worker.
	session(ctx context.Context) (workload.Session, error)
	// rows calls f with every row of a table, comparable, by column.
	rows(ctx context.Context, t *table, f func([]string) error) error
	// held is how many bytes of its own log the database keeps for Leat; false where it does not say.
	held(ctx context.Context) (int64, bool)
	// source is the block of leat.yaml that names it; %s in it stands for the URL.
	source() string
	close(ctx context.Context) error
}

// place is a database and what is to be done with its server in the end.
type place struct {
	database
	name   string // "PostgreSQL 17.11", for people
	url    string
	secret bool            // the URL is the user's and may hold a password
	server *servers.Server // ours to stop; nil: not
}

// ours marks what the demo made, so that it never drops a stranger's.
const ours = "made by leat demo, which drops it"

var errAnother = errors.New("another `leat demo` uses this database: wait for its end, or give --url of another database")

func errNotOurs(what string) error {
	return fmt.Errorf("the database has a %s %q that `leat demo` did not make, and the demo would work in it: rename it, or give --url of another database", what, space)
}

// open finds or starts the database.
func open(ctx context.Context, o *options, say func(string)) (_ *place, err error) {
	p := &place{url: o.URL, secret: true}
	mysql := o.MySQL
	if p.url != "" {
		scheme, _, _ := strings.Cut(p.url, "://")
		switch scheme {
		case "postgres", "postgresql":
			if mysql {
				return nil, errors.New("--mysql and a --url of PostgreSQL contradict each other: leave one out")
			}
		case "mysql", "mariadb":
			mysql = true
		default:
			return nil, errors.New("--url: want postgres://USER:PASSWORD@HOST:PORT/DATABASE or mysql://USER:PASSWORD@HOST:PORT/")
		}
	} else if err := p.start(ctx, mysql, say); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	if mysql {
		p.database, p.name, err = openMySQL(ctx, p.url)
	} else {
		p.database, p.name, err = openPostgres(ctx, p.url)
	}
	if errors.Is(err, errAnother) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w; see that the server runs and that --url names it, its user and password", withoutPassword(err, p.url))
	}
	return p, nil
}

// start a throw-away server, or take the one that the environment names.
func (p *place) start(ctx context.Context, mysql bool, say func(string)) (err error) {
	if !mysql {
		say("starting a throw-away PostgreSQL")
		if p.server, err = servers.Postgres(ctx, servers.PostgresOptions{NoSync: true, Say: say}); err != nil {
			return fmt.Errorf("%w\nor use a PostgreSQL of your own: leat demo --url postgres://…", err)
		}
		p.url, p.secret = p.server.URL, false
		return nil
	}
	for _, k := range []servers.Kind{servers.KindMySQL, servers.KindMariaDB} {
		if s := servers.Given(k, 0); s != nil {
			p.url = s.URL
			return nil
		}
	}
	say("starting a throw-away MySQL")
	if p.server, err = servers.MySQL(ctx, servers.MySQLOptions{NoSync: true, Say: say}); err != nil {
		return fmt.Errorf("%w\nor use a server of your own: leat demo --url mysql://USER:PASSWORD@HOST:3306/", err)
	}
	p.url, p.secret = p.server.URL, false
	return nil
}

// existing rows are there before Leat starts, and no change touches them: its snapshot brings them.
const existing = 1000

// archived reports whether a row is one of them: their ids are negative.
func archived(c *change) bool { return strings.HasPrefix(c.key, "-") }

// fill makes the rows that exist before Leat starts.
func (p *place) fill(ctx context.Context) error {
	s, err := p.session(ctx)
	if err != nil {
		return err
	}
	err = s.Begin(ctx)
	for i := 1; i <= existing && err == nil; i++ {
		_, err = s.Exec(ctx, "insert into namespaces (id, name, quota_gb, labels) values (?, ?, ?, ?)", int64(-i), fmt.Sprintf("archive-%d", i), "1.000", "{}")
	}
	if err == nil {
		err = s.Commit(ctx)
	}
	return errors.Join(err, s.Close(ctx))
}

// stop ends the server if it is ours; the database was closed.
func (p *place) stop() error {
	if p.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return p.server.Stop(ctx)
}

// withoutPassword takes the password of a URL out of an error's text.
func withoutPassword(err error, from string) error {
	if err == nil {
		return nil
	}
	u, perr := url.Parse(from)
	if perr != nil {
		return errors.New("--url is not a URL (special characters in a password are percent-encoded)")
	}
	text := err.Error()
	if p, has := u.User.Password(); has && len(p) > 0 {
		for _, form := range []string{p, url.QueryEscape(p), url.PathEscape(p)} {
			text = strings.ReplaceAll(text, form, "***")
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}
