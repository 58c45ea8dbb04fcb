// Package lint holds the import policy of the project as data; its test reads it.
package lint

// Rule allows the packages under Of to import the packages under May, and no others of this module.
// The longest Of that is a prefix of a package is its rule. A package may always
// import the part it stands in (pipeline/record and below).
type Rule struct {
	Of  string
	May []string
	Why string
}

// Policy: imports point down four floors and never up. "." means the package itself without its children.
var Policy = []Rule{
	{"schemas", nil, "floor 1: the words for shapes import the standard library only"},
	{"schemas/cell", []string{"schemas/."}, "typed values know shapes, nothing else"},
	{"schemas/change", []string{"schemas/."}, "compares shapes, whoever asks"},
	{"schemas/shape", []string{"schemas/."}, "describes rows for others, whoever writes them"},
	{"schemas/registry", []string{"schemas/shape"}, "keeps texts of schemas, whatever tables they are of"},
	{"schemas/envelope", nil, "generated code stands alone"},
	{"pipeline/.", []string{"schemas"}, "floor 2: words and seams import no machinery"},
	{"pipeline/partition", []string{"pipeline/.", "schemas"}, "pure: imports none of its siblings"},
	{"pipeline/record", []string{"pipeline/.", "schemas"}, "pure: imports none of its siblings"},
	{"pipeline/disklog", []string{"pipeline/.", "schemas", "pipeline/record"}, "a log knows its record format, not who writes or reads it"},
	{"pipeline/flow", []string{"pipeline/.", "schemas"}, "pure: how fast to go, whatever goes"},
	{"pipeline/sched", []string{"pipeline/.", "schemas"}, "pure: who goes next, whatever goes"},
	{"pipeline/filter", []string{"pipeline/.", "schemas"}, "compiles to a func over a row, whoever calls it"},
	{"pipeline/selection", []string{"pipeline/.", "schemas", "pipeline/filter"}, "picks events, whatever becomes of them"},
	{"pipeline/state", []string{"pipeline/.", "schemas"}, "a store knows no machinery"},
	{"pipeline/backfill", []string{"pipeline/.", "schemas"}, "knows streams and logs by their seams, not who opens them"},
	{"pipeline/ingest", []string{"pipeline/.", "schemas", "pipeline/partition"}, "ingest and deliver meet only in the log"},
	{"pipeline/deliver", []string{"pipeline/.", "schemas", "pipeline/flow", "pipeline/sched", "pipeline/partition", "pipeline/filter", "pipeline/selection", "pipeline/record", "pipeline/state"}, "ingest and deliver meet only in the log, whose format copies of held events have"},
	{"pipeline/engine", []string{"pipeline", "schemas"}, "owns the goroutines, so it may know every part of the pipeline"},
	{"pipeline/pipetest", []string{"pipeline/.", "schemas"}, "fakes and suites know the seams only"},
	{"sources", []string{"pipeline/.", "schemas", "sources/snapshot"}, "floor 3: a source knows the seams, and what snapshots ask of it"},
	{"sinks", []string{"pipeline/.", "schemas", "sinks/encode"}, "floor 3: a sink knows the seams and the encoders"},
	{"sinks/gate", []string{"pipeline/.", "schemas", "sinks/encode"}, "stands before a sink, whichever"},
	{"cmd/leat", []string{"schemas", "pipeline", "sources", "sinks", "clients/typescript", "internal/servers", "cmd/leat"}, "floor 4: puts the parts together"},
	{"internal/servers", []string{"internal/servers"}, "throw-away databases for tests, demo and bench know nothing of Leat"},
	{"clients/typescript", []string{"schemas/."}, "writes the types of shapes, whoever asks"},
	{"client", []string{"schemas/envelope"}, "what subscribers import knows the protocol only"},
	{"docs", []string{"schemas", "pipeline", "sources", "sinks"}, "tests that keep the pages true"},
	{"bench", []string{"bench", "schemas", "pipeline", "sources", "sinks", "internal/servers", "cmd/leat"}, "measures from outside"},
}

// Within narrows what packages of one part may import of that part; who is not named may import all of it.
// The longest Of is the rule.
var Within = []Rule{
	{"cmd/leat/internal/config", []string{"cmd/leat/internal/config"}, "the file knows nothing of who reads it"},
	{"cmd/leat/internal/api", []string{"cmd/leat/internal/config"}, "the API knows its Backend only"},
	{"cmd/leat/internal/parts", []string{"cmd/leat/internal/config"}, "makes what the file names, whoever runs it"},
	{"cmd/leat/internal/check", []string{"cmd/leat/internal/config", "cmd/leat/internal/parts"}, "looks before anything runs"},
	{"cmd/leat/internal/views", []string{"cmd/leat/internal/api", "cmd/leat/internal/config", "cmd/leat/internal/parts", "cmd/leat/internal/scans"}, "looks into logs, whoever asks"},
	{"cmd/leat/internal/parked", []string{"cmd/leat/internal/api", "cmd/leat/internal/views"}, "names events by looking at them"},
	{"cmd/leat/internal/explain", []string{"cmd/leat/internal/api", "cmd/leat/internal/parked", "cmd/leat/internal/views"}, "tells of events, also of parked ones"},
	{"cmd/leat/internal/verify", nil, "compares, whoever asks"},
	{"cmd/leat/internal/rebuilds", nil, "moves aliases, whoever asked for it"},
	{"cmd/leat/internal/replays", []string{"cmd/leat/internal/api"}, "puts the API's words into the engine's"},
	{"cmd/leat/internal/throttles", []string{"cmd/leat/internal/config"}, "kept by name, whatever runs under it"},
	{"cmd/leat/internal/report", []string{"cmd/leat/internal/config"}, "tells what it observed, whoever asks"},
	{"cmd/leat/internal/demo/workload", nil, "changes rows, whatever reads them"},
	{"cmd/leat/internal/scans", nil, "reads logs, whoever asks"},
	{"cmd/leat/internal/waits", nil, "puts a status in words, wherever it is shown"},
	{"cmd/leat/internal/cli", []string{"cmd/leat/internal/cli", "cmd/leat/internal/config"}, "commands reach the program by Deps, the server by the API"},
	{"cmd/leat/internal/cli/screen", nil, "writes for people, whatever it is"},
	{"cmd/leat/internal/cli/fault", []string{"cmd/leat/internal/cli/screen", "cmd/leat/internal/config"}, "what goes wrong is below what may go wrong"},
	{"cmd/leat/internal/cli/shell", []string{"cmd/leat/internal/cli/screen", "cmd/leat/internal/cli/fault", "cmd/leat/internal/config"}, "what every command stands in knows no command"},
	{"cmd/leat/internal/cli/status", append(cliFloor, "cmd/leat/internal/waits"), "says of a throttle what the server says"},
	{"cmd/leat/internal/cli/events", cliFloor, "commands share the shell"},
	{"cmd/leat/internal/cli/install", cliFloor, "commands share the shell"},
	{"cmd/leat/internal/cli/verify", cliFloor, "commands share the shell"},
	{"cmd/leat/internal/cli/parks", cliFloor, "commands share the shell"},
	{"cmd/leat/internal/cli/replays", cliFloor, "commands share the shell"},
	{"cmd/leat/internal/cli/logs", append(cliFloor, "cmd/leat/internal/cli/events"), "prints the log's events as leat tail does"},
	{"cmd/leat/internal/cli/operate", append(cliFloor, "cmd/leat/internal/cli/status"), "says of a throttle what status says"},
}

// cliFloor is what stands below the commands.
var cliFloor = []string{"cmd/leat/internal/cli/screen", "cmd/leat/internal/cli/fault", "cmd/leat/internal/cli/shell", "cmd/leat/internal/config"}

// Only says who alone may import a package.
var Only = map[string][]string{
	"pipeline/engine":  {"cmd/leat", "bench"},
	"internal/servers": {"cmd/leat", "bench", "internal/servers"},
}

// Banned are imports of other modules, by the folders where they may not stand.
var Banned = map[string][]string{
	"pipeline":  {"net/http", "github.com/prometheus/", "github.com/goccy/go-yaml", "github.com/rs/zerolog", "github.com/spf13/"},
	"schemas/.": {"github.com/", "golang.org/", "google.golang.org/"},
	"sources":   {"github.com/prometheus/", "github.com/goccy/go-yaml", "github.com/rs/zerolog"},
	"sinks":     {"github.com/prometheus/", "github.com/goccy/go-yaml", "github.com/rs/zerolog"},
}

// BannedNames are package names that say nothing.
var BannedNames = []string{"util", "utils", "common", "helper", "helpers", "model", "models", "types", "misc"}
