package status

import (
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// The documents of status --json. Fields are only ever added: scripts read them. Offsets are numbers (a
// log's are below 2⁵³ until the year 2242), spans are seconds, moments RFC 3339 or null.

type statusDoc struct {
	Version       string            `json:"version"`
	Started       *time.Time        `json:"started"`
	MemoryBudget  uint64            `json:"memory_budget_bytes"`
	MemoryUsed    uint64            `json:"memory_used_bytes"`
	Sources       []sourceDoc       `json:"sources"`
	Subscriptions []subscriptionDoc `json:"subscriptions"`
	// Turns of Deliveries by priority; only of those that some have.
	Turns []turnsDoc `json:"turns,omitempty"`
}

type turnsDoc struct {
	Priority    string  `json:"priority"`
	Taken       uint64  `json:"taken"`
	Waited      uint64  `json:"waited"`
	WaitSeconds float64 `json:"wait_seconds"`
}

type sourceDoc struct {
	Name            string            `json:"name"`
	Kind            string            `json:"kind"`
	State           string            `json:"state"`
	Reason          string            `json:"reason,omitempty"`
	Code            string            `json:"code,omitempty"`
	Since           *time.Time        `json:"since"`
	Position        string            `json:"position"`
	LagSeconds      float64           `json:"lag_seconds"`
	EventsPerSecond float64           `json:"events_per_second"`
	BytesPerSecond  float64           `json:"bytes_per_second"`
	LogID           string            `json:"log_id"`
	LogBytes        uint64            `json:"log_bytes"`
	LogFull         bool              `json:"log_full"`
	Oldest          uint64            `json:"oldest"`
	Next            uint64            `json:"next"`
	Tables          uint32            `json:"tables"`
	Notices         []shell.NoticeDoc `json:"notices"`
	// Throttles in force; only when there are some.
	Throttles []ThrottleDoc `json:"throttles,omitempty"`
	// What waits, the worst first; only when something does.
	Waits []waitDoc `json:"waits,omitempty"`
	// How the database fares.
	Pressure *pressureDoc `json:"pressure,omitempty"`
	// What our own disk, which fills, forbids: replays, laggards, reading.
	Disk string `json:"disk,omitempty"`
	// Snapshots that have not ended, as jobs --json has them.
	Snapshots []shell.JobDoc `json:"snapshots,omitempty"`
}

type subscriptionDoc struct {
	Name            string     `json:"name"`
	Source          string     `json:"source"`
	Kind            string     `json:"kind"`
	State           string     `json:"state"`
	Reason          string     `json:"reason,omitempty"`
	Until           *time.Time `json:"until"`
	LagEvents       uint64     `json:"lag_events"`
	LagBytes        uint64     `json:"lag_bytes"`
	LagSeconds      float64    `json:"lag_seconds"`
	EventsPerSecond float64    `json:"events_per_second"`
	Low             uint64     `json:"low"`
	Persisted       uint64     `json:"persisted"`
	Read            uint64     `json:"read"`
	Next            uint64     `json:"next"`
	Resolved        uint64     `json:"resolved"`
	InFlight        uint32     `json:"in_flight"`
	Open            uint32     `json:"open"`
	Held            uint32     `json:"held"`
	BufferedBytes   uint64     `json:"buffered_bytes"`
	Delivered       uint64     `json:"delivered"`
	Failed          uint64     `json:"failed"`
	Dead            uint64     `json:"dead"`
	Parked          uint64     `json:"parked"`
	SaveError       string     `json:"save_error,omitempty"`
	// Throttles in force; only when there are some.
	Throttles []ThrottleDoc `json:"throttles,omitempty"`
	// How near it is to what retention removes.
	Laggard *laggardDoc `json:"laggard,omitempty"`
	// What waits, the worst first; only when something does.
	Waits []waitDoc `json:"waits,omitempty"`
	// Deliveries that may be in flight, their rate (0: no bound), and why that is less than configured.
	Limit       uint32  `json:"limit"`
	MaxInFlight uint32  `json:"max_in_flight"`
	Pace        float64 `json:"pace"`
	Flow        string  `json:"flow,omitempty"`
	// Of each range, where a space was ever split.
	Lanes []laneDoc `json:"lanes,omitempty"`
	// Of a webhook.
	Hosts      []hostDoc `json:"hosts,omitempty"`
	HostsPanic bool      `json:"hosts_panic,omitempty"`
}

type waitDoc struct {
	Level    string     `json:"level"`
	Kind     string     `json:"kind"`
	Reason   string     `json:"reason"`
	EndsWhen string     `json:"ends_when"`
	Until    *time.Time `json:"until"`
}

type laneDoc struct {
	Space      string   `json:"space"`
	Range      uint64   `json:"range"`
	Low        uint64   `json:"low"`
	Open       uint32   `json:"open"`
	Parked     uint32   `json:"parked"`
	LagSeconds *float64 `json:"lag_seconds"`
	PausedFrom uint64   `json:"paused_from,omitempty"`
}

type hostDoc struct {
	Name     string     `json:"name"`
	Rank     uint32     `json:"rank"`
	Requests uint64     `json:"requests"`
	UnderWay uint32     `json:"under_way"`
	Ejected  bool       `json:"ejected"`
	Reason   string     `json:"reason,omitempty"`
	Until    *time.Time `json:"until"`
}

func waitDocs(all []*leatv1.Wait) (out []waitDoc) {
	for _, w := range all {
		out = append(out, waitDoc{w.GetLevel(), w.GetKind(), w.GetReason(), w.GetEndsWhen(), shell.Moment(w.GetUntil())})
	}
	return out
}

func laneDocs(all []*leatv1.Lane) (out []laneDoc) {
	for _, l := range all {
		out = append(out, laneDoc{l.GetSpace(), l.GetRange(), l.GetLow(), l.GetOpen(), l.GetParked(), shell.MaybeSeconds(l.GetLag()), l.GetPausedFrom()})
	}
	return out
}

func hostDocs(all []*leatv1.Host) (out []hostDoc) {
	for _, h := range all {
		out = append(out, hostDoc{h.GetName(), h.GetRank(), h.GetRequests(), h.GetUnderWay(), h.GetEjected(), h.GetReason(), shell.Moment(h.GetUntil())})
	}
	return out
}

func statusDocument(r *leatv1.StatusResponse) statusDoc {
	d := statusDoc{Version: r.GetVersion(), Started: shell.Moment(r.GetStarted()), MemoryBudget: r.GetMemoryBudget(), MemoryUsed: r.GetMemoryUsed(),
		Sources: []sourceDoc{}, Subscriptions: []subscriptionDoc{}}
	for _, t := range r.GetTurns() {
		if t.GetTaken() > 0 {
			d.Turns = append(d.Turns, turnsDoc{t.GetPriority(), t.GetTaken(), t.GetWaited(), t.GetWait().AsDuration().Seconds()})
		}
	}
	for _, s := range r.GetSources() {
		one := sourceDoc{Name: s.GetName(), Kind: s.GetKind(), State: stateCell(s.GetState()).Text, Reason: s.GetReason(), Code: s.GetCode(),
			Since: shell.Moment(s.GetSince()), Position: s.GetPosition(), LagSeconds: shell.Seconds(s.GetLag().AsDuration()),
			EventsPerSecond: s.GetEventsPerSecond(), BytesPerSecond: s.GetBytesPerSecond(), LogID: s.GetLogId(), LogBytes: s.GetLogBytes(),
			LogFull: s.GetLogFull(), Oldest: s.GetOldest(), Next: s.GetNext(), Tables: s.GetTables(), Notices: []shell.NoticeDoc{}, Throttles: ThrottleDocs(s.GetThrottles()), Pressure: pressureDocOf(s.GetPressure()), Waits: waitDocs(s.GetWaits()), Disk: s.GetDisk()}
		if len(s.GetSnapshots()) > 0 {
			one.Snapshots = shell.JobDocs(s.GetSnapshots())
		}
		for _, n := range s.GetNotices() {
			one.Notices = append(one.Notices, shell.NoticeDoc{Kind: n.GetKind(), Code: n.GetCode(), Table: n.GetTable(), Position: n.GetPosition(),
				Reason: n.GetReason(), Cure: n.GetCure(), Time: shell.Moment(n.GetTime())})
		}
		d.Sources = append(d.Sources, one)
	}
	for _, s := range r.GetSubscriptions() {
		d.Subscriptions = append(d.Subscriptions, subscriptionDoc{Name: s.GetName(), Source: s.GetSource(), Kind: s.GetKind(),
			State: stateCell(s.GetState()).Text, Reason: s.GetReason(), Until: shell.Moment(s.GetUntil()), LagEvents: s.GetLagEvents(),
			LagBytes: s.GetLagBytes(), LagSeconds: shell.Seconds(s.GetLag().AsDuration()), EventsPerSecond: s.GetEventsPerSecond(),
			Low: s.GetLow(), Persisted: s.GetPersisted(), Read: s.GetRead(), Next: s.GetNext(), Resolved: s.GetResolved(),
			InFlight: s.GetInFlight(), Open: s.GetOpen(), Held: s.GetHeld(), BufferedBytes: s.GetBufferedBytes(),
			Delivered: s.GetDelivered(), Failed: s.GetFailed(), Dead: s.GetDead(), Parked: s.GetParked(), SaveError: s.GetSaveError(),
			Throttles: ThrottleDocs(s.GetThrottles()), Waits: waitDocs(s.GetWaits()), Limit: s.GetLimit(), MaxInFlight: s.GetMaxInFlight(),
			Pace: s.GetPace(), Flow: s.GetFlow(), Lanes: laneDocs(s.GetLanes()), Hosts: hostDocs(s.GetHosts()), HostsPanic: s.GetHostsPanic(), Laggard: laggardDocOf(s.GetLaggard())})
	}
	return d
}
