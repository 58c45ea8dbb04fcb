// Command servers starts the database servers that Leat's tests and benches want, once, and runs a command
// that finds them by the environment:
//
//	servers run [-postgres 15,16,17,18] [-mysql=false] [-mariadb=false] [-kafka=false] [-opensearch=false] [-registry] [-sync] -- go test ./...
//	servers fetch    only fills the cache
//
// A server that the environment already names (LEAT_TEST_POSTGRES_URL_17, …) is not started.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1)) // the command has said why itself
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

const usage = "usage: servers run [flags] -- COMMAND [ARGUMENT...] | servers fetch [flags]"

// wanted is one server to start.
type wanted struct {
	name  string
	env   []string
	given *servers.Server
	start func(context.Context) (*servers.Server, error)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 || (args[0] != "run" && args[0] != "fetch") {
		return errors.New(usage)
	}
	flags := flag.NewFlagSet("servers "+args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	versions := flags.String("postgres", "15,16,17,18", "PostgreSQL's major versions, separated by commas")
	withMySQL := flags.Bool("mysql", true, "start MySQL")
	withMariaDB := flags.Bool("mariadb", true, "start MariaDB")
	withSearch := flags.Bool("opensearch", true, "start OpenSearch")
	withKafka := flags.Bool("kafka", true, "start Kafka")
	withRegistry := flags.Bool("registry", args[0] == "fetch", "start a schema registry: by default one package does when it needs it")
	sync := flags.Bool("sync", false, "sync writes to disk, for benches")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if args[0] == "run" && flags.NArg() == 0 {
		return errors.New(usage)
	}
	list, err := wishes(*versions, *withMySQL, *withMariaDB, *withKafka, *withSearch, !*sync, sayer(out))
	if err != nil {
		return err
	}
	if *withRegistry {
		list = append(list, wanted{
			name: "schema registry", env: []string{servers.EnvRegistry}, given: servers.Given(servers.KindRegistry, 0),
			start: func(ctx context.Context) (*servers.Server, error) { return servers.Registry(ctx, sayer(out)) },
		})
	}
	begin := time.Now()
	started, env, err := startAll(ctx, list)
	if err == nil {
		fmt.Fprintf(out, "servers: %s ready after %.1f s\n", names(list), time.Since(begin).Seconds())
		if args[0] == "run" {
			err = runCommand(ctx, flags.Args(), env)
		}
	}
	for _, s := range started {
		err = errors.Join(err, s.Stop(context.Background()))
	}
	return err
}

func wishes(versions string, withMySQL, withMariaDB, withKafka, withSearch, noSync bool, say func(string)) ([]wanted, error) {
	var list []wanted
	for v := range strings.SplitSeq(versions, ",") {
		if v = strings.TrimSpace(v); v == "" {
			continue
		}
		major, err := strconv.Atoi(v)
		if err != nil || !slices.Contains(servers.PostgresVersions(), major) {
			return nil, fmt.Errorf("-postgres: there is no PostgreSQL %q here: choose from %v", v, servers.PostgresVersions())
		}
		env := []string{servers.EnvVersion(major)}
		if major == servers.DefaultPostgres {
			env = append(env, servers.EnvPostgres)
		}
		list = append(list, wanted{
			name: "PostgreSQL " + v, env: env, given: servers.Given(servers.KindPostgres, major),
			start: func(ctx context.Context) (*servers.Server, error) {
				return servers.Postgres(ctx, servers.PostgresOptions{Version: major, Params: servers.TestParams(), NoSync: noSync, Say: say})
			},
		})
	}
	o := servers.MySQLOptions{NoSync: noSync, Say: say}
	if withMySQL {
		list = append(list, wanted{
			name: "MySQL", env: []string{servers.EnvMySQL}, given: servers.Given(servers.KindMySQL, 0),
			start: func(ctx context.Context) (*servers.Server, error) { return servers.MySQL(ctx, o) },
		})
	}
	if withMariaDB {
		list = append(list, wanted{
			name: "MariaDB", env: []string{servers.EnvMariaDB}, given: servers.Given(servers.KindMariaDB, 0),
			start: func(ctx context.Context) (*servers.Server, error) { return servers.MariaDB(ctx, o) },
		})
	}
	if withSearch {
		list = append(list, wanted{
			name: "OpenSearch", env: []string{servers.EnvOpenSearch}, given: servers.Given(servers.KindOpenSearch, 0),
			start: func(ctx context.Context) (*servers.Server, error) {
				return servers.OpenSearch(ctx, servers.OpenSearchOptions{Say: say})
			},
		})
	}
	if withKafka {
		list = append(list, wanted{
			name: "Kafka", env: []string{servers.EnvKafka}, given: servers.Given(servers.KindKafka, 0),
			start: func(ctx context.Context) (*servers.Server, error) {
				return servers.Kafka(ctx, servers.KafkaOptions{Say: say})
			},
		})
	}
	return list, nil
}

// startAll starts the list side by side and returns what runs, also with an error, and the environment
// that names it.
func startAll(ctx context.Context, list []wanted) (started []*servers.Server, env []string, err error) {
	var (
		wg      sync.WaitGroup
		results = make([]*servers.Server, len(list))
		errs    = make([]error, len(list))
	)
	for i, w := range list {
		if w.given != nil {
			continue
		}
		wg.Go(func() { results[i], errs[i] = w.start(ctx) })
	}
	wg.Wait()
	for i, w := range list {
		s := results[i]
		if errs[i] != nil {
			errs[i] = fmt.Errorf("%s: %w (or name a server by %s)", w.name, errs[i], w.env[0])
		}
		if s != nil {
			started = append(started, s)
		} else if s = w.given; s == nil {
			continue
		}
		for _, e := range w.env {
			env = append(env, e+"="+s.URL)
		}
	}
	return started, env, errors.Join(errs...)
}

// runCommand runs the command to its end. Interrupts reach it by the terminal or, when only we were
// signalled, from here.
func runCommand(ctx context.Context, args, env []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}

func names(list []wanted) string {
	all := make([]string, len(list))
	for i, w := range list {
		if all[i] = w.name; w.given != nil {
			all[i] += " (given)"
		}
	}
	return strings.Join(all, ", ")
}

// sayer prints one line at a time, whoever says it.
func sayer(out io.Writer) func(string) {
	var mu sync.Mutex
	return func(s string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(out, "servers:", s)
	}
}
