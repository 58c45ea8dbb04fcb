package search

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// longestID of a document, in bytes.
const longestID = 512

// documentID is a row's: the text of a key of one column, a JSON array of several. What is too long is summed.
func documentID(values []string) string {
	id := "[" + strings.Join(values, ",") + "]"
	if len(values) == 1 {
		id = values[0]
		var text string
		if json.Unmarshal([]byte(id), &text) == nil && text != "" {
			id = text
		}
	}
	if len(id) > longestID {
		sum := sha256.Sum256([]byte(id))
		id = "sha256-" + hex.EncodeToString(sum[:])
	}
	return id
}

// complete gives documents the columns that the source did not send: from an earlier event of the Delivery, else from
// the index. A key is never in two Deliveries at once, so that nobody else writes it meanwhile.
func (w *work) complete(ctx context.Context) error {
	type place struct {
		t  *target
		id string
	}
	asked := map[place][]byte{}
	var ask bytes.Buffer
	var order []place
	seen := map[place]bool{}
	for i := range w.items {
		it := &w.items[i]
		p := place{it.target, it.id}
		if len(it.absent) > 0 && !seen[p] {
			order = append(order, p)
			fmt.Fprintf(&ask, `%c{"_index":%s,"_id":%s}`, ",["[btoi(len(order) == 1)], quoted(it.target.reads()), quoted(it.id))
		}
		seen[p] = true
	}
	if len(order) > 0 {
		var answer struct {
			Docs []struct {
				Source json.RawMessage `json:"_source"`
				Error  *cause          `json:"error"`
			} `json:"docs"`
		}
		body := append(append([]byte(`{"docs":`), ask.Bytes()...), "]}"...)
		if err := w.s.c.ask(ctx, http.MethodPost, "/_mget", body, &answer); err != nil {
			return err
		}
		if len(answer.Docs) != len(order) {
			return &pipeline.DeliveryError{Reason: fmt.Sprintf("search: %d documents were asked for, %d came", len(order), len(answer.Docs))}
		}
		for n, p := range order {
			if e := answer.Docs[n].Error; e != nil {
				w.s.forget(p.t)
				return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "search: " + e.document()}
			}
			asked[p] = answer.Docs[n].Source
		}
	}
	for i := range w.items {
		it := &w.items[i]
		p := place{it.target, it.id}
		if old := asked[p]; len(it.absent) > 0 && old != nil {
			if err := it.fill(old); err != nil {
				return err
			}
		}
		if it.body == nil {
			delete(asked, p)
		} else {
			asked[p] = it.body
		}
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// fill takes the columns that are absent from the row's last document.
func (it *item) fill(old []byte) error {
	var columns map[string]json.RawMessage
	if err := json.Unmarshal(old, &columns); err != nil {
		return &pipeline.DeliveryError{Reason: "search: a document cannot be read", Err: err}
	}
	if columns[fieldDeleted] != nil {
		return nil
	}
	body := it.body[:len(it.body)-1]
	for _, name := range it.absent {
		var plain string
		if err := json.Unmarshal([]byte(name), &plain); err != nil {
			return fmt.Errorf("search: column name: %w", err)
		}
		if v := columns[plain]; v != nil {
			body = append(append(append(append(body, ','), name...), ':'), v...)
		}
	}
	it.body = append(body, '}')
	return nil
}

func quoted(s string) []byte {
	text, err := json.Marshal(s)
	if err != nil { // no string has an error
		return []byte(`""`)
	}
	return text
}

// result of one item of a bulk request.
type result struct {
	Index  string `json:"_index"`
	Status int    `json:"status"`
	Error  *cause `json:"error"`
}

// bulk writes the items, to each index of their targets.
func (w *work) bulk(ctx context.Context) error {
	var body bytes.Buffer
	var of []int // item of each line
	for n := range w.items {
		it := &w.items[n]
		op := "index"
		if it.body == nil {
			op = "delete"
		}
		for _, index := range it.target.writes() {
			fmt.Fprintf(&body, `{"%s":{"_index":%s,"_id":%s,"version":%d,"version_type":"external","require_alias":%t}}`+"\n", op, quoted(index), quoted(it.id), it.offset, it.target.alias != "")
			if it.body != nil {
				body.Write(it.body)
				body.WriteByte('\n')
			}
			of = append(of, n)
		}
	}
	var answer struct {
		Items []map[string]result `json:"items"`
	}
	if err := w.s.c.ask(ctx, http.MethodPost, "/_bulk", body.Bytes(), &answer); err != nil {
		return err
	}
	if len(answer.Items) != len(of) {
		return &pipeline.DeliveryError{Reason: fmt.Sprintf("search: %d documents were sent, %d results came", len(of), len(answer.Items))}
	}
	for i, ops := range answer.Items {
		for op, r := range ops {
			it := &w.items[of[i]]
			o := w.s.outcome(it.target, op, r)
			if o.Class == pipeline.Fatal && it.target.next != "" && r.Index == it.target.index {
				continue // the index that takes its place may know better, and is asked too
			}
			if o.Class != pipeline.OK {
				w.fail(it.event, o)
			}
		}
	}
	return nil
}

// outcome says what became of one document.
func (s *Sink) outcome(t *target, op string, r result) pipeline.Outcome {
	o := pipeline.Outcome{}
	if r.Error != nil {
		o.Reason = fmt.Sprintf("%d %s", r.Status, r.Error.document())
	}
	switch {
	case r.Status >= 200 && r.Status <= 299:
		return pipeline.Outcome{}
	case r.Status == http.StatusConflict: // something newer is there, or this itself
		return pipeline.Outcome{}
	case r.Status == http.StatusNotFound && op == "delete" && r.Error == nil:
		return pipeline.Outcome{}
	case r.Status == http.StatusNotFound: // the index is gone: it is made again
		s.forget(t)
		o.Class, o.Delay = pipeline.Defer, time.Second
	case r.Status == http.StatusTooManyRequests, r.Status == http.StatusServiceUnavailable, r.Status == http.StatusForbidden: // a block: the disk is full
		o.Class, o.Delay = pipeline.Defer, time.Second
	case r.Status >= 400 && r.Status <= 499:
		o.Class = pipeline.Fatal
		if t.stale != "" {
			o.Reason += "; " + t.stale
		}
	default:
		o.Class = pipeline.Retry
	}
	return o
}

// page is how many documents are removed at once.
const page = 5000

// empty removes what a table had before it was emptied at an offset: each document with that version, so that what comes
// late stays away as after any delete. What a large table takes longer than a Delivery may: it goes on where it was, and
// no attempt is spent.
func (s *Sink) empty(ctx context.Context, t *target, offset uint64) error {
	removed := 0
	for _, index := range t.writes() {
		for {
			n, err := s.removePage(ctx, t, index, offset)
			if err != nil {
				de := pipeline.AsDeliveryError(err)
				if removed == 0 || de.Class != pipeline.Retriable {
					return err
				}
				return &pipeline.DeliveryError{Class: pipeline.Unavailable, RetryAfter: time.Millisecond, Err: err,
					Reason: fmt.Sprintf("empty %s: %d documents are removed, it goes on: %s", index, removed, de.Reason)}
			}
			if n == 0 {
				break
			}
			removed += n
		}
	}
	return nil
}

// removePage removes some documents that are older than offset, and returns how many; 0: there are none.
func (s *Sink) removePage(ctx context.Context, t *target, index string, offset uint64) (int, error) {
	if err := s.c.ask(ctx, http.MethodPost, "/"+index+"/_refresh", nil, nil); err != nil {
		return 0, err
	}
	var found struct {
		Hits struct {
			Hits []struct {
				ID    string `json:"_id"`
				Index string `json:"_index"`
			} `json:"hits"`
		} `json:"hits"`
	}
	query := fmt.Appendf(nil, `{"size":%d,"_source":false,"sort":["_doc"],"query":{"range":{"%s":{"lt":%d}}}}`, s.page, fieldOffset, offset)
	if err := s.c.ask(ctx, http.MethodPost, "/"+index+"/_search", query, &found); err != nil {
		return 0, err
	}
	if len(found.Hits.Hits) == 0 {
		return 0, nil
	}
	op, tail := "delete", ""
	if s.o.Soft { // they stay, so that no age of theirs matters
		op, tail = "index", fmt.Sprintf(`{"%s":%d,"%s":true}`+"\n", fieldOffset, offset, fieldDeleted)
	}
	var body bytes.Buffer
	for _, h := range found.Hits.Hits {
		fmt.Fprintf(&body, `{"%s":{"_index":%s,"_id":%s,"version":%d,"version_type":"external"}}`+"\n%s", op, quoted(h.Index), quoted(h.ID), offset, tail)
	}
	var answer struct {
		Items []map[string]result `json:"items"`
	}
	if err := s.c.ask(ctx, http.MethodPost, "/_bulk", body.Bytes(), &answer); err != nil {
		return 0, err
	}
	for _, ops := range answer.Items {
		for op, r := range ops {
			if o := s.outcome(t, op, r); o.Class != pipeline.OK {
				return 0, &pipeline.DeliveryError{Reason: "empty " + index + ": " + o.Reason}
			}
		}
	}
	return len(found.Hits.Hits), nil
}
