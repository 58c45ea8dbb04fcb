package report

import (
	"time"

	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// laggardOf says how near a subscription is to what retention removes; nil while that is not known.
func laggardOf(x engine.SubscriptionStatus) *leatv1.Laggard {
	v := x.Lag
	if v.Since.IsZero() {
		return nil
	}
	l := &leatv1.Laggard{Stage: v.Stage.String(), Policy: x.Policy.String(), Why: v.Why, ExpiredEvents: x.Expired}
	if !v.Standing {
		l.TimeToCatchUp = known(v.ToCatchUp)
	}
	if v.ToLoss < forever {
		l.TimeToLoss = known(v.ToLoss)
	}
	return l
}

// forever is longer than anybody plans.
const forever = 10 * 365 * 24 * time.Hour

var diskStages = map[flow.DiskStage]string{flow.DiskReplays: "replays", flow.DiskLaggard: "laggards", flow.DiskStop: "reading"}

// DiskWarnings say what becomes of a full disk.
var DiskWarnings = map[flow.DiskStage]string{
	flow.DiskReplays: "the disk is full to 80 %: nothing is replayed until it is below 78 %",
	flow.DiskLaggard: "the disk is full to 90 %: the log grows no more, its oldest goes, also what subscriptions have not read, until it is below 88 %",
	flow.DiskStop:    "the disk is full to 95 %: reading has stopped, and the database keeps what is not read, until it is below 93 %",
}
