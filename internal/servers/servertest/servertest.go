// Package servertest gives tests real databases: one server for all tests of a process (or the one the
// environment names, see [servers.Given]), and in it a database of each test's own.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }
package servertest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/internal/servers"
)

// Database is a test's own, empty database on a server that other tests use as well. Binlogs and the WAL are
// shared with them.
type Database struct {
	Server *servers.Server // do not stop it: that is what the Exclusive functions are for
	Name   string
	URL    string // the superuser's, on this database
}

// running is a server shared by the tests of this process.
type running struct {
	once   sync.Once
	server *servers.Server
	err    error
}

var (
	mu      sync.Mutex
	shared  = map[string]*running{}
	lastSeq atomic.Uint32
)

// Main runs the tests, stops the servers and looks for leaked goroutines; it returns the process's
// exit code.
func Main(m *testing.M, leaks ...goleak.Option) int {
	// Such tests wait for servers most of the time: twice as many side by side as others, unless -parallel says how many.
	if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := stopAll(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	http.DefaultClient.CloseIdleConnections() // of tests and of waits for servers
	if code == 0 {
		if err := goleak.Find(leaks...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// IgnoreServers lets goleak.VerifyNone within a test pass over the goroutines that wait for servers.
func IgnoreServers() goleak.Option {
	return goleak.IgnoreAnyFunction("github.com/leat-cdc/leat/internal/servers.(*process).run")
}

func stopAll() error {
	mu.Lock()
	defer mu.Unlock()
	var err error
	for _, r := range shared {
		if r.server != nil {
			err = errors.Join(err, r.server.Stop(context.Background()))
		}
	}
	clear(shared)
	return err
}

// Postgres returns a fresh database on a PostgreSQL started with o (without fsync) and shared with all tests
// that ask for the same; its replication slots and itself are dropped when t ends. Of a server given by
// the environment only the version is known, so it serves when o names nothing else.
func Postgres(t testing.TB, o servers.PostgresOptions) *Database {
	t.Helper()
	o = relaxed(o)
	plain := o.Params == nil && o.Password == "" && !o.TLS && !o.ClientCert && o.HBA == nil
	return database(t, servers.KindPostgres, o.Version, plain, fmt.Sprintf("postgres %+v", o), func(say func(string)) (*servers.Server, error) {
		o.Params, o.Say = withRoom(o.Params), say
		return servers.Postgres(context.Background(), o)
	})
}

// MySQL is like Postgres; a given server serves when o has no Params.
func MySQL(t testing.TB, o servers.MySQLOptions) *Database {
	t.Helper()
	o.NoSync, o.Say = true, nil
	return database(t, servers.KindMySQL, 0, o.Params == nil, fmt.Sprintf("mysql %+v", o), func(say func(string)) (*servers.Server, error) {
		o.Say = say
		return servers.MySQL(context.Background(), o)
	})
}

// MariaDB is like MySQL.
func MariaDB(t testing.TB, o servers.MySQLOptions) *Database {
	t.Helper()
	o.NoSync, o.Say = true, nil
	return database(t, servers.KindMariaDB, 0, o.Params == nil, fmt.Sprintf("mariadb %+v", o), func(say func(string)) (*servers.Server, error) {
		o.Say = say
		return servers.MariaDB(context.Background(), o)
	})
}

// Kafka returns a Kafka started with o and shared with all tests that ask for the same, or the given one when o has
// no Params: a test uses topics of its own, see Name.
func Kafka(t testing.TB, o servers.KafkaOptions) *servers.Server {
	t.Helper()
	if s := servers.Given(servers.KindKafka, 0); s != nil && o.Params == nil {
		return s
	}
	o.Say = nil
	return share(t, fmt.Sprintf("kafka %+v", o), func() (*servers.Server, error) {
		o.Say = say(t)
		return servers.Kafka(context.Background(), o)
	})
}

// ExclusiveKafka is like ExclusivePostgres.
func ExclusiveKafka(t testing.TB, o servers.KafkaOptions) *servers.Server {
	t.Helper()
	o.Say = say(t)
	return exclusive(t, func() (*servers.Server, error) { return servers.Kafka(t.Context(), o) })
}

// OpenSearch is like Kafka: a test uses indices of its own, see Name.
func OpenSearch(t testing.TB) *servers.Server {
	t.Helper()
	if s := servers.Given(servers.KindOpenSearch, 0); s != nil {
		return s
	}
	return share(t, "opensearch", func() (*servers.Server, error) {
		return servers.OpenSearch(context.Background(), servers.OpenSearchOptions{Say: say(t)})
	})
}

// ExclusiveOpenSearch is like ExclusivePostgres.
func ExclusiveOpenSearch(t testing.TB) *servers.Server {
	t.Helper()
	return exclusive(t, func() (*servers.Server, error) {
		return servers.OpenSearch(t.Context(), servers.OpenSearchOptions{Say: say(t)})
	})
}

// Registry is like Kafka: a test uses subjects of its own, see Name.
func Registry(t testing.TB) *servers.Server {
	t.Helper()
	if s := servers.Given(servers.KindRegistry, 0); s != nil {
		return s
	}
	return share(t, "registry", func() (*servers.Server, error) { return servers.Registry(context.Background(), say(t)) })
}

// Valkey returns a Valkey started with o and shared with all tests that ask for the same: a test uses streams of its own,
// see Name.
func Valkey(t testing.TB, o servers.ValkeyOptions) *servers.Server {
	t.Helper()
	o.Say = nil
	return share(t, fmt.Sprintf("valkey %+v", o), func() (*servers.Server, error) {
		o.Say = say(t)
		return servers.Valkey(context.Background(), o)
	})
}

// ExclusiveValkey is like ExclusivePostgres.
func ExclusiveValkey(t testing.TB, o servers.ValkeyOptions) *servers.Server {
	t.Helper()
	o.Say = say(t)
	return exclusive(t, func() (*servers.Server, error) { return servers.Valkey(t.Context(), o) })
}

// NATS is like Valkey.
func NATS(t testing.TB, o servers.NATSOptions) *servers.Server {
	t.Helper()
	o.Say = nil
	return share(t, fmt.Sprintf("nats %+v", o), func() (*servers.Server, error) {
		o.Say = say(t)
		return servers.NATS(context.Background(), o)
	})
}

// ExclusiveNATS is like ExclusivePostgres.
func ExclusiveNATS(t testing.TB, o servers.NATSOptions) *servers.Server {
	t.Helper()
	o.Say = say(t)
	return exclusive(t, func() (*servers.Server, error) { return servers.NATS(t.Context(), o) })
}

// Name is unlike any other of this and of parallel test processes.
func Name() string { return fmt.Sprintf("leat_%d_%d", os.Getpid(), lastSeq.Add(1)) }

// share returns the server of that key, started once for all tests of the process.
func share(t testing.TB, key string, start func() (*servers.Server, error)) *servers.Server {
	t.Helper()
	mu.Lock()
	r := shared[key]
	if r == nil {
		r = &running{}
		shared[key] = r
	}
	mu.Unlock()
	r.once.Do(func() { r.server, r.err = start() })
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.server
}

// ExclusivePostgres starts a server for t alone, to be killed and restarted at will. It is always an own
// one, never a given one, and stopped when t ends.
func ExclusivePostgres(t testing.TB, o servers.PostgresOptions) *servers.Server {
	t.Helper()
	o = relaxed(o)
	o.Say = say(t)
	return exclusive(t, func() (*servers.Server, error) { return servers.Postgres(t.Context(), o) })
}

// Standby starts a physical standby of primary, which is restarted for it; it is stopped when t ends.
func Standby(t testing.TB, primary *servers.Server, params map[string]string) *servers.Server {
	t.Helper()
	return exclusive(t, func() (*servers.Server, error) { return servers.PostgresStandby(t.Context(), primary, params) })
}

// ExclusiveMySQL is like ExclusivePostgres.
func ExclusiveMySQL(t testing.TB, o servers.MySQLOptions) *servers.Server {
	t.Helper()
	o.NoSync, o.Say = true, say(t)
	return exclusive(t, func() (*servers.Server, error) { return servers.MySQL(t.Context(), o) })
}

// ExclusiveMariaDB is like ExclusivePostgres.
func ExclusiveMariaDB(t testing.TB, o servers.MySQLOptions) *servers.Server {
	t.Helper()
	o.NoSync, o.Say = true, say(t)
	return exclusive(t, func() (*servers.Server, error) { return servers.MariaDB(t.Context(), o) })
}

func exclusive(t testing.TB, start func() (*servers.Server, error)) *servers.Server {
	t.Helper()
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func database(t testing.TB, kind servers.Kind, version int, plain bool, key string, start func(say func(string)) (*servers.Server, error)) *Database {
	t.Helper()
	var s *servers.Server
	if plain {
		s = servers.Given(kind, version)
	}
	if s == nil {
		s = share(t, key, func() (*servers.Server, error) { return start(say(t)) })
	}
	name := Name()
	url, err := s.CreateDatabase(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if kind == servers.KindPostgres { // slots are the server's, so that two of one name stop one another now and then
			if err := s.Exec(ctx, fmt.Sprintf(`do $$ begin if exists (select from pg_replication_slots where database = '%[1]s' and position('%[1]s' in slot_name) = 0)
				then raise 'a replication slot of database %[1]s does not have its name in its own'; end if; end $$`, name)); err != nil {
				t.Error(err)
			}
		}
		if err := s.DropDatabase(ctx, name); err != nil {
			t.Error(err)
		}
	})
	return &Database{Server: s, Name: name, URL: url}
}

// relaxed makes equal wishes equal, so that they share a server.
func relaxed(o servers.PostgresOptions) servers.PostgresOptions {
	if o.Version == 0 {
		o.Version = servers.DefaultPostgres
	}
	o.NoSync, o.Say = true, nil
	return o
}

// withRoom lets many parallel tests have slots and connections of one server.
func withRoom(params map[string]string) map[string]string {
	all := servers.TestParams()
	for k, v := range params {
		all[k] = v
	}
	return all
}

func say(t testing.TB) func(string) { return func(s string) { t.Log(s) } }
