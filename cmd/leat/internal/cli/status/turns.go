package status

import (
	"fmt"
	"strings"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// turnsText says how long Deliveries waited for CPU since before, or since the start; empty when none did.
func turnsText(before, now []*leatv1.PriorityTurns) string {
	var parts []string
	for _, t := range now {
		taken, waited, wait := t.GetTaken(), t.GetWaited(), t.GetWait().AsDuration()
		for _, b := range before {
			if b.GetPriority() == t.GetPriority() && b.GetTaken() <= taken && b.GetWaited() <= waited {
				taken, waited, wait = taken-b.GetTaken(), waited-b.GetWaited(), wait-b.GetWait().AsDuration()
			}
		}
		if waited > 0 && taken > 0 {
			parts = append(parts, fmt.Sprintf("%s %.0f %% for %s", screen.Clean(t.GetPriority()), 100*float64(waited)/float64(taken),
				screen.Duration(wait/time.Duration(waited))))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "Deliveries wait for CPU: " + strings.Join(parts, ", ")
}
