package cli

import (
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/pipeline"
)

// jsonFlag is --json of every command that reads.
func (a *app) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.asJSON, "json", false, "one JSON document")
}

// document prints v as one JSON document.
func (a *app) document(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// moment is a time in a document: RFC 3339, null where there is none.
func moment(t *timestamppb.Timestamp) *time.Time {
	if t == nil || t.AsTime().Unix() == 0 {
		return nil
	}
	at := t.AsTime().UTC()
	return &at
}

// clock is a time in a text.
func clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return screen.Time(t.AsTime())
}

// report prints findings and counts the errors among them.
func (a *app) report(s *screen.Screen, findings []pipeline.Finding) (bad int) {
	for _, f := range findings {
		style := screen.Cyan
		switch f.Level {
		case "error":
			style = screen.Red
			bad++
		case "warning":
			style = screen.Yellow
		}
		place := screen.Clean(f.Place)
		if place != "" {
			place += ": "
		}
		s.Printf("%s %s%s\n", s.Paint(style, pad(f.Level, 7)), place, screen.Clean(f.What))
		if f.Cure != "" {
			s.Printf("%s %s\n", pad("", 7), s.Paint(screen.Dim, "→ "+screen.Clean(f.Cure)))
		}
	}
	return bad
}

func pad(s string, n int) string {
	for len(s) < n {
		s += " "
	}
	return s
}
