package shell

import (
	"encoding/json"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// NoticeDoc is a notice of a source in a document.
type NoticeDoc struct {
	Kind     string     `json:"kind"`
	Code     string     `json:"code,omitempty"`
	Table    string     `json:"table"`
	Position string     `json:"position,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Cure     string     `json:"cure,omitempty"`
	Time     *time.Time `json:"time"`
}

// AttemptDoc is an attempt at a delivery in a document.
type AttemptDoc struct {
	Time        *time.Time `json:"time"`
	TookSeconds float64    `json:"took_seconds"`
	Reason      string     `json:"reason"`
}

// AttemptDocs are those of an event, never null.
func AttemptDocs(list []*leatv1.Attempt) []AttemptDoc {
	out := []AttemptDoc{}
	for _, t := range list {
		out = append(out, AttemptDoc{Moment(t.GetTime()), Seconds(t.GetTook().AsDuration()), t.GetReason()})
	}
	return out
}

// Seconds of a span in a document.
func Seconds(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }

// MaybeSeconds is null where there is no span.
func MaybeSeconds(d *durationpb.Duration) *float64 {
	if d == nil {
		return nil
	}
	s := d.AsDuration().Seconds()
	return &s
}

// Object is raw JSON, null where there is none or it is broken.
func Object(text string) json.RawMessage {
	if !json.Valid([]byte(text)) {
		return json.RawMessage("null")
	}
	return json.RawMessage(text)
}

// Place reads an offset, an event id or a time.
func Place(text string) (offset uint64, at time.Time, err error) {
	if fault.IsDigits(text) {
		offset, err = parseUint(text)
		return offset, at, err
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return 0, t, nil
	}
	return EventOffset(text)
}

// EventOffset is the offset in an event's id; it has the form of [Place].
func EventOffset(id string) (uint64, time.Time, error) {
	_, o, err := pipeline.ParseEventID(id)
	return uint64(o), time.Time{}, err
}

func parseUint(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }
