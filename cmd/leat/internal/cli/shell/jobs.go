package shell

import (
	"fmt"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// JobDoc is a replay in a document.
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
}

// JobDocs are never null.
func JobDocs(all []*leatv1.Job) []JobDoc {
	out := []JobDoc{}
	for _, j := range all {
		out = append(out, JobDoc{j.GetId(), j.GetSubscription(), j.GetKind(), j.GetState(), j.GetReason(), j.GetEndsWhen(), j.GetFrom(), j.GetTo(), j.GetAt(), j.GetScope(),
			j.GetDone(), j.GetTotal(), j.GetDead(), j.GetEventsPerSecond(), MaybeSeconds(j.GetLeft()), Moment(j.GetCreated()), Moment(j.GetEnded()), j.GetOwner()})
	}
	return out
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
