package catalog

import (
	"fmt"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/schemas/cell/binlog/charset"
)

// Invisible tells whether the stream says that the column is hidden: MariaDB's full metadata leaves that out.
func (k *Column) Invisible(mariadb, named bool) bool { return k.Hidden && !(mariadb && named) }

// Type returns the column's type as a table map of the server tells it; named: with binlog_row_metadata=FULL.
func (k *Column) Type(mariadb, named bool) (schemas.Type, error) {
	c := binlog.TableMapColumn{}
	k.describe(&c)
	if err := k.stored(&c, mariadb); err != nil {
		return schemas.Type{}, fmt.Errorf("type of column %s: %w", k.Name, err)
	}
	collation := c.Collation
	if c.Labels != nil {
		c.Collation = collationUTF8MB4 // as the catalogue writes them
	}
	t, err := binlog.TypeOf(c)
	if err != nil || c.Labels == nil || !named {
		return t, err
	}
	t.Collation = ""
	if collation != collationBinary {
		if t.Collation, _, err = charset.Collation(collation); err != nil {
			return schemas.Type{}, fmt.Errorf("type of column %s: %w", k.Name, err)
		}
	}
	return t, nil
}

// numbers are the types whose code says all.
var numbers = map[string]uint8{
	"tinyint": binlog.TypeTiny, "smallint": binlog.TypeShort, "mediumint": binlog.TypeInt24, "int": binlog.TypeLong, "bigint": binlog.TypeLonglong,
	"year": binlog.TypeYear, "date": binlog.TypeDate,
}

// blobs have a length of that many bytes.
var blobs = map[string]uint16{"tinyblob": 1, "blob": 2, "mediumblob": 3, "longblob": 4, "tinytext": 1, "text": 2, "mediumtext": 3, "longtext": 4}

// fixed are MariaDB's types that are kept as so many bytes.
var fixed = map[string]uint64{"uuid": 16, "inet6": 16, "inet4": 4}

// times have a fraction: the code, and that of MariaDB's format before MySQL 5.6's.
var times = map[string][2]uint8{
	"time":      {binlog.TypeTime2, binlog.TypeTime},
	"datetime":  {binlog.TypeDatetime2, binlog.TypeDatetime},
	"timestamp": {binlog.TypeTimestamp2, binlog.TypeTimestamp},
}

// stored sets code and metadata.
func (k *Column) stored(c *binlog.TableMapColumn, mariadb bool) error {
	word := k.word()
	compressed := strings.Contains(strings.ToLower(k.Declared), "compressed*/")
	if code, ok := numbers[word]; ok {
		c.Code = code
		return nil
	}
	if n, ok := blobs[word]; ok {
		c.Code, c.Meta = binlog.TypeBlob, n
		if compressed {
			c.Code = binlog.TypeBlobCompressed
		}
		return nil
	}
	if codes, ok := times[word]; ok {
		if strings.Contains(k.Declared, "mariadb-5.3") {
			c.Code = codes[1]
		} else {
			c.Code, c.Meta = codes[0], uint16(k.digits)
		}
		return nil
	}
	if n, ok := fixed[word]; ok && mariadb {
		c.Code, c.Meta, c.Collation = binlog.TypeString, text(n), collationBinary
		return nil
	}
	switch word {
	case "float":
		c.Code, c.Meta = binlog.TypeFloat, 4
	case "double":
		c.Code, c.Meta = binlog.TypeDouble, 8
	case "decimal":
		c.Code, c.Meta = binlog.TypeNewDecimal, uint16(k.precision<<8|k.scale)
	case "bit":
		c.Code, c.Meta = binlog.TypeBit, uint16(k.precision/8<<8|k.precision%8)
	case "char", "binary":
		c.Code, c.Meta = binlog.TypeString, text(k.octets)
	case "varchar", "varbinary":
		c.Code, c.Meta = binlog.TypeVarchar, uint16(k.octets)
		if compressed {
			c.Code, c.Meta = binlog.TypeVarcharCompressed, uint16(k.octets+1)
		}
	case "enum", "set":
		c.Code, c.Meta = binlog.TypeString, labelled(word, len(c.Labels))
	case "json":
		c.Code, c.Meta = binlog.TypeJSON, 4
	case "vector":
		return k.vector(c, mariadb)
	default:
		if c.Geometry == 0 && word != "geometry" && word != "geomcollection" {
			return fmt.Errorf("%q is not known to this version", k.Declared)
		}
		c.Code, c.Meta = binlog.TypeGeometry, 4
		if word == "geomcollection" { // MySQL's word for it
			c.Geometry = 7
		}
	}
	return nil
}

func (k *Column) vector(c *binlog.TableMapColumn, mariadb bool) error {
	if _, err := fmt.Sscanf(k.Declared, "vector(%d)", &c.Dims); err != nil {
		return fmt.Errorf("%q: %w", k.Declared, err)
	}
	c.Code, c.Meta = binlog.TypeVector, 4
	if mariadb {
		c.Code, c.Meta, c.Collation = binlog.TypeVarchar, uint16(c.Dims*4), collationBinary
	}
	return nil
}

// text is the metadata of a string of up to 1023 bytes.
func text(octets uint64) uint16 {
	return (binlog.TypeString^uint16(octets&0x300>>4))<<8 | uint16(octets&0xff)
}

// labelled is the metadata of an enum or set with n labels.
func labelled(word string, n int) uint16 {
	if word == "enum" {
		if n < 256 {
			return binlog.TypeEnum<<8 | 1
		}
		return binlog.TypeEnum<<8 | 2
	}
	size := uint16(n+7) / 8
	if size > 4 {
		size = 8
	}
	return binlog.TypeSet<<8 | size
}
