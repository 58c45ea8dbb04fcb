package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// MySQLOptions says what kind of MySQL or MariaDB to start. The zero value is a primary with a full
// binlog: ROW format, FULL images, FULL metadata, GTIDs.
type MySQLOptions struct {
	// Params are server options by name without dashes ("binlog-row-image": "MINIMAL"), over the
	// defaults; an empty value gives a bare flag ("skip-log-bin").
	Params map[string]string
	// NoSync leaves syncing to the system: the data survives a crash of the server but not of the machine.
	NoSync bool
	// Say is told about what takes long (downloads); may be nil.
	Say func(string)
}

// lastServerID makes server ids unique on this machine: the process's number and a counter.
var lastServerID atomic.Uint32

// nextServerID is unlike any other running instance's. 0 is never given.
func nextServerID() uint32 {
	return uint32(os.Getpid())<<8&0x7fffff00 | (lastServerID.Add(1) & 0xff) | 1<<31
}

// users: root without and repl with a password, over TCP. The password exercises caching_sha2_password
// on MySQL.
var users = []string{
	"create user root@'127.0.0.1'",
	"grant all on *.* to root@'127.0.0.1' with grant option",
	"create user repl@'127.0.0.1' identified by 'repl'",
	"grant all on *.* to repl@'127.0.0.1' with grant option",
}

// MySQL starts a MySQL primary (the newest long-term release in Debian's unstable suite) and returns when it
// answers. The first start downloads it (about 60 MB) into the cache; that works on Debian only.
// Users: root without a password, repl with the password repl. TLS is on, with the certificates the
// server made; the CA is in Certs.
func MySQL(ctx context.Context, o MySQLOptions) (*Server, error) {
	root, err := debian(ctx, "mysql-sid", "sid", "MySQL (60 MB)", "mysql-server-core", o.Say)
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("find our user: %w", err)
	}
	base := root.run("usr/sbin/mysqld", "--no-defaults", "--basedir="+filepath.Join(root.dir, "usr"),
		"--plugin-dir="+filepath.Join(root.dir, "usr/lib/mysql/plugin"), "--lc-messages-dir="+filepath.Join(root.dir, "usr/share/mysql"),
		"--secure-file-priv=", "--mysqlx=OFF", "--user="+me.Username)
	template, err := process.Cached(ctx, "mysql-sid-data-"+strconv.Itoa(os.Geteuid()), func(dir string) error {
		init := filepath.Join(dir, "users.sql")
		if err := os.WriteFile(init, []byte(strings.Join(users, ";\n")+";\n"), 0o644); err != nil {
			return err
		}
		args := append(slices.Clone(base), "--datadir="+filepath.Join(dir, "data"), "--initialize-insecure", "--init-file="+init,
			"--innodb-redo-log-capacity=64M", "--innodb-flush-method=fsync", "--innodb-flush-log-at-trx-commit=0")
		if err := process.RunTool(ctx, dir, nil, nil, args...); err != nil {
			return err
		}
		// Each copy makes its own identity (server_uuid): GTIDs begin with it.
		return os.Remove(filepath.Join(dir, "data", "auto.cnf"))
	})
	if err != nil {
		return nil, err
	}
	s, err := newServer(KindMySQL, template, nil)
	if err != nil {
		return nil, err
	}
	s.Certs = &Certs{
		CA: filepath.Join(s.DataDir, "ca.pem"), ServerCert: filepath.Join(s.DataDir, "server-cert.pem"), ServerKey: filepath.Join(s.DataDir, "server-key.pem"),
		ClientCert: filepath.Join(s.DataDir, "client-cert.pem"), ClientKey: filepath.Join(s.DataDir, "client-key.pem"),
	}
	params := binlogParams(s)
	params["gtid-mode"], params["enforce-gtid-consistency"] = "ON", "ON"
	params["innodb-redo-log-capacity"] = "64M"
	return s.startMySQL(ctx, root, base, params, o)
}

// MariaDB starts a MariaDB 10.11 primary from Debian's packages and returns when it answers. The first
// start downloads it (about 34 MB) into the cache; that works on Debian only. Users as with MySQL.
// Its client programs (mariadb-binlog) are in BinDir.
func MariaDB(ctx context.Context, o MySQLOptions) (*Server, error) {
	// mariadb-server has the plugins.
	root, err := debian(ctx, "mariadb-10.11-plugins", "bookworm", "MariaDB 10.11 (34 MB)", "mariadb-server-core,mariadb-client-core", o.Say, "mariadb-client", "mariadb-server")
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("find our user: %w", err)
	}
	share := filepath.Join(root.dir, "usr/share/mysql")
	base := root.run("usr/sbin/mariadbd", "--no-defaults", "--basedir="+filepath.Join(root.dir, "usr"), "--user="+me.Username,
		"--plugin-dir="+filepath.Join(root.dir, "usr/lib/mysql/plugin"), "--lc-messages-dir="+share, "--character-sets-dir="+filepath.Join(share, "charsets"))
	const logSize = "--innodb-log-file-size=64M"
	template, err := process.Cached(ctx, "mariadb-10.11-data-"+strconv.Itoa(os.Geteuid()), func(dir string) error {
		return mariadbInit(ctx, append(slices.Clone(base), logSize), share, dir)
	})
	if err != nil {
		return nil, err
	}
	s, err := newServer(KindMariaDB, template, nil)
	if err != nil {
		return nil, err
	}
	params := binlogParams(s)
	params["binlog-format"], params["gtid-strict-mode"], params["gtid-domain-id"] = "ROW", "ON", "0"
	params["innodb-log-file-size"] = "64M"
	return s.startMySQL(ctx, root, base, params, o)
}

// mariadbInit does the work of mariadb-install-db, whose script would run the machine's programs: it
// feeds the system tables' SQL to a server in bootstrap mode.
func mariadbInit(ctx context.Context, base []string, share, dir string) (err error) {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(filepath.Join(data, "mysql"), 0o700); err != nil {
		return err
	}
	sql := []byte("create database if not exists mysql;\nuse mysql;\nset @auth_root_socket=null;\n")
	for _, name := range []string{
		"mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql", "fill_help_tables.sql",
		"maria_add_gis_sp_bootstrap.sql", "mysql_sys_schema.sql",
	} {
		b, err := os.ReadFile(filepath.Join(share, name))
		if err != nil {
			return err
		}
		sql = append(append(sql, b...), '\n')
	}
	// The system data brings root@127.0.0.1 itself.
	sql = append(sql, "flush privileges;\n"+strings.Join(users[2:], ";\n")+";\n"...)
	script := filepath.Join(dir, "system.sql")
	if err := os.WriteFile(script, sql, 0o644); err != nil {
		return err
	}
	in, err := os.Open(script)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close(), os.Remove(script)) }()
	return process.RunTool(ctx, dir, nil, in, append(slices.Clone(base), "--datadir="+data, "--bootstrap", "--log-warnings=0",
		"--enforce-storage-engine=", "--max-allowed-packet=8M", "--net-buffer-length=16K", "--innodb-flush-log-at-trx-commit=0")...)
}

// binlogParams is a primary with everything in its binlog.
func binlogParams(s *Server) map[string]string {
	return map[string]string{
		"datadir": s.DataDir, "bind-address": "127.0.0.1", "socket": filepath.Join(s.Dir, "s"), "pid-file": filepath.Join(s.Dir, "pidfile"),
		"skip-name-resolve": "", "default-time-zone": "+00:00", "server-id": fmt.Sprint(nextServerID()),
		"log-bin": filepath.Join(s.DataDir, "binlog"), "binlog-row-image": "FULL", "binlog-row-metadata": "FULL",
		"max-connections": "300",
	}
}

func (s *Server) startMySQL(ctx context.Context, root *debianRoot, base []string, params map[string]string, o MySQLOptions) (*Server, error) {
	s.BinDir, s.loader = filepath.Join(root.dir, "usr/bin"), root.loader
	if o.NoSync {
		params["sync-binlog"], params["innodb-flush-log-at-trx-commit"] = "0", "2"
	}
	for k, v := range o.Params {
		params[strings.ReplaceAll(k, "_", "-")] = v
	}
	s.tmpl = process.Launch{Clean: process.SignalTerm, Quick: os.Kill, Death: os.Kill}
	err := s.firstStart(ctx, func(port int) {
		s.URL = fmt.Sprintf("mysql://root@127.0.0.1:%d/", port)
		s.tmpl.Args = mysqlArgs(base, port, params)
	})
	if err != nil {
		return s.fail(err)
	}
	if s.Version, err = s.askMySQL(ctx, "select version()"); err != nil {
		return s.fail(err)
	}
	return s, nil
}

func mysqlArgs(base []string, port int, params map[string]string) []string {
	args := append(slices.Clone(base), "--port="+strconv.Itoa(port))
	for _, k := range slices.Sorted(maps.Keys(params)) {
		if params[k] == "" {
			args = append(args, "--"+k)
		} else {
			args = append(args, "--"+k+"="+params[k])
		}
	}
	return args
}
