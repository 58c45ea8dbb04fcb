package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
)

// Proxy through which requests go. It dials in our place, so the address that was asked about is what it is told to
// connect to, not the name: there is nothing for it to resolve otherwise. Its own address was chosen by the operator
// and is not asked about; link-local ones are refused nevertheless.
type Proxy struct {
	// URL: http or https, host, port; user information is sent to the proxy.
	URL string
	// Resolves: the proxy is told names and is trusted with what they resolve to, as where only it can resolve
	// them, or guards the way out itself.
	Resolves bool
}

// TLS says whom we trust and who we are.
type TLS struct {
	// CA is a PEM file of the authorities that may sign the endpoint's certificate; empty: the system's.
	CA string
	// Cert and Key are PEM files of the client's certificate, both or none. They are read at each handshake, so
	// they may be renewed at any time.
	Cert, Key string
}

func (s *Sink) outward() error {
	if p := s.o.Proxy.URL; p != "" {
		u, err := url.Parse(p)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return errors.New("webhook proxy: want http://host:port") // without the URL, for it may hold a password
		}
		s.proxy = u
	}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.o.TLS.CA != "" {
		pem, err := os.ReadFile(s.o.TLS.CA)
		if err != nil {
			return fmt.Errorf("webhook tls: read ca: %w", err)
		}
		if s.tls.RootCAs = x509.NewCertPool(); !s.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("webhook tls: no certificate in %s: want PEM", s.o.TLS.CA)
		}
	}
	if s.o.TLS.Cert == "" {
		return nil
	}
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(s.o.TLS.Cert, s.o.TLS.Key)
		if err != nil {
			return nil, &certificateError{err}
		}
		return &c, nil
	}
	if _, err := load(); err != nil {
		return fmt.Errorf("webhook tls: %w", err)
	}
	s.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return nil
}

// certificateError: our own certificate cannot be read.
type certificateError struct{ err error }

func (e *certificateError) Error() string { return "read the client certificate: " + e.err.Error() }
func (e *certificateError) Unwrap() error { return e.err }

// proxyError: the proxy did not connect.
type proxyError struct{ status int }

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy answered %d %s to CONNECT", e.status, http.StatusText(e.status))
}

// viaProxy sends the requests of a transport through the proxy.
func (s *Sink) viaProxy(t *http.Transport) {
	if s.proxy == nil {
		return
	}
	t.Proxy = http.ProxyURL(s.proxy)
	t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return &proxyError{resp.StatusCode}
		}
		return nil
	}
}

// proxyFailed reports whether an error is about the proxy, which says nothing about the endpoint.
func proxyFailed(err error) bool {
	var op *net.OpError
	var p *proxyError
	return errors.As(err, &op) && op.Op == "proxyconnect" || errors.As(err, &p)
}

// checkProxy says whether the proxy may be dialed at addr.
func checkProxy(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLinkLocalUnicast() {
		return &ForbiddenError{Addr: addr}
	}
	return nil
}
