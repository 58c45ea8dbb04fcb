package shell

import (
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/pipeline"
)

// JSONFlag is --json of every command that reads.
func (a *App) JSONFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.JSON, "json", false, "one JSON document")
}

// Document prints v as one JSON document.
func (a *App) Document(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Moment is a time in a document: RFC 3339, null where there is none.
func Moment(t *timestamppb.Timestamp) *time.Time {
	if t == nil || t.AsTime().Unix() == 0 {
		return nil
	}
	at := t.AsTime().UTC()
	return &at
}

// Clock is a time in a text.
func Clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return screen.Time(t.AsTime())
}

// Findings prints findings and counts the errors among them.
func (a *App) Findings(s *screen.Screen, findings []pipeline.Finding) (bad int) {
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
		s.Printf("%s %s%s\n", s.Paint(style, screen.Pad(f.Level, 7)), place, screen.Clean(f.What))
		if f.Cure != "" {
			s.Printf("%s %s\n", screen.Pad("", 7), s.Paint(screen.Dim, "→ "+screen.Clean(f.Cure)))
		}
	}
	return bad
}
