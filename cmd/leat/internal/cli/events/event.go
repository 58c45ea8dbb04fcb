package events

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
)

// cloudEvent is what a line for people shows of an event.
type cloudEvent struct {
	ID   string    `json:"id"`
	Type string    `json:"type"`
	Time time.Time `json:"time"`
	// Error instead of the rest: it cannot be shown, and why.
	Error string `json:"error"`
	Data  struct {
		Op        string          `json:"op"`
		Table     string          `json:"table"`
		Key       json.RawMessage `json:"key"`
		Before    json.RawMessage `json:"before"`
		After     json.RawMessage `json:"after"`
		KeyChange bool            `json:"key_change"`
		Prefix    string          `json:"prefix"`
		Content   json.RawMessage `json:"content"`
		Statement string          `json:"statement"`
		Resolved  string          `json:"resolved"`
	} `json:"data"`
}

const (
	valueWidth = 60
	lineWidth  = 400
)

// Print prints one event in a line: time, op, table, key, what is in it. The time is that of the commit, UTC.
func Print(a *shell.App, raw []byte) {
	var e cloudEvent
	if err := json.Unmarshal(raw, &e); err != nil {
		a.Out.Printf("%s\n", screen.Clean(string(raw)))
		return
	}
	if e.Error != "" {
		a.Out.Printf("%s  %s\n", a.Out.Paint(screen.Bold, screen.Clean(e.ID)), a.Out.Paint(screen.Red, screen.Clean(e.Error)))
		return
	}
	op := strings.TrimPrefix(e.Type, "leat.")
	style := map[string]screen.Style{"insert": screen.Green, "snapshot": screen.Green, "update": screen.Yellow, "delete": screen.Red}[op]
	key := ""
	if len(e.Data.Key) > 0 && string(e.Data.Key) != "null" {
		key = string(e.Data.Key)
	}
	rest := ""
	switch op {
	case "update":
		rest = changed(e.Data.Before, e.Data.After)
	case "insert", "snapshot":
		rest = row(e.Data.After)
	case "delete":
		rest = row(e.Data.Before)
	case "message":
		rest = e.Data.Prefix + " " + value(e.Data.Content)
	case "schema":
		rest = e.Data.Statement
	case "resolved":
		rest = e.Data.Resolved
	}
	if e.Data.KeyChange {
		rest = "(key change) " + rest
	}
	at := ""
	if !e.Time.IsZero() {
		at = e.Time.UTC().Format("15:04:05.000")
	}
	a.Out.Printf("%s  %s  %s  %s  %s\n", a.Out.Paint(screen.Dim, at), a.Out.Paint(style, screen.Pad(op, 8)),
		screen.Clean(e.Data.Table), a.Out.Paint(screen.Bold, screen.Clean(key)), screen.Shorten(screen.Clean(rest), lineWidth))
}

// column is one of a row, in the row's order.
type column struct {
	name string
	raw  json.RawMessage
}

// columns splits a JSON object; its order is that of the table, which a map would lose.
func columns(object json.RawMessage) []column {
	dec := json.NewDecoder(bytes.NewReader(object))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	var out []column
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		var raw json.RawMessage
		if err != nil || !ok || dec.Decode(&raw) != nil {
			return out
		}
		out = append(out, column{name, raw})
	}
	return out
}

func row(object json.RawMessage) string {
	var parts []string
	for _, c := range columns(object) {
		parts = append(parts, c.name+"="+value(c.raw))
	}
	return strings.Join(parts, " ")
}

// changed shows the columns that differ; all of the row after where the row before is not known.
func changed(before, after json.RawMessage) string {
	old := map[string]json.RawMessage{}
	for _, c := range columns(before) {
		old[c.name] = c.raw
	}
	if len(old) == 0 {
		return row(after)
	}
	var parts []string
	for _, c := range columns(after) {
		was, known := old[c.name]
		switch {
		case !known:
			parts = append(parts, c.name+"="+value(c.raw))
		case !bytes.Equal(was, c.raw):
			parts = append(parts, c.name+"="+value(was)+"→"+value(c.raw))
		}
	}
	return strings.Join(parts, " ")
}

func value(raw json.RawMessage) string { return screen.Shorten(string(raw), valueWidth) }
