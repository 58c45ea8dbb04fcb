package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
)

// Config is the whole file. Build one with [Load] or [Parse]; a Config is not
// changed afterwards and may be read by many goroutines.
//
// Struct tags drive decoding, `leat config schema` and `leat config show`:
// json is the field's name, default its default as written in the file, min
// and max the allowed range, enum the allowed words, need marks a required
// field, form a syntax that is checked. The comments of the fields are the
// schema's descriptions.
type Config struct {
	// Folder of the log and the local state. Required for `leat run`. Relative
	// paths are relative to the folder of this file.
	Data string `json:"data" form:"path"`
	// Address of API, console, metrics and health, host:port. An address that is
	// not loopback needs tokens, and tls (or `tls: off`, said aloud).
	Listen string `json:"listen" default:"127.0.0.1:7070" form:"listen"`
	// TLS of the API: `{cert: …, key: …}` or `off`.
	TLS TLS `json:"tls"`
	// Who may use the API. Empty: everyone who reaches it, on loopback only.
	Tokens []Token `json:"tokens"`
	// What links and dataschema begin with. Default: from listen.
	PublicURL string `json:"public_url" form:"base_url"`
	// Budget of all buffers together, at least 64MiB.
	Memory Size `json:"memory" default:"512MiB" min:"64MiB" max:"16TiB"`
	// Where webhooks may go.
	Egress Egress `json:"egress"`
	// Where this server is, REGION or REGION/ZONE: webhooks with several urls go to
	// the nearest that are healthy.
	Zone string `json:"zone" form:"zone"`
	// The durable log.
	Log Log `json:"log"`
	// Where the schemas of Avro and Protobuf records are kept.
	Registry Registry `json:"registry"`
	// Databases to read, by name.
	Sources map[string]*Source `json:"sources" keys:"name"`
	// Who gets which changes, by name.
	Subscriptions map[string]*Subscription `json:"subscriptions" keys:"name"`

	doc      *yamltree.Document
	open     map[string]string // path → text of values left unexpanded
	opts     Options
	warnings Errors
}

// TLS of the API: `{cert: …, key: …}`, or `off`.
type TLS struct {
	// Off is `tls: off`: plain HTTP on an address that is not loopback.
	Off bool `json:"-"`
	// PEM file with the certificate and its chain.
	Cert string `json:"cert" form:"path" need:"true"`
	// PEM file with the private key of the certificate.
	Key string `json:"key" form:"path" need:"true"`
}

// Enabled says whether the API speaks TLS.
func (t TLS) Enabled() bool { return t.Cert != "" }

// Token lets a client use the API. Only the hash of the token stands in the file.
type Token struct {
	// Name in the audit log.
	Name string `json:"name" form:"name" need:"true"`
	// SHA-256 of the token, 64 hexadecimal digits.
	SHA256 string `json:"sha256" form:"sha256" need:"true"`
	// What the token allows: read, operate, publish, subscribe:NAME (one subscription).
	Roles []string `json:"roles" form:"role" need:"true"`
}

// Egress says where webhooks may go. It is checked on the resolved address at
// dial time, by [Egress.Permits].
type Egress struct {
	// Address classes public, private, loopback, or a CIDR. Default: public, and
	// loopback while listen is on loopback. Link-local and metadata addresses
	// are never allowed.
	Allow []string `json:"allow" form:"egress"`
	// Hosts that take webhooks without being asked: names, `*.example.com`, or
	// addresses. When set, any other host must agree first, by the OPTIONS
	// handshake of CloudEvents. Default: all.
	Hosts []string `json:"hosts" form:"host"`
}

// Registry keeps the schemas of records. Without a url it is Leat's own, under
// /registry of the API, where ordinary deserialisers find it.
type Registry struct {
	// http(s)://user:password@host:port/path of a registry with Confluent's API;
	// the path is what stands before /subjects. Default: Leat's own.
	URL URL `json:"url"`
	// Bearer token for it, instead of user and password.
	Token Secret `json:"token"`
	// Whom to trust, and who we are (mutual TLS).
	TLS *ClientTLS `json:"tls"`
	// How long it may take to answer, 100ms to 1m.
	Timeout Duration `json:"timeout" default:"10s" min:"100ms" max:"1m"`
	// What a new version of a subject must hold to in Leat's own registry: none,
	// backward, forward, full, or the last three with _transitive. Another
	// registry has its own rules.
	Compatibility string `json:"compatibility" default:"backward" enum:"none|backward|backward_transitive|forward|forward_transitive|full|full_transitive"`
}

// Log is the durable log between sources and subscriptions.
type Log struct {
	// Where the log lives: disk (segment files under data) or kafka.
	Backend string `json:"backend" default:"disk" enum:"disk|kafka"`
	// How long events are kept. What comes first, age or size, ends it.
	Retention Retention `json:"retention"`
}

// Retention of the log of each source.
type Retention struct {
	// Events are kept at least this long, unless size ends it. At least 1m.
	Age Duration `json:"age" default:"72h" min:"1m" max:"36500d"`
	// Most bytes on disk. At least 16MiB.
	Size Size `json:"size" default:"50GiB" min:"16MiB" max:"4096TiB"`
}

// Options say how a file is read.
type Options struct {
	// Env looks up the variables of ${NAME}. Default: os.LookupEnv.
	Env func(string) (string, bool)
	// ReadFile reads the target of a file: secret. Default: regular files of at
	// most 64 KiB. Not called with NoExpand.
	ReadFile func(string) ([]byte, error)
	// Dir is what relative paths are relative to. Default: the folder of the file.
	Dir string
	// NoExpand leaves references and file: secrets as they are: what a client does,
	// so that it sends names to the server and no secrets. Values that hold a
	// reference keep their default in the Config and are not checked; see
	// [Config.Open] and [Config.Expand].
	NoExpand bool
	// Masked accepts the mask in the place of a secret, to read what [Show] wrote.
	Masked bool
}

const maxSecret = 64 << 10

// Error is one thing wrong with the file.
type Error = yamltree.Error

// Errors are all findings of one file, sorted by line.
type Errors = yamltree.Errors

// Mask stands in the place of a secret in everything that is printed.
const Mask = yamltree.Mask

// DidYouMean names the word nearest to got, if one is near, else lists the words.
func DidYouMean(got string, words []string) string { return yamltree.DidYouMean(got, words) }

// Load reads and parses the file at path. The error is [Errors] when the
// content is wrong, and wraps the operating system's when it cannot be read.
func Load(path string, opts Options) (*Config, error) {
	data, err := readRegular(path, yamltree.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("read config: %w (leat init writes one)", err)
	}
	return Parse(path, data, opts)
}

// Parse parses data, which came from the file called name (used in errors, and
// for the folder of relative paths). The error is [Errors], sorted by line. Data
// is copied.
func Parse(name string, data []byte, opts Options) (*Config, error) {
	if opts.Env == nil {
		opts.Env = os.LookupEnv
	}
	if opts.ReadFile == nil {
		opts.ReadFile = func(p string) ([]byte, error) { return readRegular(p, maxSecret) }
	}
	if opts.Dir == "" {
		opts.Dir = filepath.Dir(name)
	}
	doc := yamltree.New(name, data, fieldNames)
	cfg := &Config{doc: doc, open: map[string]string{}, opts: opts}
	if !doc.Parse() {
		return nil, doc.Sorted()
	}
	expand(doc, opts)
	cfg.warnings = refuseUnsupported(doc)
	d := &decoder{doc: doc, opts: opts, open: cfg.open}
	d.fill(cfg)
	cfg.derive()
	(&checker{doc: doc, cfg: cfg}).all()
	if len(doc.Errs) > 0 {
		return nil, doc.Sorted()
	}
	return cfg, nil
}

// Expand parses the same text again, now with the given environment: the
// server's half of NoExpand.
func (c *Config) Expand(opts Options) (*Config, error) {
	opts.NoExpand = false
	if opts.Dir == "" {
		opts.Dir = c.opts.Dir
	}
	return Parse(c.doc.Name, c.doc.Src, opts)
}

// Source returns the text that was parsed, as written. It may hold literal
// secrets: it is for sending to the server, not for printing.
func (c *Config) Source() []byte { return append([]byte(nil), c.doc.Src...) }

// Dir is the folder that relative paths of the file are relative to.
func (c *Config) Dir() string { return c.opts.Dir }

// Open says whether the value at path still holds an unexpanded reference.
func (c *Config) Open(path string) bool { _, ok := c.open[path]; return ok }

// Warnings are findings that do not make the file wrong, each with its position.
func (c *Config) Warnings() Errors { return c.warnings }

// Pos returns line and column (from 1) of the value at path, or of its nearest
// ancestor that stands in the file.
func (c *Config) Pos(path string) (line, col int) {
	n := c.doc.Nearest(path)
	return n.Line, n.Col
}

// Errorf makes an error at the value at path, for checks that need more than
// this package: a filter that does not compile, a table that does not exist.
func (c *Config) Errorf(path, format string, args ...any) *Error {
	return c.doc.ErrorAt(c.doc.Nearest(path), path, fmt.Sprintf(format, args...), "")
}

// CheckRun checks what only a server needs: a data folder.
func (c *Config) CheckRun() error {
	if c.Data != "" || c.Open("data") {
		return nil
	}
	return Errors{c.doc.ErrorAt(c.doc.Root, "data", "data is missing", "name the folder of the log and the state: data: ./leat-data")}
}

// readRegular reads a regular file of at most limit bytes: a device or a pipe
// would block or never end.
func readRegular(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("open %s: larger than %s", path, Size(limit))
	}
	return b, nil
}
