// Package my is MySQL and MariaDB as targets of the table sink.
package my

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/leat-cdc/leat/sinks/table/target"
)

// Server is one MySQL or MariaDB.
type Server struct {
	db *sql.DB

	mu      sync.Mutex
	asked   bool
	mariadb bool
}

// New reads a URL as that of a source: mysql://USER:PASSWORD@HOST:PORT/DATABASE?tls=…; it does not connect. Its errors
// show no password.
func New(raw string, timeout time.Duration, connections int) (*Server, error) {
	c, err := parse(raw, timeout)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, errors.New("url: want mysql://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(max(1, connections))
	db.SetConnMaxIdleTime(time.Minute)
	return &Server{db: db}, nil
}

func parse(raw string, timeout time.Duration) (*mysql.Config, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "mysql" && u.Scheme != "mariadb" {
		return nil, errors.New("url: want mysql://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	c := mysql.NewConfig()
	port := u.Port()
	if port == "" {
		port = "3306"
	}
	c.Net, c.Addr, c.User, c.DBName = "tcp", net.JoinHostPort(u.Hostname(), port), u.User.Username(), strings.TrimPrefix(u.Path, "/")
	c.Passwd, _ = u.User.Password()
	c.Timeout = min(timeout, 10*time.Second)
	c.InterpolateParams = true // one round trip for a statement
	c.ClientFoundRows = true
	c.MaxAllowedPacket = 0 // asked of the server
	c.Logger = &mysql.NopLogger{}
	// Values are refused rather than cut; zero dates and key 0 are what they are; nobody waits for a lock for ever.
	c.Params = map[string]string{"sql_mode": "'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'", "time_zone": "'+00:00'",
		"innodb_lock_wait_timeout": fmt.Sprint(max(1, int(timeout.Seconds())/3))}
	q := u.Query()
	for key := range q {
		switch key {
		case "tls", "ca", "cert", "key":
		case "socket":
			c.Net, c.Addr = "unix", q.Get(key)
		case "timeout":
			if c.Timeout, err = time.ParseDuration(q.Get(key)); err != nil || c.Timeout <= 0 {
				return nil, errors.New("url: timeout: want a duration such as 10s")
			}
		default:
			return nil, fmt.Errorf("url: parameter %q is not known: want tls, ca, cert, key, socket, timeout", key)
		}
	}
	if c.Net == "unix" {
		return c, nil
	}
	return c, encrypt(c, u.Hostname(), q)
}

// encrypt sets TLS as the parameters tls, ca, cert and key say.
func encrypt(c *mysql.Config, host string, q url.Values) error {
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if ca := q.Get("ca"); ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("url: ca: %w", err)
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("url: ca: %s has no certificate in PEM", ca)
		}
	}
	if cert, key := q.Get("cert"), q.Get("key"); cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("url: cert and key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	c.TLS = t
	switch mode := q.Get("tls"); mode {
	case "", "preferred":
		t.InsecureSkipVerify, c.AllowFallbackToPlaintext = true, true // as the mode says: encryption where there is, no proof of who it is
	case "required":
		t.InsecureSkipVerify = true
	case "verify-ca":
		if t.RootCAs == nil {
			return errors.New("url: tls=verify-ca needs ca=FILE")
		}
		t.InsecureSkipVerify = true // of the name; the chain is looked at here:
		t.VerifyConnection = func(s tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: t.RootCAs, Intermediates: x509.NewCertPool()}
			for _, cert := range s.PeerCertificates[1:] {
				o.Intermediates.AddCert(cert)
			}
			_, err := s.PeerCertificates[0].Verify(o)
			return err
		}
	case "verify-full":
	case "disable":
		c.TLS = nil
	default:
		return fmt.Errorf("url: tls=%s: want disable, preferred, required, verify-ca or verify-full", mode)
	}
	return nil
}

// Close implements target.Server.
func (s *Server) Close() error { return s.db.Close() }

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// Quoted implements target.Server.
func (s *Server) Quoted(n target.Name) string {
	if n.Schema == "" {
		return quote(n.Table)
	}
	return quote(n.Schema) + "." + quote(n.Table)
}

// isMariaDB asks once.
func (s *Server) isMariaDB(ctx context.Context) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked {
		var version string
		if err := s.db.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
			return false, fault(ctx, err)
		}
		s.asked, s.mariadb = true, strings.Contains(strings.ToLower(version), "mariadb")
	}
	return s.mariadb, nil
}

// fault says what an error means.
func fault(ctx context.Context, err error) error {
	var f *target.Fault
	var e *mysql.MySQLError
	switch {
	case errors.As(err, &f):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, mysql.ErrPktTooLarge):
		return &target.Fault{Kind: target.TooLarge, Text: "a row is larger than max_allowed_packet of the target", Err: err}
	case !errors.As(err, &e):
		text := "no connection: " + err.Error()
		if errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) {
			text = "the connection was lost"
		}
		return &target.Fault{Kind: target.Away, Text: target.Shorten(text), Err: err}
	}
	return &target.Fault{Kind: meant(e), Code: fmt.Sprint(e.Number), Text: textOf(e)}
}

// signalled: by a trigger, whatever number it gave; the servers' own errors have no such state.
func signalled(e *mysql.MySQLError) bool { return string(e.SQLState[:]) == "45000" }

func meant(e *mysql.MySQLError) target.Kind {
	if signalled(e) {
		return target.Unfit
	}
	return kindOf(e.Number)
}

// kindOf sorts the servers' codes. https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html,
// https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference
func kindOf(code uint16) target.Kind {
	switch code {
	case 1062, 1586, 1761, 1762, 1216, 1217, 1451, 1452: // unique, foreign keys
		return target.Conflict
	case 1205, 1213, 1020, 1614, 1180:
		return target.Again
	case 1146, 1051, 1054, 1091, 1136, 1060, 1061, 1072, 1103, 1110, 1412, 3105, 1906:
		return target.Changed
	case 1040, 1047, 1044, 1045, 1049, 1142, 1143, 1203, 1226, 1227, 1290, 1792, 1836, 1053, 1077, 1129, 1130, 1698, 3118, 3159, 4031, 1370, 1419,
		1021, 1041, 1114, 1037, 1038, 3, 28, 1026, 1030, 1927, 1152, 1158, 1159, 1160, 1161, 1184, 1449, 1410, 1820, 3024:
		return target.Away
	case 1153, 1301:
		return target.TooLarge
	case 1317, 1969:
		return target.Unknown
	case 1048, 1118, 1138, 1230, 1263, 1264, 1265, 1292, 1300, 1364, 1365, 1366, 1367, 1390, 1406, 1411, 1416, 1425, 1426, 1427, 1439, 1441, 1525, 1644, 1690, 1694, 1713,
		3064, 3140, 3141, 3144, 3157, 3156, 3819, 3854, 4025, 4038, 3516, 3548, 3617, 3618, 3673, 3819 + 1, 6136, 6137, 4161:
		return target.Unfit
	}
	return target.Unknown
}

var (
	ofColumn = regexp.MustCompile("(?:column|Column|Field) [`']?((?:`?[^`']+`?\\.)*`?[^`']+)[`']?(?: at row \\d+| cannot be null| doesn't have a default value)[^']*$")
	ofKey    = regexp.MustCompile(`for key '([^']+)'$`)
	ofCheck  = regexp.MustCompile("^(?:Check constraint|CONSTRAINT) [`']([^`']+)[`']")
	ofPlace  = regexp.MustCompile("\\(`[^`]*`\\.`([^`]*)`, CONSTRAINT `([^`]*)`")
)

// says is what the errors that quote values mean.
var says = map[uint16]string{
	1062: "another row has this value of a unique index", 1586: "another row has this value of a unique index", 1452: "a foreign key has no such row", 1216: "a foreign key has no such row",
	1451: "a foreign key names this row", 1217: "a foreign key names this row", 1048: "a column cannot be NULL", 1364: "a column that was not sent has no default",
	1264: "out of range", 1690: "out of range", 1406: "too long", 1265: "does not fit and would be cut", 1292: "not a value of the type", 1366: "not a value of the type", 1300: "not text of the column's character set",
	3819: "a check constraint refuses the row", 4025: "a check constraint refuses the row", 3140: "not JSON", 3141: "not JSON", 1644: "a trigger of the target refuses the row",
}

// textOf is a server's error without what it quotes of rows.
func textOf(e *mysql.MySQLError) string {
	if signalled(e) {
		return says[1644]
	}
	text, known := says[e.Number]
	if !known {
		switch text = e.Message; kindOf(e.Number) {
		case target.Unfit:
			text = "a row does not fit"
		case target.Unknown: // it may quote a row
			text = "the target refuses the statement: see its log"
		}
	}
	for _, at := range []struct {
		re   *regexp.Regexp
		word string
	}{{ofColumn, "column"}, {ofKey, "index"}, {ofCheck, "constraint"}} {
		if m := at.re.FindStringSubmatch(e.Message); m != nil && known && e.Number != 1644 {
			name := strings.ReplaceAll(m[1], "`", "")
			return target.Shorten(text + ", " + at.word + " " + name)
		}
	}
	if m := ofPlace.FindStringSubmatch(e.Message); m != nil && known {
		text += ", constraint " + m[2] + " of " + m[1]
	}
	return target.Shorten(text)
}
