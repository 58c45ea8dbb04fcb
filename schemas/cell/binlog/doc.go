// Package binlog reads the row images of MySQL and MariaDB rows events: [schemas.WireBinlog].
//
// Words used here:
//
//   - Row image: null bitmap and packed values of one row, as they stand in a rows event.
//   - Layout: how many bytes each column of a table takes in a row image; see [NewLayout]. It cuts a
//     rows event into rows and a row into cells without looking at values.
//   - Form: a Layout with a decoder per column; see [Form].
//
// A column's [schemas.Type] is made from the table map event by [TypeOf]; nothing else is needed to
// read a row at any later time. Text arrives as UTF-8 whatever the column's character set; bytes that
// are not text of that set are an error of the value, never replaced.
//
// The formats: https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html,
// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Rows__event.html and
// https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol.
package binlog

// The column types of a table map event that this package knows.
const (
	TypeTiny              = 1
	TypeShort             = 2
	TypeLong              = 3
	TypeFloat             = 4
	TypeDouble            = 5
	TypeTimestamp         = 7
	TypeLonglong          = 8
	TypeInt24             = 9
	TypeDate              = 10
	TypeTime              = 11
	TypeDatetime          = 12
	TypeYear              = 13
	TypeNewDate           = 14
	TypeVarchar           = 15
	TypeBit               = 16
	TypeTimestamp2        = 17
	TypeDatetime2         = 18
	TypeTime2             = 19
	TypeTypedArray        = 20
	TypeBlobCompressed    = 140 // MariaDB
	TypeVarcharCompressed = 141 // MariaDB
	TypeVector            = 242
	TypeJSON              = 245
	TypeNewDecimal        = 246
	TypeEnum              = 247
	TypeSet               = 248
	TypeTinyBlob          = 249
	TypeMediumBlob        = 250
	TypeLongBlob          = 251
	TypeBlob              = 252
	TypeVarString         = 253
	TypeString            = 254
	TypeGeometry          = 255
)
