package report

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// pressureOf says how a source's database fares and what is made of it.
func pressureOf(x engine.SourceStatus) *leatv1.SourcePressure {
	v, l := x.Verdict, x.Load
	p := &leatv1.SourcePressure{Reading: v.Reading, Snapshot: v.Snapshot, Replay: v.Replay, Why: v.Why, EndsWhen: v.End, Danger: v.Danger,
		TimeToLoss: known(v.ToLoss), TimeToDrain: known(v.ToDrain), ReplicaLag: known(l.ReplicaLag), Error: x.LoadError,
		WalStatus: l.Kept, HeadroomBytes: count(l.Headroom), CatalogXminAge: count(l.Xmin)}
	p.BehindBytes = count(l.Behind)
	if l.Expiry > 0 {
		p.BinlogAge, p.BinlogExpiry = known(l.Age), known(l.Expiry)
	}
	if l.Active >= 0 {
		n := uint32(l.Active)
		p.ActiveSessions = &n
	}
	for _, f := range l.Findings {
		if f.Code == "signal_table" {
			p.SignalsError, p.SignalsCure = f.Place+": "+f.What, f.Cure
		}
	}
	return p
}

// count is nil for pipeline.Unknown.
func count(n int64) *uint64 {
	if n < 0 {
		return nil
	}
	u := uint64(n)
	return &u
}

// known is nil for pipeline.Unknown.
func known(d time.Duration) *durationpb.Duration {
	if d < 0 {
		return nil
	}
	return durationpb.New(d)
}
