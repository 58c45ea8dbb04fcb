package status

import (
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// oldXmin is from when on the age of a slot's catalog_xmin is shown in the line: below, every slot has some.
const oldXmin = 1_000_000

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
	if p.HeadroomBytes != nil {
		parts = append(parts, screen.Size(p.GetHeadroomBytes())+" more until it may be removed")
	}
	if s := p.GetWalStatus(); s != "" && s != "reserved" {
		parts = append(parts, "its WAL is "+s)
	}
	if n := p.GetCatalogXminAge(); n >= oldXmin {
		parts = append(parts, "vacuum of the catalogue kept back by "+screen.Count(n)+" transactions")
	}
	if e := p.GetBinlogExpiry(); e != nil && p.GetBinlogAge().AsDuration() > 0 {
		parts = append(parts, "the oldest unread is "+screen.Duration(p.GetBinlogAge().AsDuration())+" old and may go at "+screen.Duration(e.AsDuration()))
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
	Headroom       *uint64  `json:"headroom_bytes,omitempty"`
	WALStatus      string   `json:"wal_status,omitempty"`
	CatalogXmin    *uint64  `json:"catalog_xmin_age,omitempty"`
	BinlogAge      *float64 `json:"binlog_age_seconds,omitempty"`
	BinlogExpiry   *float64 `json:"binlog_expiry_seconds,omitempty"`
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
		ToDrain: shell.MaybeSeconds(p.TimeToDrain), Behind: p.BehindBytes, Headroom: p.HeadroomBytes, WALStatus: p.WalStatus,
		CatalogXmin: p.CatalogXminAge, BinlogAge: shell.MaybeSeconds(p.BinlogAge), BinlogExpiry: shell.MaybeSeconds(p.BinlogExpiry), ActiveSessions: p.ActiveSessions, ReplicaLag: shell.MaybeSeconds(p.ReplicaLag), Error: p.Error,
		SignalsError: p.SignalsError, SignalsCure: p.SignalsCure}
}
