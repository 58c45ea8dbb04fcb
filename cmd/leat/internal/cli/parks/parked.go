package parks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Parked is leat parked.
func Parked(app *shell.App) *cobra.Command {
	a := &commands{app}
	limit := uint32(100)
	cmd := &cobra.Command{
		Use:   "parked SUBSCRIPTION [EVENT-ID...]",
		Short: "Keys that are parked, events that were given up on, and why",
		Long: "Lists the parked keys of a subscription, oldest first: the event that it did not take and all later ones of\n" +
			"the key are held in the log until leat redrive or leat discard. Then its dead letters: events that were\n" +
			"given up on, with what was tried. With event ids: these, with their content. What was left out on\n" +
			"purpose (by a seek, by retention, by leat discard) is listed below.",
		Example:           "  leat parked search\n  leat parked search files-1877212358656123\n  leat parked search --json | jq '.dead[].id'",
		Args:              fault.Wants("SUBSCRIPTION", "[EVENT-ID...]"),
		ValidArgsFunction: a.Names(false, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.parked(cmd.Context(), args[0], args[1:], limit)
		},
	}
	cmd.Flags().Uint32VarP(&limit, "limit", "n", limit, "at most `N`")
	a.JSONFlag(cmd)
	return cmd
}

// The document of parked --json.
type parkedDoc struct {
	Parked []parkedKeyDoc `json:"parked"`
	Dead   []deadDoc      `json:"dead"`
	// Skipped stretches: [from, to) of offsets.
	Skipped []skippedDoc `json:"skipped,omitempty"`
}

type parkedKeyDoc struct {
	Key          json.RawMessage `json:"key"`
	Partitionkey json.RawMessage `json:"partitionkey"`
	First        string          `json:"first"`
	Held         uint64          `json:"held"`
	Attempts     uint32          `json:"attempts"`
	Reason       string          `json:"reason"`
	Since        *time.Time      `json:"since"`
	Redriving    bool            `json:"redriving,omitempty"`
}

type skippedDoc struct {
	From   uint64     `json:"from"`
	To     uint64     `json:"to"`
	Reason string     `json:"reason"`
	Time   *time.Time `json:"time"`
}

type deadDoc struct {
	ID       string             `json:"id"`
	Key      json.RawMessage    `json:"key"`
	Reason   string             `json:"reason"`
	Attempts []shell.AttemptDoc `json:"attempts"`
	Event    json.RawMessage    `json:"event,omitempty"` // when asked for by id
}

func (a *commands) parked(ctx context.Context, name string, ids []string, limit uint32) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := shell.Call(ctx, s, "parked "+name, s.Parked, &leatv1.ParkedRequest{Subscription: name, Limit: limit, Ids: ids})
	if err != nil {
		return err
	}
	if a.JSON {
		return a.Document(parkedDocument(r))
	}
	a.parkedKeys(name, r)
	if len(r.GetDead()) == 0 && (len(ids) == 0 || r.GetTotal() == 0) {
		a.Out.Printf("%s has no dead letters\n", screen.Clean(name))
		a.skipped(r)
		return nil
	}
	for _, id := range ids {
		if !slices.ContainsFunc(r.GetDead(), func(d *leatv1.DeadLetter) bool { return d.GetId() == id }) {
			a.Err.Printf("leat: %s has no dead letter %s\n", screen.Clean(name), screen.Clean(id))
			err = fault.Said(fault.Failed)
		}
	}
	if len(ids) > 0 {
		for _, d := range r.GetDead() {
			a.deadLetter(d)
		}
		return err
	}
	t := screen.NewTable("EVENT", "TABLE", "KEY", "SINCE", ">TRIES", "REASON")
	for _, d := range r.GetDead() {
		t.Row(screen.Text(d.GetId()), screen.Text(d.GetTable()), screen.Text(screen.Shorten(d.GetKey(), 40)), screen.Text(shell.Clock(d.GetTime())),
			screen.Text(fmt.Sprint(len(d.GetAttempts()))), screen.Cell{Text: screen.Shorten(d.GetReason(), 80), Style: screen.Red})
	}
	a.Out.Print(t)
	if n := uint64(len(r.GetDead())); r.GetTotal() > n {
		a.Out.Printf("%s of %s; see --limit\n", screen.Count(n), screen.Count(r.GetTotal()))
	}
	a.skipped(r)
	return nil
}

// parkedKeys lists keys that are held.
func (a *commands) parkedKeys(name string, r *leatv1.ParkedResponse) {
	if len(r.GetParked()) == 0 {
		return
	}
	held := ">HELD"
	if r.GetPartial() {
		held = ">HELD AT LEAST"
	}
	t := screen.NewTable("PARKED", "KEY", "FIRST EVENT", held, ">TRIES", "SINCE", "REASON")
	t.Spare("KEY", "SINCE")
	for _, p := range r.GetParked() {
		reason := screen.Cell{Text: screen.Shorten(p.GetReason(), 80), Style: screen.Red}
		if p.GetRedriving() {
			reason = screen.Cell{Text: "is being redriven", Style: screen.Yellow}
		}
		t.Row(screen.Cell{Text: screen.Shorten(p.GetPartitionkey(), 40), Style: screen.Bold}, screen.Text(screen.Shorten(p.GetKey(), 40)), screen.Text(p.GetFirst()),
			screen.Text(screen.Count(p.GetHeld())), screen.Text(screen.Count(p.GetAttempts())), screen.Text(shell.Clock(p.GetSince())), reason)
	}
	a.Out.Print(t)
	if n := uint64(len(r.GetParked())); r.GetParkedTotal() > n {
		a.Out.Printf("%s of %s; see --limit\n", screen.Count(n), screen.Count(r.GetParkedTotal()))
	}
	a.Out.Printf("%s\n\n", a.Out.Paint(screen.Dim, "→ leat redrive "+screen.Clean(name)+" --all delivers them again, in order; leat discard gives them up"))
}

// skipped lists what was left out on purpose.
func (a *commands) skipped(r *leatv1.ParkedResponse) {
	if len(r.GetSkipped()) == 0 {
		return
	}
	t := screen.NewTable("SKIPPED FROM", "TO", "SINCE", "REASON")
	for _, k := range r.GetSkipped() {
		t.Row(screen.Text(fmt.Sprint(k.GetFrom())), screen.Text(fmt.Sprint(k.GetTo())), screen.Text(shell.Clock(k.GetTime())), screen.Text(screen.Shorten(k.GetReason(), 80)))
	}
	a.Out.Print(t)
}

func (a *commands) deadLetter(d *leatv1.DeadLetter) {
	a.Out.Printf("%s  %s\n", a.Out.Paint(screen.Bold, screen.Clean(d.GetId())), a.Out.Paint(screen.Red, screen.Clean(d.GetReason())))
	a.Out.Pairs([2]string{"table", d.GetTable()}, [2]string{"key", d.GetKey()}, [2]string{"since", shell.Clock(d.GetTime())})
	for i, t := range d.GetAttempts() {
		a.Out.Printf("  %d. %s, %s: %s\n", i+1, shell.Clock(t.GetTime()), screen.Duration(t.GetTook().AsDuration()), screen.Clean(t.GetReason()))
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, d.GetEvent(), "  ", "  ") == nil && pretty.Len() > 0 {
		a.Out.Printf("  %s\n", screen.CleanLines(pretty.String()))
	}
}

func parkedDocument(r *leatv1.ParkedResponse) parkedDoc {
	doc := parkedDoc{Parked: []parkedKeyDoc{}, Dead: []deadDoc{}}
	for _, p := range r.GetParked() {
		doc.Parked = append(doc.Parked, parkedKeyDoc{shell.Object(p.GetKey()), shell.Object(p.GetPartitionkey()), p.GetFirst(), p.GetHeld(), p.GetAttempts(), p.GetReason(), shell.Moment(p.GetSince()), p.GetRedriving()})
	}
	for _, d := range r.GetDead() {
		one := deadDoc{ID: d.GetId(), Key: shell.Object(d.GetKey()), Reason: d.GetReason(), Attempts: shell.AttemptDocs(d.GetAttempts())}
		if json.Valid(d.GetEvent()) {
			one.Event = d.GetEvent()
		}
		doc.Dead = append(doc.Dead, one)
	}
	for _, k := range r.GetSkipped() {
		doc.Skipped = append(doc.Skipped, skippedDoc{k.GetFrom(), k.GetTo(), k.GetReason(), shell.Moment(k.GetTime())})
	}
	return doc
}
