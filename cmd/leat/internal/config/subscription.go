package config

// Subscription says who gets which changes of a source, and how.
type Subscription struct {
	// Name of the source.
	Source string `json:"source" need:"true" form:"name"`
	// Globs over schema.table, as in sources. Default: all tables of the source.
	Tables []string `json:"tables" form:"glob"`
	// CEL expression over op, table, key, before, after, message, tx, time. Default: every event.
	Filter string `json:"filter"`
	// Columns to send, by table: names, or names to leave out with a leading
	// `!`. Default: all.
	Columns map[string][]string `json:"columns" keys:"table" form:"column"`
	// How columns look, by table: renamed, left out, cast, masked; constants. All
	// entries that match a table hold. Where one names its table in full, that
	// table must have the columns, else nothing of it is sent.
	Mapping map[string]*Mapping `json:"mapping" keys:"table"`
	// What the rows, as they are sent, must go with.
	Contract *Contract `json:"contract"`
	// Where delivery begins when the subscription is new: earliest, latest,
	// snapshot (the rows that are there, for it alone, and what comes from now
	// on), {offset: N} or {time: T}. Later changes of it change nothing.
	From From `json:"from" default:"earliest"`
	// Order of delivery: per key, source (one total order), or none.
	Order string `json:"order" default:"key" enum:"key|source|none"`
	// While CPU is short, critical, high, normal and low subscriptions get shares of
	// 8 : 4 : 2 : 1 at least, each and all together.
	Priority string `json:"priority" default:"normal" enum:"critical|high|normal|low"`
	// How events get there. Exactly one of webhook, pull, kafka, redis, nats, search, table,
	// parquet, file, stdout.
	Deliver Deliver `json:"deliver" need:"true"`
	// How many events go in one delivery.
	Batch Batch `json:"batch"`
	// How fast events may go.
	Flow Flow `json:"flow"`
	// What happens after a failure.
	Retry Retry `json:"retry"`
	// When retries are used up: park the key (later events of it wait), skip
	// the event (it is kept as a dead letter), or block.
	Exhausted string `json:"exhausted" default:"park" enum:"park|skip|block"`
	// When delivery falls behind retention: hold (keep the log up to its size,
	// then skip, loudly), skip, or snapshot (as hold, but then the rows are
	// copied anew, for it alone, and it goes on with what comes from then on).
	Laggard string `json:"laggard" default:"hold" enum:"snapshot|hold|skip"`
	// How often leat.resolved events are sent; 100ms to 1h. Default: off.
	Resolved Duration `json:"resolved" off:"true" min:"100ms" max:"1h"`
	// How values are written as JSON.
	JSON JSON `json:"json"`
}

// Deliver is the sink of a subscription: exactly one of its fields.
type Deliver struct {
	// POST to an HTTP endpoint, signed as Standard Webhooks say.
	Webhook *Webhook `json:"webhook"`
	// Clients fetch over the API.
	Pull *Pull `json:"pull"`
	// An index of Elasticsearch or OpenSearch for each table.
	Search *Search `json:"search"`
	// Tables of PostgreSQL, MySQL or MariaDB.
	Table *Table `json:"table"`
	// Parquet files by table and day, in a folder or a bucket.
	Parquet *Parquet `json:"parquet"`
	// JSON lines in a file.
	File *File `json:"file"`
	// Records in Kafka.
	Kafka *Kafka `json:"kafka"`
	// Entries in streams of Redis or Valkey.
	Redis *Redis `json:"redis"`
	// Messages in a stream of NATS JetStream.
	NATS *NATS `json:"nats"`
	// JSON lines on standard output.
	Stdout *Stdout `json:"stdout"`
}

// Kind is the name of the sink that is set, like "webhook".
func (d Deliver) Kind() string {
	switch {
	case d.Webhook != nil:
		return "webhook"
	case d.Pull != nil:
		return "pull"
	case d.Kafka != nil:
		return "kafka"
	case d.Redis != nil:
		return "redis"
	case d.NATS != nil:
		return "nats"
	case d.Search != nil:
		return "search"
	case d.Table != nil:
		return "table"
	case d.Parquet != nil:
		return "parquet"
	case d.File != nil:
		return "file"
	case d.Stdout != nil:
		return "stdout"
	}
	return ""
}

// Webhook is an HTTP endpoint.
type Webhook struct {
	// https://…; plain http only to loopback and private addresses. A name with
	// several addresses is several hosts. This, or urls.
	URL URL `json:"url"`
	// Several URLs that take the same requests; the nearest healthy ones get them.
	URLs []WebhookURL `json:"urls"`
	// whsec_ + base64 (HMAC) or whsk_ + base64 (Ed25519); a list while rotating.
	Secret Secrets `json:"secret" need:"true"`
	// How long the endpoint may take, 1s to 10m.
	Timeout Duration `json:"timeout" default:"15s" min:"1s" max:"10m"`
	// Additional request headers. Their values are treated as secrets.
	Headers map[string]Secret `json:"headers" keys:"header"`
	// Statuses that make an event a dead letter at once, 400 to 499.
	Fatal []int `json:"fatal" default:"422" min:"400" max:"499"`
	// Form of the body: json (CloudEvents structured).
	Encoding string `json:"encoding" default:"json" enum:"json"`
	// Path of which a GET tells, by a 2xx, that a host that was left out is well
	// again. Default: a connection tells that it is there.
	Probe string `json:"probe" form:"url_path"`
	// Proxy to go through; then every URL must be https.
	Proxy *Proxy `json:"proxy"`
	// Whom to trust, and who we are (mutual TLS).
	TLS *ClientTLS `json:"tls"`
	// When the endpoint is asked by OPTIONS, as CloudEvents say, whether it wants
	// to be called and how often: auto (where egress.hosts is set and does not name
	// it) or always.
	Handshake string `json:"handshake" default:"auto" enum:"auto|always"`
}

// WebhookURL is one of several.
type WebhookURL struct {
	// As url of a webhook.
	URL URL `json:"url" need:"true"`
	// Where it is: REGION or REGION/ZONE, compared with zone of the server.
	Zone string `json:"zone" form:"zone"`
}

// Proxy makes connections in our place (CONNECT).
type Proxy struct {
	// http://… or https://…, with user and password where it wants them. Not
	// subject to egress.
	URL URL `json:"url" need:"true"`
	// Who resolves names: here (the proxy is told the address that egress
	// allowed) or proxy (it is told the name, and trusted with it).
	Resolve string `json:"resolve" default:"here" enum:"here|proxy"`
}

// ClientTLS says how a webhook's endpoint is trusted, and what it is shown.
type ClientTLS struct {
	// PEM file of the authorities to trust. Default: the system's.
	CA string `json:"ca" form:"path"`
	// PEM file with the client certificate; read again for each connection.
	Cert string `json:"cert" form:"path"`
	// PEM file with its private key.
	Key string `json:"key" form:"path"`
}

// Pull lets clients fetch over the API.
type Pull struct {
	// How long a client may hold events before they go to another, 1s to 1h.
	Lease Duration `json:"lease" default:"30s" min:"1s" max:"1h"`
}

// Search is a cluster of Elasticsearch or OpenSearch that holds the rows as documents.
type Search struct {
	// https://USER:PASSWORD@HOST:PORT of a node, or of what stands before the nodes.
	URL URL `json:"url" need:"true"`
	// API key, as Elasticsearch gives it in base64, instead of a user.
	APIKey Secret `json:"api_key"`
	// Name of a table's index, which is an alias; {source}, {schema} and {table}
	// stand for their names.
	Index string `json:"index" default:"{schema}.{table}" form:"index"`
	// What becomes of a deleted row's document: hard removes it, soft keeps it with
	// leat_deleted, and the alias hides it.
	Deletes string `json:"deletes" default:"hard" enum:"hard|soft"`
	// How long indices that Leat makes remember what was removed (index.gc_deletes),
	// so that what is late does not bring it back; takes memory there.
	GCDeletes Duration `json:"gc_deletes" default:"1h" min:"1m" max:"168h"`
	// Shards of indices that Leat makes.
	Shards int `json:"shards" default:"1" min:"1" max:"1024"`
	// Replicas of indices that Leat makes.
	Replicas int `json:"replicas" default:"1" min:"0" max:"100"`
	// How long the cluster may take to answer, 1s to 10m.
	Timeout Duration `json:"timeout" default:"30s" min:"1s" max:"10m"`
	// Whom to trust, and who we are (mutual TLS).
	TLS *ClientTLS `json:"tls"`
}

// File is a file of JSON lines.
type File struct {
	// The file. Relative paths are relative to the folder of this config.
	Path string `json:"path" form:"path" need:"true"`
	// Size at which the file is renamed and a new one begun. At least 64KiB.
	Rotate Size `json:"rotate" default:"100MiB" min:"64KiB" max:"16TiB"`
	// How many renamed files are kept; 0 keeps all.
	Keep int `json:"keep" default:"0" min:"0" max:"1000000"`
}

// Stdout is the standard output of the server.
type Stdout struct{}

// Batch bounds one delivery. What is reached first ends it.
type Batch struct {
	// Most events in one delivery, 1 to 100000. Default with kafka,
	// redis, nats, parquet and table: 10000.
	Events int `json:"events" default:"100" min:"1" max:"100000"`
	// Most bytes in one delivery, 1KiB to 64MiB; one larger event goes alone.
	// Default with kafka, redis, nats, parquet and table: 4MiB.
	Bytes Size `json:"bytes" default:"1MiB" min:"1KiB" max:"64MiB"`
	// How long to wait for a delivery to fill, at most 1m.
	Wait Duration `json:"wait" default:"0s" min:"0s" max:"1m"`
}

// Flow bounds the speed.
type Flow struct {
	// Most requests at once, 1 to 10000. Default with kafka: 4, of its larger
	// deliveries.
	MaxInFlight int `json:"max_in_flight" default:"64" min:"1" max:"10000"`
	// Most events per second. Default: none.
	Rate float64 `json:"rate" min:"0.01" max:"1e9"`
	// Most requests at once to one host of a webhook, 1 to 10000; 0: no limit but
	// max_in_flight.
	PerHost int `json:"per_host" default:"0" min:"0" max:"10000"`
}

// Retry says how a failed event is tried again: after initial, doubling to max.
type Retry struct {
	// First wait, 10ms to 1h.
	Initial Duration `json:"initial" default:"1s" min:"10ms" max:"1h"`
	// Longest wait, at least initial, at most 1d.
	Max Duration `json:"max" default:"10m" min:"10ms" max:"1d"`
	// Tries in all, 1 to 1000.
	Attempts int `json:"attempts" default:"12" min:"1" max:"1000"`
	// Age of the first try after which no more is made, 1s to 365d.
	Age Duration `json:"age" default:"24h" min:"1s" max:"365d"`
}

// JSON says how values are written as JSON.
type JSON struct {
	// 64-bit integers as number (every digit) or as string.
	Int64 string `json:"int64" default:"number" enum:"number|string"`
}
