package mysql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"github.com/leat-cdc/leat/pipeline"
)

func stopped(code, what, cure string, err error) *pipeline.SourceError {
	return &pipeline.SourceError{Class: pipeline.Stopped, Code: code, What: what, Cure: cure, Err: err}
}

func transient(code, what string, err error) *pipeline.SourceError {
	return &pipeline.SourceError{Class: pipeline.Transient, Code: code, What: what, Err: err}
}

// Cures that several errors share.
const (
	cureStartOver = "what is lost cannot be streamed: stop leat run, leat source accept NAME, start it again (subscriptions keep their cursors); " + pipeline.BringRows
	cureGrants    = "GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO the user of the url"
)

// Server error numbers. https://dev.mysql.com/doc/mysql-errors/9.7/en/server-error-reference.html,
// https://mariadb.com/docs/server/reference/error-codes
const (
	erDBAccess         = 1044
	erAccess           = 1045
	erHostNotAllowed   = 1130
	erSpecificAccess   = 1227
	erFatalBinlog      = 1236
	erMustChangePW     = 1820
	erMariaGTIDGone    = 1955 // ER_GTID_POSITION_NOT_FOUND_IN_BINLOG
	erMariaGTIDGone2   = 1960
	erAccountLocked    = 3118
	erMariaGTIDPurged  = 1956
	erPluginNotLoaded  = 1524
	erSecureTransport  = 3159
	erHostBlocked      = 1129
	erTooManyConns     = 1040
	erUserLimitReached = 1226
)

// connectError says what an error while connecting means.
func connectError(err error) *pipeline.SourceError {
	var my *gomysql.MyError
	if errors.As(err, &my) {
		return serverError("connect", my)
	}
	var (
		ca      x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		alert   tls.AlertError
		proof   *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &ca), errors.As(err, &name), errors.As(err, &invalid), errors.As(err, &proof), errors.As(err, &alert):
		return stopped("tls", "connect: TLS failed", "give the right ca, cert and key in the url, or another tls mode", err)
	case strings.Contains(err.Error(), "unknown auth plugin"), strings.Contains(err.Error(), "not supported") && strings.Contains(err.Error(), "auth plugin"):
		return stopped("auth_plugin", "connect: the user's authentication plugin is not supported",
			"ALTER USER … IDENTIFIED WITH caching_sha2_password BY '…'", err)
	case errors.Is(err, context.Canceled):
		return transient("canceled", "connect", err)
	}
	e := transient("unreachable", "connect", oneLine{err})
	e.Cure = "start the server, or correct host and port in the url: a MySQL or MariaDB server has to answer there"
	return e
}

// oneLine is an error whose text has no line breaks.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }
func (e oneLine) Unwrap() error { return e.error }

// serverSays is the server's own error, in our words.
type serverSays struct{ *gomysql.MyError }

func (e serverSays) Error() string {
	return fmt.Sprintf("server error %d (%s): %s", e.Code, e.State, e.Message)
}
func (e serverSays) Unwrap() error { return e.MyError }

// serverError says what an error packet means.
func serverError(doing string, my *gomysql.MyError) *pipeline.SourceError {
	err := error(serverSays{my})
	switch my.Code {
	case erAccess, erDBAccess, erHostNotAllowed, erMustChangePW, erAccountLocked, erPluginNotLoaded, erHostBlocked:
		return stopped("access_denied", doing+": the server refuses the user", "check user, password and host in the url", err)
	case erSpecificAccess:
		return stopped("right_missing", doing+": the user lacks a right", cureGrants, err)
	case erSecureTransport:
		return stopped("tls", doing+": the server wants TLS", "put tls=required into the url", err)
	case erTooManyConns, erUserLimitReached:
		return transient("too_many_connections", doing, err)
	case erFatalBinlog, erMariaGTIDGone, erMariaGTIDGone2, erMariaGTIDPurged:
		return dumpError(my, err)
	}
	if doing == readingStream {
		return dumpError(my, err)
	}
	return transient("server_error", doing, err)
}

// readingStream is what was being done when the server ends a dump; MariaDB has numbers of its own for
// some of the reasons.
const readingStream = "read the stream"

// dumpError tells apart what the server reports under one number when it cannot go on with a dump.
func dumpError(my *gomysql.MyError, err error) *pipeline.SourceError {
	m := strings.ToLower(my.Message)
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(m, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("same server_uuid/server_id", "same server_id"):
		return stopped("server_id_clash", "another replica connected with our server id, so the server ended our stream",
			"give the source a server_id of its own (leat.yaml: sources.NAME.mysql.server_id), or stop the other reader", err)
	case has("purged", "could not find first log file", "could not find gtid state", "too old"):
		return stopped("binlog_purged", "the server no longer has the binlog from our position on", cureStartOver+"; raise binlog_expire_logs_seconds (MariaDB: expire_logs_days) so that it does not happen again", err)
	case has("not in the master's binlog", "not in the source's binlog", "has more gtids", "diverged"):
		return stopped("gtids_missing", "the server lacks transactions that we have: it is another server, or was restored from a backup",
			"point the url at the server that has them, or: "+cureStartOver, err)
	case has("> file size", "impossible position"):
		return stopped("position_missing", "the server's binlog file ends before our position: it is another server, was restored, or crashed without sync_binlog=1", cureStartOver, err)
	case has("gtid_mode", "anonymous"):
		return stopped("gtid_mode", "the server does not write a GTID with every transaction any more", "SET PERSIST gtid_mode=ON on the server", err)
	case has("max_allowed_packet"):
		return stopped("packet_too_large", "an event is larger than the server sends", "SET GLOBAL max_allowed_packet=1073741824 on the server", err)
	case has("binary log is not open", "binlog is not open", "binary logging"):
		return stopped("binlog_off", "the server writes no binlog", "start the server with log_bin (--log-bin)", err)
	case has("corrupt", "checksum", "bogus data", "read error", "i/o error"):
		return stopped("binlog_damaged", "the server cannot read its own binlog", "repair or fail over the server, or: "+cureStartOver, err)
	}
	return transient("dump_failed", "the server ended the stream", err)
}

// damagedError stops at bytes that make no sense: trying again would read the same.
func damagedError(at string, err error) *pipeline.SourceError {
	return stopped("binlog_unreadable", "read the binlog at "+at,
		"check the file with mysqlbinlog --verify-binlog-checksum (MariaDB: mariadb-binlog); if it is whole, this version of Leat does not know the event: upgrade", err)
}
