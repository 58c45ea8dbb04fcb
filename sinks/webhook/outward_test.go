package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// authority signs certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.sign(t, "ca", true)
	return a
}

// sign writes NAME.pem and NAME-key.pem.
func (a *authority) sign(t *testing.T, name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	parent, parentKey := c, key
	if !ca {
		parent, parentKey = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := x509.MarshalPKCS8PrivateKey(key)
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, _ = x509.ParseCertificate(der)
	return c, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// secure serves f as hook.test over TLS; clients must show a certificate of the authority.
func (a *authority) secure(t *testing.T, f http.HandlerFunc) (port string) {
	t.Helper()
	a.sign(t, "hook.test", false)
	cert, err := tls.LoadX509KeyPair(a.file("hook.test.pem"), a.file("hook.test-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	srv := httptest.NewUnstartedServer(f)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, port, _ = net.SplitHostPort(srv.Listener.Addr().String())
	return port
}

func TestClientCertificate(t *testing.T) {
	a := newAuthority(t)
	a.sign(t, "client", false)
	var mu sync.Mutex
	var serials []string
	port := a.secure(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		serials = append(serials, r.TLS.PeerCertificates[0].SerialNumber.String())
	})
	r := &resolver{}
	r.set("127.0.0.1")
	sink := func(tls TLS) *Sink {
		return newSink(t, "https://hook.test:"+port, func(o *Options) { o.lookup, o.TLS = r.lookup, tls })
	}
	good := TLS{CA: a.file("ca.pem"), Cert: a.file("client.pem"), Key: a.file("client-key.pem")}
	s := sink(good)
	for range 2 {
		if _, err := s.Deliver(t.Context(), events(1, 1)); err != nil {
			t.Fatal(err)
		}
		a.sign(t, "client", false) // renewed: holds from the next connection on
		s.endpoints[0].transport.CloseIdleConnections()
	}
	if len(serials) != 2 || serials[0] == serials[1] {
		t.Fatal(serials)
	}
	for name, bad := range map[string]TLS{"no certificate": {CA: good.CA}, "unknown authority": {Cert: good.Cert, Key: good.Key}} {
		_, err := sink(bad).Deliver(t.Context(), events(1, 1))
		if d := pipeline.AsDeliveryError(err); err == nil || d.Class == pipeline.Poison {
			t.Error(name, err)
		}
	}
	if err := os.WriteFile(a.file("broken.pem"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []TLS{{CA: a.file("broken.pem")}, {CA: a.file("none.pem")}, {Cert: good.Cert, Key: a.file("ca-key.pem")}, {Cert: a.file("none.pem"), Key: good.Key}} {
		if _, err := New(Options{URL: "https://hook.test", Secrets: s.o.Secrets, TLS: bad}); err == nil || !strings.Contains(err.Error(), "webhook tls: ") {
			t.Error(bad, err)
		}
	}
}

// tunnel is a CONNECT proxy on loopback: it notes what it is asked for and connects to where it is told.
func tunnel(t *testing.T, to string) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var list []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		list = append(list, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization"))
		mu.Unlock()
		up, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		down, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			io.Copy(up, rw)
			up.Close()
		}()
		io.Copy(down, up)
		down.Close()
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() []string { mu.Lock(); defer mu.Unlock(); return list }
}

// A proxy is told the address that egress was asked about, never a name, unless it is trusted with names.
func TestProxy(t *testing.T) {
	a := newAuthority(t)
	a.sign(t, "client", false)
	var host string
	port := a.secure(t, func(_ http.ResponseWriter, r *http.Request) { host = r.Host })
	proxy, asked := tunnel(t, "127.0.0.1:"+port)
	proxy = strings.Replace(proxy, "http://", "http://user:hushhush@", 1)
	r := &resolver{}
	sink := func(url string, o func(*Options)) *Sink {
		return newSink(t, url, func(op *Options) {
			op.lookup, op.TLS, op.Proxy.URL = r.lookup, TLS{CA: a.file("ca.pem"), Cert: a.file("client.pem"), Key: a.file("client-key.pem")}, proxy
			op.Permit = func(a netip.Addr) bool { return a == netip.MustParseAddr("203.0.113.7") } // and not the proxy's
			if o != nil {
				o(op)
			}
		})
	}
	r.set("10.0.0.1", "203.0.113.7")
	s := sink("https://hook.test/in", nil)
	if _, err := s.Deliver(t.Context(), events(1, 1)); err != nil {
		t.Fatal(err)
	}
	const auth = " Basic dXNlcjpodXNoaHVzaA=="
	if got := asked(); len(got) != 1 || got[0] != "CONNECT 203.0.113.7:443"+auth || host != "hook.test" {
		t.Fatal(got, host)
	}
	r.set("10.0.0.1")
	for _, url := range []string{"https://hook.test/", "https://10.0.0.1/", "https://[::ffff:10.0.0.1]/"} {
		_, err := sink(url, nil).Deliver(t.Context(), events(1, 1))
		if d := pipeline.AsDeliveryError(err); d.Class != pipeline.Unavailable || !strings.Contains(d.Reason, "egress forbids") {
			t.Error(url, err)
		}
	}
	if len(asked()) != 1 {
		t.Fatal("the proxy was asked for a forbidden address")
	}
	s = sink("https://hook.test/in", func(o *Options) { o.Proxy.Resolves = true })
	if _, err := s.Deliver(t.Context(), events(1, 1)); err != nil || asked()[1] != "CONNECT hook.test:443"+auth {
		t.Fatal(err, asked())
	}
	if _, err := New(Options{URL: "http://10.0.0.1", Secrets: s.o.Secrets, Proxy: Proxy{URL: proxy}}); err == nil || strings.Contains(err.Error(), "hush") {
		t.Fatal(err)
	}
	proxy = "http://user:hushhush@127.0.0.1:1"
	_, err := sink("https://hook.test/in", func(o *Options) { o.Proxy.Resolves = true }).Deliver(t.Context(), events(1, 1))
	if d := pipeline.AsDeliveryError(err); d.Class != pipeline.Unavailable || strings.Contains(d.Error(), "hush") {
		t.Fatal(err)
	}
	proxy = "http://169.254.169.254:80"
	_, err = sink("https://hook.test/in", func(o *Options) { o.Proxy.Resolves = true }).Deliver(t.Context(), events(1, 1))
	if f := (*pipeline.DeliveryError)(nil); !errors.As(err, &f) || f.Class != pipeline.Unavailable || !strings.Contains(f.Reason, "169.254.169.254") {
		t.Fatal(err)
	}
}

func TestHandshake(t *testing.T) {
	for _, c := range []struct {
		name, origin, rate string
		status             int
		want               string
	}{
		{"yes", "leat.example", "", 200, ""},
		{"yes to all", "*", "*", 204, ""},
		{"yes, in capitals", "LEAT.example", "600", 200, ""},
		{"says nothing", "", "", 200, `Origin ""`},
		{"to another", "other.example", "", 200, "want * or leat.example"},
		{"no", "*", "", 405, "answered 405"},
		{"elsewhere", "*", "", 302, "answered 302"},
		{"never", "*", "0", 200, `Rate "0"`},
		{"nonsense", "*", "fast", 200, `Rate "fast"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var order bytes.Buffer
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				order.WriteString(r.Method + " " + r.Header.Get("WebHook-Request-Origin") + r.Header.Get("X-Key") + ";")
				if r.Method != http.MethodOptions {
					return
				}
				w.Header().Set("WebHook-Allowed-Origin", c.origin)
				w.Header().Set("WebHook-Allowed-Rate", c.rate)
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(c.status)
			}))
			defer srv.Close()
			s := newSink(t, "", func(o *Options) {
				o.URLs, o.Origin, o.Headers = []Endpoint{{URL: srv.URL, Ask: true}}, "leat.example", map[string]string{"X-Key": "kkkk"}
			})
			for range 2 {
				_, err := s.Deliver(t.Context(), events(1, 1))
				if d := pipeline.AsDeliveryError(errOr(err)); (err == nil) != (c.want == "") || err != nil && (d.Class != pipeline.Unavailable || !strings.Contains(d.Reason, c.want)) {
					t.Fatal(err)
				}
			}
			want := "OPTIONS leat.examplekkkk;POST kkkk;POST kkkk;"
			if c.want != "" {
				want = "OPTIONS leat.examplekkkk;OPTIONS leat.examplekkkk;"
			}
			if order.String() != want {
				t.Fatal(order.String())
			}
		})
	}
}

func errOr(err error) error {
	if err == nil {
		return errors.New("none")
	}
	return err
}

// The rate that the endpoint allows is the cap; what comes too late for its Delivery is deferred, and not sent.
func TestAllowedRate(t *testing.T) {
	a := &agreement{every: 10 * time.Second}
	now := time.Now()
	for i, want := range []time.Duration{0, 10, 20} {
		if wait, ok := a.turn(now, 25*time.Second); !ok || wait != want*time.Second {
			t.Fatal(i, wait, ok)
		}
	}
	for range 3 { // asking takes no turn
		if wait, ok := a.turn(now, 25*time.Second); ok || wait != 30*time.Second {
			t.Fatal(wait, ok)
		}
	}
	if wait, ok := a.turn(now.Add(time.Hour), 0); !ok || wait != 0 {
		t.Fatal(wait, ok)
	}
	posts := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WebHook-Allowed-Origin", "*")
		w.Header().Set("WebHook-Allowed-Rate", "1")
		if r.Method == http.MethodPost {
			posts++
		}
	}))
	defer srv.Close()
	s := newSink(t, "", func(o *Options) { o.URLs = []Endpoint{{URL: srv.URL, Ask: true}} })
	if out, err := s.Deliver(t.Context(), events(1, 1)); out != nil || err != nil {
		t.Fatal(out, err)
	}
	out, err := s.Deliver(t.Context(), events(1, 1))
	if err != nil || out[0].Class != pipeline.Defer || out[0].Delay < 50*time.Second || posts != 1 {
		t.Fatal(out, err, posts)
	}
}
