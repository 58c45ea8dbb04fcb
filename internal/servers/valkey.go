package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// ValkeyOptions says what kind of Valkey to start.
type ValkeyOptions struct {
	// Params are settings by name over the defaults ("cluster-enabled": "yes").
	Params map[string]string
	// Say is told about what takes long (downloads); may be nil.
	Say func(string)
}

// Valkey starts a Valkey, which speaks as Redis does, and returns when it answers: 256 MB at most, its data in an append-only
// file that is not synced. It has the listeners ListenerPlain and ListenerTLS; the default user needs no password. The first start downloads it (16 MB) into the cache; that
// works on Debian only.
func Valkey(ctx context.Context, o ValkeyOptions) (*Server, error) {
	root, err := debian(ctx, "valkey-trixie", "trixie", "Valkey (16 MB)", "valkey-server", o.Say)
	if err != nil {
		return nil, err
	}
	s, err := emptyServer(ctx, KindValkey)
	if err != nil {
		return nil, err
	}
	s.BinDir, s.loader = filepath.Join(root.dir, "usr/bin"), root.loader
	params := map[string]string{"bind": "127.0.0.1", "dir": s.DataDir, "save": "", "appendonly": "yes", "appendfsync": "no", "maxmemory": "256mb",
		"tls-cert-file": s.Certs.ServerCert, "tls-key-file": s.Certs.ServerKey, "tls-ca-cert-file": s.Certs.CA, "tls-auth-clients": "optional"}
	maps.Copy(params, o.Params)
	s.tmpl = process.Launch{Clean: process.SignalTerm, Quick: os.Kill, Death: os.Kill}
	var second error
	err = s.firstStart(ctx, func(port int) {
		var tls, cluster int
		if tls, second = process.FreePort(); second == nil {
			cluster, second = process.FreePort()
		}
		if second != nil {
			return
		}
		// By default the cluster's port is the other one and 10000, which is out of range for many free ports.
		params["port"], params["tls-port"], params["cluster-port"] = strconv.Itoa(port), strconv.Itoa(tls), strconv.Itoa(cluster)
		s.URL = fmt.Sprintf("redis://127.0.0.1:%d", port)
		s.Listeners = map[string]string{ListenerPlain: local(port), ListenerTLS: local(tls)}
		var args []string
		for _, k := range slices.Sorted(maps.Keys(params)) {
			args = append(args, "--"+k, params[k])
		}
		s.tmpl.Args = root.run("usr/bin/valkey-server", args...)
	})
	if err = errors.Join(second, err); err != nil {
		return s.fail(err)
	}
	s.Version = "8"
	return s, nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// emptyServer is one that begins with an empty folder, and certificates.
func emptyServer(ctx context.Context, kind Kind) (*Server, error) {
	template, err := process.Cached(ctx, "empty-data-"+strconv.Itoa(os.Geteuid()), func(dir string) error {
		return os.Mkdir(filepath.Join(dir, "data"), 0o700)
	})
	if err != nil {
		return nil, err
	}
	s, err := newServer(kind, template, nil)
	if err != nil {
		return nil, err
	}
	if s.Certs, err = NewCerts(filepath.Join(s.Dir, "certs")); err != nil {
		return s.fail(fmt.Errorf("make certificates for %s: %w", kind, err))
	}
	return s, nil
}

// pingValkey asks a Valkey for its folder.
func pingValkey(ctx context.Context, addr, dir string) error {
	return converse(ctx, addr, func(conn net.Conn) error {
		if _, err := io.WriteString(conn, "CONFIG GET dir\r\n"); err != nil {
			return err
		}
		r := bufio.NewReader(conn)
		for {
			line, err := r.ReadString('\n')
			switch line = strings.TrimSpace(line); {
			case err != nil:
				return err
			case line == dir:
				return nil
			case strings.HasPrefix(line, "-"):
				return errors.New(line)
			case strings.HasPrefix(line, "/"):
				return errStranger
			}
		}
	})
}

// converse has f talk to whoever answers at addr.
func converse(ctx context.Context, addr string, f func(net.Conn) error) (err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	return f(conn)
}
