package status

import (
	"fmt"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// nearLoss is the time to loss from which on status shows it.
const nearLoss = time.Hour

// pressureNotes say that a source is slowed, why and until when, and that loss is near.
func pressureNotes(p *leatv1.SourcePressure) []screen.Cell {
	var out []screen.Cell
	if p.GetWhy() != "" {
		text := fmt.Sprintf("! the log is read at %.0f %%, snapshots at %.0f %%, replays at %.0f %%: %s", 100*p.GetReading(), 100*p.GetSnapshot(), 100*p.GetReplay(), p.GetWhy())
		if p.GetEndsWhen() != "" {
			text += "; ends when " + p.GetEndsWhen()
		}
		out = append(out, screen.Cell{Text: text, Style: screen.Yellow})
	}
	if d := p.GetTimeToLoss(); d != nil && (p.GetDanger() || d.AsDuration() < nearLoss) {
		text := fmt.Sprintf("! the database may remove what is not read in %v", d.AsDuration().Round(time.Second))
		if drain := p.GetTimeToDrain(); drain != nil {
			text += fmt.Sprintf("; reading it takes about %v", drain.AsDuration().Round(time.Second))
		}
		out = append(out, screen.Cell{Text: text, Style: screen.Red})
	}
	return out
}

type pressureDoc struct {
	Reading        float64  `json:"reading"`
	Snapshot       float64  `json:"snapshot"`
	Replay         float64  `json:"replay"`
	Why            string   `json:"why,omitempty"`
	EndsWhen       string   `json:"ends_when,omitempty"`
	Danger         bool     `json:"danger,omitempty"`
	ToLoss         *float64 `json:"time_to_loss_seconds,omitempty"`
	ToDrain        *float64 `json:"time_to_drain_seconds,omitempty"`
	Behind         *uint64  `json:"behind_bytes,omitempty"`
	ActiveSessions *uint32  `json:"active_sessions,omitempty"`
	ReplicaLag     *float64 `json:"replica_lag_seconds,omitempty"`
	Error          string   `json:"error,omitempty"`
}

func pressureDocOf(p *leatv1.SourcePressure) *pressureDoc {
	if p == nil {
		return nil
	}
	return &pressureDoc{Reading: p.Reading, Snapshot: p.Snapshot, Replay: p.Replay, Why: p.Why, EndsWhen: p.EndsWhen, Danger: p.Danger, ToLoss: shell.MaybeSeconds(p.TimeToLoss),
		ToDrain: shell.MaybeSeconds(p.TimeToDrain), Behind: p.BehindBytes, ActiveSessions: p.ActiveSessions, ReplicaLag: shell.MaybeSeconds(p.ReplicaLag), Error: p.Error}
}
