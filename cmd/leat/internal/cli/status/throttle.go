package status

import (
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/cmd/leat/internal/waits"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Throttle says it in words: throttled to 25 % (ops): index rebuild; ends in 2 h.
func Throttle(t *leatv1.ThrottleState, now time.Time) string {
	text := waits.Throttle(t)
	if u := t.GetUntil(); u != nil {
		text += "; ends in " + screen.Duration(max(0, u.AsTime().Sub(now)))
	}
	return text
}

// ThrottleDoc is a throttle in a document.
type ThrottleDoc struct {
	Ratio  float64    `json:"ratio"`
	Reason string     `json:"reason,omitempty"`
	Owner  string     `json:"owner"`
	Since  *time.Time `json:"since"`
	Until  *time.Time `json:"until"`
}

// ThrottleDocs are those of a source or subscription, never null.
func ThrottleDocs(list []*leatv1.ThrottleState) []ThrottleDoc {
	out := []ThrottleDoc{}
	for _, t := range list {
		out = append(out, ThrottleDoc{t.GetRatio(), t.GetReason(), t.GetOwner(), shell.Moment(t.GetSince()), shell.Moment(t.GetUntil())})
	}
	return out
}
