package status

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

type laggardDoc struct {
	Stage     string   `json:"stage"`
	Policy    string   `json:"policy"`
	Why       string   `json:"why,omitempty"`
	ToLoss    *float64 `json:"time_to_loss_seconds,omitempty"`
	ToCatchUp *float64 `json:"time_to_catch_up_seconds,omitempty"`
	Expired   uint64   `json:"expired_events"`
}

func laggardDocOf(l *leatv1.Laggard) *laggardDoc {
	if l == nil {
		return nil
	}
	return &laggardDoc{Stage: l.Stage, Policy: l.Policy, Why: l.Why, ToLoss: shell.MaybeSeconds(l.TimeToLoss), ToCatchUp: shell.MaybeSeconds(l.TimeToCatchUp), Expired: l.ExpiredEvents}
}
