package servers

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// Certs are paths of PEM files. ServerCert is valid for 127.0.0.1 and localhost, ClientCert names the
// superuser of a server that they are of.
type Certs struct {
	CA, ServerCert, ServerKey, ClientCert, ClientKey string

	ca    *x509.Certificate
	caKey crypto.Signer
	dir   string
}

// NewCerts makes an authority and certificates that it signed in dir, which must not exist.
func NewCerts(dir string) (*Certs, error) { return newCerts(dir, "client", nil) }

// newCerts makes an authority, a server's certificate (its key readable by as) and a client's.
func newCerts(dir, user string, as *process.Identity) (*Certs, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &Certs{dir: dir, caKey: key, CA: filepath.Join(dir, "ca.pem")}
	t := template("throw-away authority")
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if c.ca, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if err := writePEM(c.CA, "CERTIFICATE", der, 0o644); err != nil {
		return nil, err
	}
	server := template("127.0.0.1")
	server.IPAddresses, server.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if c.ServerCert, c.ServerKey, err = c.issue("server", server); err != nil {
		return nil, err
	}
	if err := process.Chown(c.ServerKey, as); err != nil {
		return nil, err
	}
	c.ClientCert, c.ClientKey, err = c.Client(user)
	return c, err
}

// Client makes a certificate for the database user called name and returns the files of it and of
// its key.
func (c *Certs) Client(name string) (cert, key string, err error) {
	if c.caKey == nil {
		return "", "", fmt.Errorf("make a certificate for %s: the server's authority is its own", name)
	}
	t := template(name)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return c.issue("client-"+name, t)
}

func (c *Certs) issue(file string, t *x509.Certificate) (cert, keyFile string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.ca, key.Public(), c.caKey)
	if err != nil {
		return "", "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	cert, keyFile = filepath.Join(c.dir, file+".pem"), filepath.Join(c.dir, file+"-key.pem")
	return cert, keyFile, errors.Join(writePEM(cert, "CERTIFICATE", der, 0o644), writePEM(keyFile, "PRIVATE KEY", keyDER, 0o600))
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(7 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
