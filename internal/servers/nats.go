package servers

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// NATSOptions says what kind of NATS server to start.
type NATSOptions struct {
	// Config is put behind the defaults, in the server's own form ("max_payload: 1MB").
	Config string
	// TLS: every connection has to use it; clients show a certificate if they have one.
	TLS bool
	// Say is told about what takes long (downloads); may be nil.
	Say func(string)
}

// NATS starts a NATS server with JetStream, of 64 MB of memory and 1 GB of files at most, and returns when it answers. The
// first start downloads it (15 MB) into the cache; that works on Debian only.
func NATS(ctx context.Context, o NATSOptions) (*Server, error) {
	root, err := debian(ctx, "nats-trixie", "trixie", "NATS (15 MB)", "nats-server", o.Say)
	if err != nil {
		return nil, err
	}
	s, err := emptyServer(ctx, KindNATS)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(s.Dir, "nats.conf")
	s.tmpl = process.Launch{Clean: process.SignalTerm, Quick: os.Kill, Death: os.Kill, Args: root.run("usr/sbin/nats-server", "-c", config)}
	var written error
	err = s.firstStart(ctx, func(port int) {
		s.URL = fmt.Sprintf("nats://127.0.0.1:%d", port)
		text := fmt.Sprintf("server_name: %q\nlisten: \"127.0.0.1:%d\"\njetstream: {store_dir: %q, max_memory_store: 64MB, max_file_store: 1GB}\n", s.natsName(), port, s.DataDir)
		if o.TLS {
			text += fmt.Sprintf("tls: {cert_file: %q, key_file: %q, ca_file: %q, verify: false}\n", s.Certs.ServerCert, s.Certs.ServerKey, s.Certs.CA)
		}
		written = os.WriteFile(config, []byte(text+o.Config+"\n"), 0o600)
	})
	if written != nil {
		err = written
	}
	if err != nil {
		return s.fail(err)
	}
	s.Version = "2"
	return s, nil
}

func (s *Server) natsName() string { return filepath.Base(s.Dir) }

// pingNATS reads the name that the server begins with.
func pingNATS(ctx context.Context, addr, name string) error {
	return converse(ctx, addr, func(conn net.Conn) error {
		line, err := bufio.NewReader(conn).ReadString('\n')
		switch {
		case err != nil:
			return err
		case !strings.Contains(line, `"server_name":"`+name+`"`):
			return errStranger
		}
		return nil
	})
}
