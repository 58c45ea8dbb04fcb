package mysql

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// target is what a URL says.
type target struct {
	network, addr  string
	host           string
	user, password string
	mode           tlsMode
	ca, cert, key  string
	timeout        time.Duration
}

type tlsMode string

const (
	tlsDisable    tlsMode = "disable"
	tlsPreferred  tlsMode = "preferred"
	tlsRequired   tlsMode = "required"
	tlsVerifyCA   tlsMode = "verify-ca"
	tlsVerifyFull tlsMode = "verify-full"
)

// parseURL reads a URL. Its errors never contain the URL itself: it has a password in it.
func parseURL(raw string) (t target, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return t, errors.New("url: not a URL; want mysql://user:password@host:port/")
	}
	if u.Scheme != "mysql" && u.Scheme != "mariadb" {
		return t, fmt.Errorf("url: scheme %q: want mysql://user:password@host:port/", u.Scheme)
	}
	t = target{network: "tcp", host: u.Hostname(), mode: tlsPreferred, timeout: connectAttempt, user: u.User.Username()}
	t.password, _ = u.User.Password()
	port := u.Port()
	if port == "" {
		port = "3306"
	}
	t.addr = net.JoinHostPort(t.host, port)
	for key, values := range u.Query() {
		v := values[len(values)-1]
		switch key {
		case "tls":
			t.mode = tlsMode(v)
		case "ca":
			t.ca = v
		case "cert":
			t.cert = v
		case "key":
			t.key = v
		case "socket":
			t.network, t.addr, t.mode = "unix", v, tlsDisable
		case "timeout":
			if t.timeout, err = time.ParseDuration(v); err != nil || t.timeout <= 0 {
				return t, fmt.Errorf("url: timeout=%s: want a duration such as 10s", v)
			}
		default:
			return t, fmt.Errorf("url: parameter %q is not known: want tls, ca, cert, key, socket, timeout", key)
		}
	}
	if t.host == "" && t.network == "tcp" {
		return t, errors.New("url: no host; want mysql://user:password@host:port/")
	}
	switch t.mode {
	case tlsDisable, tlsPreferred, tlsRequired, tlsVerifyCA, tlsVerifyFull:
	default:
		return t, fmt.Errorf("url: tls=%s: want disable, preferred, required, verify-ca or verify-full", t.mode)
	}
	if (t.cert == "") != (t.key == "") {
		return t, errors.New("url: cert and key go together")
	}
	if t.ca == "" && t.mode == tlsVerifyCA {
		return t, errors.New("url: tls=verify-ca needs ca=FILE, the certificate authority's file in PEM")
	}
	return t, nil
}

// loopback tells whether the connection stays on the machine.
func (t *target) loopback() bool {
	if t.network == "unix" || strings.EqualFold(t.host, "localhost") {
		return true
	}
	ip := net.ParseIP(t.host)
	return ip != nil && ip.IsLoopback()
}

// tls returns the TLS settings, nil for none.
func (t *target) tls() (*tls.Config, error) {
	if t.mode == tlsDisable {
		return nil, nil
	}
	c := &tls.Config{ServerName: t.host, MinVersion: tls.VersionTLS12}
	if t.ca != "" {
		pem, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, fmt.Errorf("read the certificate authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the certificate authority: %s has no certificate in PEM", t.ca)
		}
	}
	if t.cert != "" {
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	switch t.mode {
	case tlsPreferred, tlsRequired:
		c.InsecureSkipVerify = true // encryption without proof of identity is what these modes promise
	case tlsVerifyCA:
		c.InsecureSkipVerify = true // the name is not to be checked; the chain is, here:
		c.VerifyConnection = func(s tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: c.RootCAs, Intermediates: x509.NewCertPool()}
			for _, cert := range s.PeerCertificates[1:] {
				o.Intermediates.AddCert(cert)
			}
			_, err := s.PeerCertificates[0].Verify(o)
			return err
		}
	}
	return c, nil
}
