package mysql

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// server is what the connected server says about itself.
type server struct {
	mariadb bool
	version string
	number  int    // as in executable comments: 90700, 101100
	uuid    string // MySQL's server_uuid; "" on MariaDB
	id      string // server_id
	fold    bool   // table names have one case
	gtids   bool   // every transaction has a GTID
	logBin  bool
	// rowImageFull, metadataFull are the global settings; sessions may differ.
	rowImageFull, metadataFull bool
	checksum                   string // binlog_checksum
}

// name is how the server is called in messages.
func (v *server) name() string {
	if v.mariadb {
		return "MariaDB " + v.version
	}
	return "MySQL " + v.version
}

// variables that anything here looks at.
var variables = []string{"binlog_checksum", "binlog_encryption", "binlog_expire_logs_auto_purge", "binlog_expire_logs_seconds", "binlog_format",
	"binlog_row_image", "binlog_row_metadata", "binlog_row_value_options", "encrypt_binlog", "event_scheduler", "expire_logs_days",
	"gtid_ignore_duplicates", "gtid_mode", "log_bin", "log_replica_updates", "log_slave_updates", "lower_case_table_names",
	"max_binlog_total_size", "server_id", "server_uuid", "version", "version_comment"}

// vars reads global variables; those that the server does not know are missing from the result. All thousand of them
// would take a server 3 to 30 ms, these 0.3.
func (c *conn) vars(ctx context.Context) (map[string]string, error) {
	all, err := c.rows(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('"+strings.Join(variables, "','")+"')")
	if err != nil {
		return nil, err
	}
	m := make(map[string]string, len(all))
	for _, r := range all {
		m[strings.ToLower(r[0])] = r[1]
	}
	return m, nil
}

// inspect asks the server what it is.
func (c *conn) inspect(ctx context.Context) (*server, map[string]string, error) {
	m, err := c.vars(ctx)
	if err != nil {
		return nil, nil, err
	}
	v := &server{version: m["version"], uuid: m["server_uuid"], id: m["server_id"], checksum: m["binlog_checksum"]}
	v.mariadb = strings.Contains(v.version, "MariaDB") || strings.Contains(m["version_comment"], "MariaDB")
	v.number = versionNumber(v.version)
	v.fold = m["lower_case_table_names"] != "0" && m["lower_case_table_names"] != ""
	v.logBin = on(m["log_bin"])
	v.gtids = v.mariadb || strings.EqualFold(m["gtid_mode"], "ON")
	v.rowImageFull = m["binlog_row_image"] == "" || strings.EqualFold(m["binlog_row_image"], "FULL")
	v.metadataFull = strings.EqualFold(m["binlog_row_metadata"], "FULL")
	if v.mariadb {
		v.uuid = ""
	}
	return v, m, nil
}

func on(v string) bool { return v == "1" || strings.EqualFold(v, "ON") }

// versionNumber turns 10.11.14-MariaDB into 101114.
func versionNumber(version string) int {
	n := 0
	rest := version
	for i := range 3 {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		part, err := strconv.Atoi(rest[:digits])
		if err != nil {
			part = 0
		}
		n = n*100 + part
		rest = strings.TrimPrefix(rest[digits:], ".")
		if i < 2 && rest == "" {
			rest = "0"
		}
	}
	return n
}

// identity names the server in file:offset tokens: a file name means nothing on another one.
func (v *server) identity() string {
	if v.mariadb {
		return v.id
	}
	return v.uuid
}

// binlogEnd returns the file and the offset behind its last event.
func (c *conn) binlogEnd(ctx context.Context, v *server) (file string, pos uint64, err error) {
	sql := "SHOW BINARY LOG STATUS" // MySQL 8.2; MariaDB says MASTER and, since 10.5, BINLOG
	if v.mariadb || v.number < 80200 {
		sql = "SHOW MASTER STATUS"
	}
	all, err := c.rows(ctx, sql)
	if err != nil {
		return "", 0, err
	}
	if len(all) == 0 || len(all[0]) < 2 {
		return "", 0, errBinlogOff
	}
	pos, perr := strconv.ParseUint(all[0][1], 10, 64)
	if perr != nil {
		return "", 0, transient("protocol", "read the binlog's end", perr)
	}
	return all[0][0], pos, nil
}

var errBinlogOff = stopped("binlog_off", "the server writes no binlog", "start the server with log_bin (--log-bin), binlog_format=ROW", nil)

// firstBinlog returns the oldest file that the server still has.
func (c *conn) firstBinlog(ctx context.Context) (string, error) {
	all, err := c.rows(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", errBinlogOff
	}
	return all[0][0], nil
}

// quote writes s as an SQL string. NO_BACKSLASH_ESCAPES is off in our sessions.
func quote(s string) string {
	return fmt.Sprintf("'%s'", strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`).Replace(s))
}
