package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// FollowOptions narrow what [Client.Follow] reads.
type FollowOptions struct {
	// Cursor is the path of a file that keeps the place: written, on the disk, after each page that was taken. Empty:
	// nothing is kept. It belongs to the subscription and its source: with another one it is refused, and left as it is.
	Cursor string
	// From is where to begin without a cursor file; 0 is the oldest that the log keeps.
	From uint64
	// To is where to end (exclusive); 0: never.
	To uint64
	// Tables are globs over schema.table; none: all of the subscription's.
	Tables []string
	// Ranges are ids of key ranges of the source (`leat ranges`); none: all.
	Ranges []uint64
	// Page is how many events are asked for at once, at most 10,000. Default 1,000.
	Page int
	// Poll is how often the end of the log is looked at. Default 500 ms.
	Poll time.Duration
}

// Follow gives f, page by page and in the order of the log, what a subscription of any kind sees of it, from a place
// of the reader's own: it moves no cursor of the server's, and holds nothing back there, so what is older than the
// log keeps is gone ([IsTooOld]). next is the place behind the page: who keeps it together with what the page did
// (in one transaction) has each event exactly once. With o.Cursor the file keeps it after f has returned nil.
func (c *Client) Follow(ctx context.Context, subscription string, o FollowOptions, f func(page []*Event, next uint64) error) error {
	at, source, err := o.start(subscription)
	if err != nil {
		return err
	}
	if o.Poll <= 0 {
		o.Poll = 500 * time.Millisecond
	}
	for tries := 0; ; {
		answer, err := c.api.Fetch(ctx, connect.NewRequest(&leatv1.FetchRequest{Subscription: subscription, From: at, To: o.To, Ranges: o.Ranges,
			Tables: o.Tables, Limit: uint32(max(o.Page, 0)), MaxBytes: 8 << 20}))
		if err != nil {
			if source != "" && permanent(err) { // perhaps it is no place of this log
				if other := c.otherSource(ctx, subscription, source, &o); other != nil {
					return other
				}
			}
			if ctx.Err() != nil || permanent(err) {
				return fmt.Errorf("leat: fetch %s from %d: %w", subscription, at, err)
			}
			d := c.backoff(tries)
			tries++
			if c.o.OnRetry != nil {
				c.o.OnRetry(err, d)
			}
			_ = wait(ctx, d) // the next Fetch finds out that ctx has ended
			continue
		}
		tries = 0
		if err := o.isOf(source, answer.Msg.Events.GetSource()); err != nil {
			return err
		}
		source = answer.Msg.Events.GetSource()
		page, err := decode(answer.Msg.Events)
		if err != nil {
			return err
		}
		next := answer.Msg.Next
		if len(page) > 0 || next != at {
			if err := f(page, next); err != nil {
				return err
			}
			if err := o.keep(next, subscription, source); err != nil {
				return err
			}
			at = next
		}
		if !answer.Msg.End {
			continue
		}
		if o.To > 0 && at >= o.To {
			return nil
		}
		if err := wait(ctx, o.Poll); err != nil {
			return err
		}
	}
}

func decode(m *leatv1.Events) ([]*Event, error) {
	s := shapes{}
	s.learn(m.GetTables())
	page := make([]*Event, 0, len(m.GetEvents()))
	for _, p := range m.GetEvents() {
		e, err := s.event(m.Source, p)
		if err != nil {
			return nil, err
		}
		page = append(page, e)
	}
	return page, nil
}

type cursorFile struct {
	Next         uint64 `json:"next,string"`
	Subscription string `json:"subscription,omitempty"` // older files have none
	Source       string `json:"source,omitempty"`       // the same
}

// start returns where to begin, and the source that this is a place of; empty: not known.
func (o *FollowOptions) start(subscription string) (at uint64, source string, err error) {
	if o.Cursor == "" {
		return o.From, "", nil
	}
	text, err := os.ReadFile(o.Cursor)
	if errors.Is(err, fs.ErrNotExist) {
		return o.From, "", nil
	}
	var f cursorFile
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil {
		return 0, "", fmt.Errorf("leat: cursor file %s: %w; remove it to begin anew", o.Cursor, err)
	}
	if f.Subscription != "" && f.Subscription != subscription {
		return 0, "", fmt.Errorf("leat: cursor file %s is of the subscription %s, not of %s: give each a file of its own", o.Cursor, f.Subscription, subscription)
	}
	return f.Next, f.Source, nil
}

// isOf compares the source of the place with the one that answers; either may be unknown.
func (o *FollowOptions) isOf(source, answers string) error {
	if o.Cursor == "" || source == "" || answers == "" || source == answers {
		return nil
	}
	return fmt.Errorf("leat: cursor file %s is of the source %s, but the subscription reads %s: an offset of one is no place in the other; give each a file of its own, or remove it to begin anew",
		o.Cursor, source, answers)
}

// otherSource asks whose log the subscription reads: the error where it is not source's.
func (c *Client) otherSource(ctx context.Context, subscription, source string, o *FollowOptions) error {
	answer, err := c.api.Fetch(ctx, connect.NewRequest(&leatv1.FetchRequest{Subscription: subscription, Limit: 1, MaxBytes: 1}))
	if err != nil {
		return nil // what was asked first has an error of its own
	}
	return o.isOf(source, answer.Msg.Events.GetSource())
}

// keep replaces the cursor file, so that it is there whole whenever the machine stops.
func (o *FollowOptions) keep(next uint64, subscription, source string) error {
	if o.Cursor == "" {
		return nil
	}
	text, err := json.Marshal(cursorFile{next, subscription, source})
	if err != nil {
		return err
	}
	if err := replace(o.Cursor, text); err != nil {
		return fmt.Errorf("leat: cursor file: %w", err)
	}
	return nil
}

func replace(path string, text []byte) (err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return dir.Sync()
}
