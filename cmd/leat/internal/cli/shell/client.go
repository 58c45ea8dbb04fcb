package shell

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

const (
	defaultAddr = "127.0.0.1:7070"
	// callTime bounds one call; apply may have to wait for deliveries in flight.
	callTime = time.Minute
	dialTime = 5 * time.Second
)

// Server is a connection to a running Leat.
type Server struct {
	leatv1connect.AdminServiceClient
	// Base is its URL; Shown is how to name it to people.
	Base, Shown string
	hasToken    bool
	http        *http.Client
	bearer      *bearer
}

// Close gives idle connections back.
func (s *Server) Close() { s.http.CloseIdleConnections() }

// Connect prepares to call the server; nothing is sent yet.
func (a *App) Connect() (*Server, error) {
	base, roots, err := a.address()
	if err != nil {
		return nil, err
	}
	token, err := a.token()
	if err != nil {
		return nil, err
	}
	if err := a.trust(&roots); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSHandshakeTimeout: dialTime,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		ForceAttemptHTTP2:   true,
	}
	s := &Server{Base: base.String(), Shown: base.Host, hasToken: token != "", http: &http.Client{
		Transport: transport,
		// A redirect would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	s.bearer = &bearer{token, "leat/" + a.Version}
	s.AdminServiceClient = leatv1connect.NewAdminServiceClient(s.http, s.Base, connect.WithInterceptors(s.bearer))
	return s, nil
}

// address finds the server: --addr, LEAT_ADDR, listen of the file, the default.
func (a *App) address() (*url.URL, *x509.CertPool, error) {
	addr, from := a.Addr, "--addr"
	if addr == "" {
		addr, _ = a.Env("LEAT_ADDR")
		from = "LEAT_ADDR"
	}
	if addr != "" {
		u, err := parseAddr(addr)
		if err != nil {
			return nil, nil, fault.New(fault.WrongUsage, fmt.Errorf("%s: %w", from, err), "Want HOST:PORT, http://HOST:PORT or https://HOST:PORT.")
		}
		return u, nil, nil
	}
	cfg, err := a.Load(true)
	switch {
	case errors.Is(err, fs.ErrNotExist) && a.ConfigPath == "":
		u, err := parseAddr(defaultAddr)
		return u, nil, err
	case err != nil:
		return nil, nil, fault.New(fault.ExitCode(err), err, "The file would say where the server is; or give --addr HOST:PORT.")
	}
	return fileAddress(cfg, config.Options{Env: a.Env})
}

// fileAddress is where a server with this config can be reached from its own machine.
func fileAddress(cfg *config.Config, o config.Options) (*url.URL, *x509.CertPool, error) {
	open := cfg.Open("listen") || cfg.Open("public_url") || cfg.Open("tls.cert")
	if open {
		full, err := cfg.Expand(o)
		if err != nil {
			return nil, nil, fault.New(fault.WrongUsage, errors.New("where the server listens stands in a variable that is not set here"), "Give --addr HOST:PORT.")
		}
		cfg = full
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, nil, cfg.Errorf("listen", "listen: %v", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	u := &url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}
	if !cfg.TLS.Enabled() {
		return u, nil, nil
	}
	u.Scheme = "https"
	if p, err := url.Parse(cfg.PublicURL); err == nil && p.Scheme == "https" { // the name in the certificate
		u.Host = p.Host
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if pem, err := os.ReadFile(cfg.TLS.Cert); err == nil { // the server's own, where it signed itself
		roots.AppendCertsFromPEM(pem)
	}
	return u, roots, nil
}

func parseAddr(addr string) (*url.URL, error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return nil, errors.New("not an address")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("scheme %s is neither http nor https", u.Scheme)
	case u.User != nil:
		return nil, errors.New("an address holds no user or password; tokens come by --token-file or LEAT_TOKEN")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return nil, errors.New("an address has no path")
	case u.Port() == "" && u.Scheme == "http":
		u.Host = net.JoinHostPort(u.Hostname(), "7070")
	}
	u.Path = ""
	return u, nil
}

// token comes from a file or from the environment, never from the command line: other users see that.
func (a *App) token() (string, error) {
	if a.TokenFile == "" {
		t, _ := a.Env("LEAT_TOKEN")
		return checkToken(t, "LEAT_TOKEN")
	}
	b, err := os.ReadFile(a.TokenFile)
	if err != nil {
		return "", fault.New(fault.WrongUsage, fmt.Errorf("--token-file: %w", err), "")
	}
	if len(b) > 64<<10 || strings.TrimSpace(string(b)) == "" {
		return "", fault.New(fault.WrongUsage, fmt.Errorf("--token-file: %s holds no token", a.TokenFile), "")
	}
	return checkToken(string(b), "--token-file")
}

// checkToken takes off the end of line; net/http would quote a token that cannot stand in a header.
func checkToken(t, from string) (string, error) {
	t = strings.TrimSpace(t)
	for _, r := range t {
		if r <= ' ' || r > '~' {
			return "", fault.New(fault.WrongUsage, fmt.Errorf("%s: a token has no spaces and nothing but ASCII", from), "")
		}
	}
	return t, nil
}

func (a *App) trust(roots **x509.CertPool) error {
	file := a.CAFile
	if file == "" {
		file, _ = a.Env("LEAT_CA")
	}
	if file == "" {
		return nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return fault.New(fault.WrongUsage, fmt.Errorf("--ca: %w", err), "")
	}
	if *roots == nil {
		if *roots, err = x509.SystemCertPool(); err != nil {
			*roots = x509.NewCertPool()
		}
	}
	if !(*roots).AppendCertsFromPEM(pem) {
		return fault.New(fault.WrongUsage, fmt.Errorf("--ca: %s holds no certificate in PEM form", file), "")
	}
	return nil
}

// bearer adds the token to each call.
type bearer struct{ token, agent string }

func (b *bearer) set(h http.Header) {
	h.Set("User-Agent", b.agent)
	if b.token != "" {
		h.Set("Authorization", "Bearer "+b.token)
	}
}

func (b *bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		b.set(r.Header())
		return next(ctx, r)
	}
}

func (b *bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		b.set(conn.RequestHeader())
		return conn
	}
}

func (b *bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// Call makes one call and explains what went wrong with it; doing names it: "pause search".
func Call[Q, R any](ctx context.Context, s *Server, doing string, f func(context.Context, *connect.Request[Q]) (*connect.Response[R], error), q *Q) (*R, error) {
	return CallWithin(ctx, callTime, s, doing, f, q)
}

// CallWithin is [Call] for what may take long.
func CallWithin[Q, R any](ctx context.Context, d time.Duration, s *Server, doing string, f func(context.Context, *connect.Request[Q]) (*connect.Response[R], error), q *Q) (*R, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	r, err := f(ctx, connect.NewRequest(q))
	if err != nil {
		return nil, s.Failed(doing, err)
	}
	return r.Msg, nil
}

// Get returns the text at a path; doing names it, as in [Call].
func (s *Server) Get(ctx context.Context, doing, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Base+path, nil)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	s.bearer.set(r.Header)
	answer, err := s.http.Do(r)
	if err != nil {
		return "", s.unreachable(doing, connect.NewError(connect.CodeUnavailable, err))
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", s.unreachable(doing, connect.NewError(connect.CodeUnavailable, err))
	}
	said := strings.TrimSpace(string(text))
	switch answer.StatusCode {
	case http.StatusOK:
		return string(text), nil
	case http.StatusUnauthorized:
		return "", s.Failed(doing, connect.NewError(connect.CodeUnauthenticated, errors.New(said)))
	case http.StatusForbidden:
		return "", s.Failed(doing, connect.NewError(connect.CodePermissionDenied, errors.New(said)))
	}
	return "", fmt.Errorf("%s: %s", doing, said)
}

// Failed turns an error of a call into one for people.
func (s *Server) Failed(doing string, err error) error {
	var c *connect.Error
	if !errors.As(err, &c) {
		c = connect.NewError(connect.CodeUnknown, err)
	}
	switch c.Code() {
	case connect.CodeUnauthenticated:
		if s.hasToken {
			return fault.New(fault.Failed, fmt.Errorf("%s: %s does not know this token", doing, s.Shown),
				"The file of the server lists tokens by their SHA-256; give one of them by --token-file or LEAT_TOKEN.")
		}
		return fault.New(fault.Failed, fmt.Errorf("%s: %s wants a token", doing, s.Shown), "Give one by --token-file FILE or LEAT_TOKEN.")
	case connect.CodePermissionDenied:
		return fault.New(fault.Failed, fmt.Errorf("%s: %s refuses: %s", doing, s.Shown, c.Message()), roleHint(doing, s.hasToken))
	case connect.CodeInvalidArgument:
		if fault.Placed(c.Message()) {
			return fault.New(fault.WrongUsage, errors.New(c.Message()), "")
		}
		return fault.New(fault.WrongUsage, fmt.Errorf("%s: %s", doing, c.Message()), "")
	}
	if connect.IsWireError(c) {
		if c.Code() == connect.CodeUnimplemented {
			return fault.Unsupported(doing + ": the server at " + s.Shown)
		}
		return fmt.Errorf("%s: %s", doing, c.Message())
	}
	return s.unreachable(doing, c)
}

// readOnly are the calls that the role read allows.
var readOnly = []string{"status", "parked", "tail", "audit", "explain", "jobs", "ranges", "schemas"}

func roleHint(doing string, token bool) string {
	if !token {
		return ""
	}
	verb, _, _ := strings.Cut(doing, " ")
	for _, r := range readOnly {
		if verb == r {
			return "The token needs the role read or operate."
		}
	}
	return "The token needs the role operate."
}

// speaksTLS looks whether TLS is what answers an address that was given without; nothing is sent over it.
func (s *Server) speaksTLS() bool {
	if !strings.HasPrefix(s.Base, "http://") {
		return false
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTime}, Config: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}}
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", s.Shown)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// unreachable explains why no answer of a Leat came.
func (s *Server) unreachable(doing string, c *connect.Error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var record tls.RecordHeaderError
	why, hint := "no answer", "Is it running (leat run)? Is the address right (--addr, LEAT_ADDR, listen in leat.yaml)?"
	var op *net.OpError
	switch {
	case errors.Is(c, context.Canceled):
		return fmt.Errorf("%s: interrupted", doing)
	case errors.As(c, &unknown):
		why, hint = "its certificate is signed by nobody known here", "Name the authority by --ca FILE or LEAT_CA."
	case errors.As(c, &host):
		why, hint = "its certificate is for another name", "Give the name that stands in it: --addr https://NAME:PORT."
	case errors.As(c, &record), strings.Contains(c.Message(), "HTTP response to HTTPS client"):
		why, hint = "it does not speak TLS", "Give --addr http://HOST:PORT."
	case errors.As(c, &op):
		why = op.Err.Error()
		if op.Timeout() {
			why = "no answer in time"
		}
	case strings.Contains(c.Message(), "malformed HTTP response"):
		why = "what answers there is no Leat"
	case c.Code() == connect.CodeDeadlineExceeded:
		why = "no answer in time"
	case s.speaksTLS():
		why, hint = "it speaks TLS", "Give --addr https://HOST:PORT, and --ca FILE where its authority is your own."
	default:
		why = "what answers there is no Leat (" + c.Message() + ")"
		hint = "Is the address right (--addr, LEAT_ADDR, listen in leat.yaml)? Does the server want https://?"
	}
	return fault.New(fault.Unreachable, fmt.Errorf("%s: could not reach the server at %s: %s", doing, s.Base, why), hint)
}
