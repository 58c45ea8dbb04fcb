// Package servers starts throw-away database servers: real PostgreSQL, MySQL and MariaDB for
// tests, benches and the demo, without containers and without touching the machine's packages.
//
// Words used here:
//
//   - Cache: the folder in which server programs and initialised data folders ("templates") are
//     kept between runs; see [CacheDir]. Each entry is made once, under a lock between processes.
//   - Folder: what one running server owns (data, log, certificates), in the system's temporary
//     folder. It is locked by the process that made it; folders of dead processes are removed
//     whenever a server is started.
//   - Given server: one named by the environment, used instead of an own one; see [Given].
//
// A server never outlives the process that started it: on Linux the kernel ends it even after
// kill -9 of that process, elsewhere the next start does.
//
// The programs come from where their makers' packagers publish them: PostgreSQL through
// github.com/fergusstrange/embedded-postgres, MySQL, MariaDB, Valkey and NATS as Debian packages that are unpacked,
// with their own C library, into the cache, Kafka, OpenSearch and a schema registry from Maven Central. Only those of
// Debian need its apt; nothing needs root, and the last three need Java 17.
// PostgreSQL refuses to run as root, so root's servers run as the user nobody.
package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// Kind is a family of database servers.
type Kind string

// The kinds of servers.
const (
	KindPostgres   Kind = "postgres"
	KindMySQL      Kind = "mysql"
	KindMariaDB    Kind = "mariadb"
	KindKafka      Kind = "kafka"
	KindOpenSearch Kind = "opensearch"
	KindRegistry   Kind = "registry"
	KindValkey     Kind = "valkey"
	KindNATS       Kind = "nats"
)

// ErrGiven is returned by what only works on a server that this package started.
var ErrGiven = errors.New("the server was given by the environment and is not ours to stop or restart")

// startTimeout bounds one start, crash recovery included.
const startTimeout = 90 * time.Second

// Server is one running server. Its fields do not change after it was returned; its methods may be
// called by several goroutines.
type Server struct {
	Kind    Kind
	Version string // as the server names it, e.g. "18.6"
	URL     string // superuser's, on the default database; contains the password if there is one
	Port    int    // on 127.0.0.1
	Dir     string // the server's folder; "" for a given server
	DataDir string
	LogFile string
	BinDir  string // its programs; run them through Command
	Certs   *Certs // nil without TLS
	// Listeners of a Kafka or a Valkey: addresses by what they speak.
	Listeners map[string]string

	tmpl   process.Launch
	folder *process.Folder
	loader []string // put before a program of BinDir, e.g. its own dynamic loader
	kafka  []string // put before a class of Kafka's

	mu   sync.Mutex
	proc *process.Process // nil while stopped
}

// Stop ends the server without flushing and removes its folder. It is not an error to stop twice;
// a given server is left as it is.
func (s *Server) Stop(ctx context.Context) error {
	if s.folder == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.end(ctx, s.tmpl.Quick); err != nil {
		return err
	}
	return s.folder.Remove()
}

// Shutdown ends the server cleanly and keeps its folder for Restart. When ctx ends first the server
// is killed.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.folder == nil {
		return fmt.Errorf("shut down %s: %w", s.Kind, ErrGiven)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end(ctx, s.tmpl.Clean)
}

// Kill ends the server by SIGKILL, as a crash would, and keeps its folder for Restart.
func (s *Server) Kill() error {
	if s.folder == nil {
		return fmt.Errorf("kill %s: %w", s.Kind, ErrGiven)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end(context.Background(), os.Kill)
}

// Restart starts the server again on the same port and data, after a clean shutdown if it still
// runs, and returns when it answers.
func (s *Server) Restart(ctx context.Context) error {
	if s.folder == nil {
		return fmt.Errorf("restart %s: %w", s.Kind, ErrGiven)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.end(ctx, s.tmpl.Clean); err != nil {
		return err
	}
	return s.start(ctx)
}

// Pid is the server's process, 0 while it is stopped or given.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return 0
	}
	return s.proc.Pid()
}

// end sends sig and waits; s.mu is held. The server is killed when ctx ends.
func (s *Server) end(ctx context.Context, sig os.Signal) error {
	if s.proc == nil {
		return nil
	}
	if err := s.proc.End(ctx, sig); err != nil {
		return fmt.Errorf("stop %s: %w", s.Kind, err)
	}
	s.proc = nil
	return nil
}

// start runs the program and waits until it answers; s.mu is held or s not yet shared.
func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		mark := s.logSize()
		p, err := process.Start(s.folder, s.LogFile, s.tmpl)
		if err != nil {
			return fmt.Errorf("start %s: %w", s.Kind, err)
		}
		err = s.ready(ctx, p)
		if err == nil {
			s.proc = p
			return nil
		}
		// The parents of the backends we killed are gone, but PostgreSQL waits for the last of them.
		said := s.logFrom(mark)
		if errors.Is(err, errExited) && ctx.Err() == nil &&
			(strings.Contains(said, "pre-existing shared memory block") || strings.Contains(said, "lock file \"postmaster.pid\" already exists")) {
			if process.Pause(ctx, 50*time.Millisecond) == nil {
				continue
			}
		}
		_ = p.End(ctx, os.Kill)
		if portTaken(said) {
			return errPortTaken
		}
		return fmt.Errorf("start %s: %w; the end of its log:\n%s", s.Kind, err, process.Tail(said, 2000))
	}
}

var (
	errExited    = errors.New("it ended while starting")
	errPortTaken = errors.New("the port was taken by another process")
)

func portTaken(log string) bool {
	log = strings.ToLower(log)
	return strings.Contains(log, "address already in use") || strings.Contains(log, "port number is too high") || strings.Contains(log, "another postmaster already running on port") ||
		strings.Contains(log, "port is already in use") || strings.Contains(log, "already bound")
}

// ready polls until the server answers.
func (s *Server) ready(ctx context.Context, p *process.Process) error {
	// A stranger on our port may take a connection and never answer: do not wait for it when p has ended.
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-p.Done:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(); <-watched }()
	var last error
	for {
		if p.Ended() {
			return fmt.Errorf("%w (%v)", errExited, p.Err)
		}
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		last = s.ping(try)
		cancel()
		if last == nil {
			return nil
		}
		if err := process.Pause(ctx, 20*time.Millisecond); err != nil && !p.Ended() {
			return fmt.Errorf("it does not answer: %w (%w)", last, err)
		}
	}
}

// firstStart finds a free port, lets prepare write what depends on it and starts the server. Another
// process may take the port in between, then it is tried with another one.
func (s *Server) firstStart(ctx context.Context, prepare func(port int)) error {
	var err error
	for range 5 {
		if s.Port, err = process.FreePort(); err != nil {
			return err
		}
		prepare(s.Port)
		if err = s.start(ctx); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return fmt.Errorf("start %s on port %d: %w", s.Kind, s.Port, err)
}

// DatabaseURL is the superuser's URL of the database called name.
func (s *Server) DatabaseURL(name string) string {
	u, err := url.Parse(s.URL)
	if err != nil { // was parsed before: cannot be
		return s.URL
	}
	u.Path = "/" + name
	return u.String()
}

func (s *Server) logSize() int64 {
	if st, err := os.Stat(s.LogFile); err == nil {
		return st.Size()
	}
	return 0
}

func (s *Server) logFrom(at int64) string {
	b, err := os.ReadFile(s.LogFile)
	if err != nil || at > int64(len(b)) {
		return ""
	}
	return string(bytes.TrimSpace(b[at:]))
}

// Command is a program of the server's own package (e.g. "mariadb-binlog"), ready to run.
func (s *Server) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	if s.BinDir == "" {
		return nil, fmt.Errorf("find %s: %w", name, ErrGiven)
	}
	path := filepath.Join(s.BinDir, name)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("find a program of %s %s: %w", s.Kind, s.Version, err)
	}
	argv := append(append([]string{}, s.loader...), path)
	argv = append(argv, args...)
	return exec.CommandContext(ctx, argv[0], argv[1:]...), nil
}

// fail removes what a start that failed has made.
func (s *Server) fail(err error) (*Server, error) {
	if stopErr := s.Stop(context.Background()); stopErr != nil {
		err = errors.Join(err, stopErr)
	}
	return nil, err
}

// newServer makes the server's folder and copies the template's data into it.
func newServer(kind Kind, template string, as *process.Identity) (*Server, error) {
	f, err := process.NewFolder(string(kind))
	if err != nil {
		return nil, fmt.Errorf("make a folder for %s: %w", kind, err)
	}
	s := &Server{
		Kind: kind, Dir: f.Path, folder: f,
		DataDir: filepath.Join(f.Path, "data"), LogFile: filepath.Join(f.Path, "log"),
	}
	if err := process.CopyTree(s.DataDir, filepath.Join(template, "data"), as); err != nil {
		return s.fail(fmt.Errorf("copy the data of an empty %s: %w", kind, err))
	}
	return s, nil
}
