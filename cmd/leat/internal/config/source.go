package config

// Source is one database to read: postgres or mysql (MariaDB too); or status.
type Source struct {
	// A PostgreSQL database, 15 or later, read by logical replication.
	Postgres *Postgres `json:"postgres"`
	// A MySQL or MariaDB server, read by its binlog. The flavor is detected.
	MySQL *MySQL `json:"mysql"`
	// Changes of state of Leat's own subscriptions and sources, as events, but for
	// those of status sources and of who subscribes to them. `status: {}`.
	Status *StatusSource `json:"status"`
	// Globs over schema.table (MySQL: database.table): `*` is any run of
	// characters but a dot, `?` one; a leading `!` takes tables out. A table
	// created later that matches joins by itself. Default: all.
	Tables []string `json:"tables" default:"*.*" form:"glob"`
	// Columns that enter the log, by table: names, or names to leave out with a
	// leading `!`. Default: all.
	Columns map[string][]string `json:"columns" keys:"table" form:"column"`
	// Routing key, by table: the columns whose values decide order and range.
	// Default: primary key, else the replica identity index, else the whole
	// table is one key.
	Keys map[string][]string `json:"keys" keys:"table" form:"plain"`
	// Tables of one key space share order per key. Default: one per table.
	KeySpace map[string]string `json:"key_space" keys:"table" form:"name"`
	// Where reading begins the first time: now, earliest, an LSN, a GTID set, or
	// file:position. An existing slot goes on from where it stands.
	Start Start `json:"start" default:"now"`
	// Whether the rows that are already there are copied first.
	Snapshot Snapshot `json:"snapshot"`
	// What the database may be asked to bear.
	Load *SourceLoad `json:"load"`
}

// Postgres is a PostgreSQL database.
type Postgres struct {
	// postgres://user:password@host:port/database?sslmode=…; in the user and
	// password part the value of a ${NAME} needs no percent-encoding. A role
	// with REPLICATION is needed. TLS files in it are relative to this file.
	URL URL `json:"url" need:"true"`
	// Replication slot. Default: leat_<source>.
	Slot string `json:"slot" form:"pg_slot"`
	// Publication. Default: leat_<source>.
	Publication string `json:"publication" form:"pg_name"`
	// Whether slot and publication are created when missing.
	Create bool `json:"create" default:"true"`
}

// MySQL is a MySQL or MariaDB server.
type MySQL struct {
	// mysql://user:password@host:port/; in the user and password part the value
	// of a ${NAME} needs no percent-encoding.
	URL URL `json:"url" need:"true"`
	// Id towards the server, unlike that of all its other replicas. Default:
	// derived from the name of the source.
	ServerID uint32 `json:"server_id" min:"1" max:"4294967295"`
}

// StatusSource are Leat's own changes of state. It has no settings.
type StatusSource struct{}

// Snapshot of the rows that are already there.
type Snapshot struct {
	// none, or initial: copy all rows when the source is new, for all its
	// subscriptions.
	Mode string `json:"mode" default:"none" enum:"none|initial"`
	// How fast rows are read: default leaves the database most of its time, max
	// takes what it gives. Of backfills too, as all of these.
	Pace string `json:"pace" default:"default" enum:"default|max"`
	// How long reading one chunk of rows takes at most; its size follows.
	Chunk Duration `json:"chunk" default:"100ms" min:"5ms" max:"10s"`
	// Connections that read at once; 0 is 1, at pace max 2.
	Workers int `json:"workers" default:"0" min:"0" max:"32"`
	// MySQL and MariaDB: the table (database.table) that Leat writes a row to around
	// each chunk; it makes it where it may. Where it may not write, or for -, places
	// of the binlog serve. Default: leat.watermark.
	Signal string `json:"signal" form:"signal"`
	// A replica that rows are read from; as url of the database. It waits until it
	// has replayed what the primary has. Default: the database itself.
	URL URL `json:"url"`
}

// SourceLoad is what the database may be asked to bear before reading slows down.
type SourceLoad struct {
	// Most active sessions of the database.
	MaxActive int `json:"max_active" default:"8" min:"1" max:"100000"`
	// Most lag of its replicas.
	MaxReplicaLag Duration `json:"max_replica_lag" default:"10s" min:"100ms" max:"1d"`
	// A table (schema.table; MySQL: database.table) with columns owner, reason,
	// ratio, until: each row throttles the reading.
	SignalTable string `json:"signal_table" form:"table"`
	// A file that throttles the reading while it exists: its text is a ratio
	// from 0 to 1 and a reason; empty: 0.
	FlagFile string `json:"flag_file" form:"path"`
	// An http(s) URL asked every second: status 429 or 503 pauses the reading, the
	// text of 200 is a ratio and a reason, 204 and 404 throttle nothing.
	FlagURL string `json:"flag_url" form:"base_url"`
}
