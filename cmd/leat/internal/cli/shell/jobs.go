package shell

import (
	"fmt"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Snapshot is the kind of jobs that read rows.
const Snapshot = "snapshot"

// JobDoc is a replay or a snapshot in a document.
type JobDoc struct {
	ID              string     `json:"id"`
	Subscription    string     `json:"subscription"`
	Kind            string     `json:"kind"`
	State           string     `json:"state"`
	Reason          string     `json:"reason,omitempty"`
	EndsWhen        string     `json:"ends_when,omitempty"`
	From            uint64     `json:"from"`
	To              uint64     `json:"to"`
	At              uint64     `json:"at"`
	Scope           string     `json:"scope,omitempty"`
	Done            uint64     `json:"done"`
	Total           uint64     `json:"total"`
	Dead            uint64     `json:"dead"`
	EventsPerSecond float64    `json:"events_per_second"`
	LeftSeconds     *float64   `json:"left_seconds"`
	Created         *time.Time `json:"created"`
	Ended           *time.Time `json:"ended"`
	Owner           string     `json:"owner"`
	// Of snapshots alone.
	Source string     `json:"source,omitempty"`
	Cause  string     `json:"cause,omitempty"`
	Where  string     `json:"where,omitempty"`
	Bytes  uint64     `json:"bytes,omitempty"`
	Tables []TableDoc `json:"tables,omitempty"`
}

// TableDoc is how far a snapshot is with a table.
type TableDoc struct {
	Table     string `json:"table"`
	Rows      uint64 `json:"rows"`
	Bytes     uint64 `json:"bytes"`
	Overtaken uint64 `json:"overtaken"`
	Estimate  uint64 `json:"estimate"`
	Done      bool   `json:"done"`
	Whole     bool   `json:"whole,omitempty"`
	Fault     string `json:"fault,omitempty"`
	Cure      string `json:"cure,omitempty"`
}

// JobDocs are never null.
func JobDocs(all []*leatv1.Job) []JobDoc {
	out := []JobDoc{}
	for _, j := range all {
		out = append(out, JobDoc{j.GetId(), j.GetSubscription(), j.GetKind(), j.GetState(), j.GetReason(), j.GetEndsWhen(), j.GetFrom(), j.GetTo(), j.GetAt(), j.GetScope(),
			j.GetDone(), j.GetTotal(), j.GetDead(), j.GetEventsPerSecond(), MaybeSeconds(j.GetLeft()), Moment(j.GetCreated()), Moment(j.GetEnded()), j.GetOwner(),
			j.GetSource(), j.GetCause(), j.GetWhere(), j.GetBytes(), tableDocs(j)})
	}
	return out
}

func tableDocs(j *leatv1.Job) (out []TableDoc) {
	for _, t := range j.GetTables() {
		out = append(out, TableDoc{t.GetTable(), t.GetRows(), t.GetBytes(), t.GetOvertaken(), t.GetEstimate(), t.GetDone(), t.GetWhole(), t.GetFault(), t.GetCure()})
	}
	return out
}

// Faults are the tables of a snapshot that could not be read, why, and what to do, a line each.
func Faults(j *leatv1.Job) (lines []string) {
	for _, t := range j.GetTables() {
		if t.GetFault() == "" {
			continue
		}
		line := t.GetTable() + ": " + t.GetFault()
		if t.GetCure() != "" {
			line += "; " + t.GetCure()
		}
		lines = append(lines, line)
	}
	return lines
}

// shownTables of a snapshot that is under way are told one by one.
const shownTables = 8

// TableNotes say of a snapshot what of its tables there is to know: faults, what is read now, and how many wait.
func TableNotes(j *leatv1.Job) (notes []screen.Cell) {
	for _, f := range Faults(j) {
		notes = append(notes, screen.Cell{Text: "! " + f, Style: screen.Red})
	}
	ended := j.GetEnded() != nil
	var done, waiting, shown int
	for _, t := range j.GetTables() {
		switch {
		case t.GetFault() != "":
		case t.GetDone():
			done++
		case ended || t.GetRows() == 0 || shown == shownTables:
			waiting++
		default:
			shown++
			text := "  " + t.GetTable() + ": " + Count(t.GetRows(), t.GetEstimate())
			if t.GetWhole() {
				text += ", read at once: the source's stream waits meanwhile"
			}
			notes = append(notes, screen.Cell{Text: text, Style: screen.Dim})
		}
	}
	if n := len(j.GetTables()); n > 1 {
		notes = append(notes, screen.Cell{Text: fmt.Sprintf("  %d of %d tables done", done, n), Style: screen.Dim})
	}
	return notes
}

// Whose is the subscription of a job, or the source whose subscriptions all get it.
func Whose(j *leatv1.Job) string {
	if j.GetKind() == Snapshot && j.GetSubscription() == "" {
		return "all of " + j.GetSource()
	}
	return j.GetSubscription()
}

// AtOnce is the table that a snapshot reads at once now; empty: none.
func AtOnce(j *leatv1.Job) string {
	for _, t := range j.GetTables() {
		if t.GetWhole() && t.GetRows() > 0 && !t.GetDone() && t.GetFault() == "" {
			return t.GetTable()
		}
	}
	return ""
}

// Count is "1,200 of about 9,000 rows".
func Count(done, total uint64) string {
	if total == 0 {
		return screen.Plural(done, "row")
	}
	return screen.Count(done) + " of about " + screen.Plural(max(done, total), "row")
}

// JobStyle of a job's state.
func JobStyle(state string) screen.Style {
	switch state {
	case "running", "done":
		return screen.Green
	case "failed":
		return screen.Red
	}
	return screen.Yellow
}

// Percent is how much of a job is done; the number of events where the total is not known.
func Percent(j *leatv1.Job) string {
	if j.GetTotal() == 0 {
		return screen.Count(j.GetDone())
	}
	return fmt.Sprintf("%.0f %%", 100*min(1, float64(j.GetDone())/float64(j.GetTotal())))
}
