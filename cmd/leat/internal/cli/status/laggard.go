package status

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// laggardNotes say that a subscription is behind, and what happens when retention gets there first.
func laggardNotes(l *leatv1.Laggard) []screen.Cell {
	text := l.GetStage()
	if l.GetWhy() != "" {
		text += ": " + l.GetWhy()
	}
	then := "; what retention takes is skipped and listed by leat parked (laggard: " + l.GetPolicy() + ")"
	switch l.GetStage() {
	case "", "live":
		return nil
	case "at risk":
		return []screen.Cell{{Text: "! " + text + then, Style: screen.Red}}
	case "expired":
		return []screen.Cell{{Text: "! " + text + then, Style: screen.Red}}
	}
	return []screen.Cell{{Text: "! " + text, Style: screen.Yellow}}
}

var diskTexts = map[string]string{
	"replays":  "the disk is full to 80 %: nothing is replayed; ends below 78 %",
	"laggards": "the disk is full to 90 %: the log grows no more, its oldest goes, also what subscriptions have not read; ends below 88 %",
	"reading":  "the disk is full to 95 %: the source is not read; ends below 93 %",
}

// diskNotes say what our own disk forbids.
func diskNotes(stage string) []screen.Cell {
	if stage == "" {
		return nil
	}
	text := diskTexts[stage]
	if text == "" {
		text = "the disk fills: " + stage
	}
	style := screen.Yellow
	if stage != "replays" {
		style = screen.Red
	}
	return []screen.Cell{{Text: "! " + text + "; free space, or lower log.retention.size and leat apply", Style: style}}
}

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
