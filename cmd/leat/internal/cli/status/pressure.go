package status

import (
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Pressure is how a source's database fares, in a line; empty where nothing is known.
func Pressure(p *leatv1.SourcePressure) string {
	var parts []string
	if p == nil {
		return ""
	}
	if p.ActiveSessions != nil {
		parts = append(parts, screen.Plural(p.GetActiveSessions(), "session")+" at work")
	}
	if p.BehindBytes != nil {
		text := screen.Size(p.GetBehindBytes()) + " not read"
		if d := p.GetTimeToDrain(); d != nil && p.GetBehindBytes() > 0 {
			text += ", about " + screen.Duration(d.AsDuration())
		}
		parts = append(parts, text)
	}
	if d := p.GetReplicaLag(); d != nil {
		parts = append(parts, "its replica "+screen.Duration(d.AsDuration())+" behind")
	}
	if d := p.GetTimeToLoss(); d != nil {
		parts = append(parts, "loss in "+screen.Duration(d.AsDuration()))
	}
	if p.GetError() != "" {
		parts = append(parts, "its load is not known: "+p.GetError())
	}
	return strings.Join(parts, "; ")
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
	SignalsError   string   `json:"signals_error,omitempty"`
	SignalsCure    string   `json:"signals_cure,omitempty"`
}

func pressureDocOf(p *leatv1.SourcePressure) *pressureDoc {
	if p == nil {
		return nil
	}
	return &pressureDoc{Reading: p.Reading, Snapshot: p.Snapshot, Replay: p.Replay, Why: p.Why, EndsWhen: p.EndsWhen, Danger: p.Danger, ToLoss: shell.MaybeSeconds(p.TimeToLoss),
		ToDrain: shell.MaybeSeconds(p.TimeToDrain), Behind: p.BehindBytes, ActiveSessions: p.ActiveSessions, ReplicaLag: shell.MaybeSeconds(p.ReplicaLag), Error: p.Error,
		SignalsError: p.SignalsError, SignalsCure: p.SignalsCure}
}
