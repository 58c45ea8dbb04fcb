package postgres

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
)

// token is the resume token of a position: "0/16B3748 system=7431… timeline=1 slot=leat_files". The LSN is the
// end of the last commit (or of what a keepalive covered): START_REPLICATION there sends what is behind it.
type token struct {
	lsn      pglogrepl.LSN
	system   string
	timeline int32
	slot     string
}

func (t token) String() string {
	return fmt.Sprintf("%s system=%s timeline=%d slot=%s", t.lsn, t.system, t.timeline, t.slot)
}

func parseToken(text string) (token, error) {
	var t token
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return t, fmt.Errorf("position %q: empty", text)
	}
	lsn, err := parseLSN(fields[0])
	if err != nil {
		return t, fmt.Errorf("position %q: %w", text, err)
	}
	t.lsn = lsn
	for _, f := range fields[1:] {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "system":
			t.system = value
		case "timeline":
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil {
				return t, fmt.Errorf("position %q: timeline %q", text, value)
			}
			t.timeline = int32(n)
		case "slot":
			t.slot = value
		default:
			return t, fmt.Errorf("position %q: unknown field %q (written by a newer version?)", text, key)
		}
	}
	if t.system == "" || t.timeline == 0 {
		return t, fmt.Errorf("position %q: system or timeline is missing", text)
	}
	return t, nil
}

// parseLSN reads 16B/374D848 strictly: pglogrepl's own reading ignores what follows.
func parseLSN(text string) (pglogrepl.LSN, error) {
	hi, lo, ok := strings.Cut(text, "/")
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if !ok || err1 != nil || err2 != nil || h == 0 && l == 0 {
		return 0, fmt.Errorf("%q is no LSN, which looks like 0/16B3748", text)
	}
	return pglogrepl.LSN(h<<32 | l), nil
}

// parseStart reads Config.Start; 0 is "where the slot stands".
func parseStart(text string) (pglogrepl.LSN, error) {
	if text == "now" || text == "earliest" {
		return 0, nil
	}
	lsn, err := parseLSN(text)
	if err != nil {
		return 0, fmt.Errorf("start: %w; want now, earliest or an LSN", err)
	}
	return lsn, nil
}

// lsnOf returns the LSN that a token begins with, 0 if it has none; without allocation.
func lsnOf(tok string) pglogrepl.LSN {
	text, _, _ := strings.Cut(tok, " ")
	hi, lo, ok := strings.Cut(text, "/")
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0
	}
	return pglogrepl.LSN(h<<32 | l)
}
