// Package registry keeps schemas under subjects, gives them ids, and lets no version of a subject in that does not
// go with the earlier ones. [Embedded] is our own, in our state; [Client] speaks to one elsewhere.
//
// The words are Confluent's: a subject has versions from 1; a schema has one id, under whatever subjects it stands.
// https://docs.confluent.io/platform/current/schema-registry/develop/api.html
package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
)

// Version of a subject.
type Version struct {
	Subject string
	// Version counts from 1 within the subject.
	Version int
	// ID is the schema's, the same under every subject.
	ID     uint32
	Format shape.Format
	Text   string
}

// Store keeps versions durably.
type Store interface {
	// Schemas returns all versions, in the order in which they were put.
	Schemas(ctx context.Context) ([]Version, error)
	// PutSchema keeps one more.
	PutSchema(ctx context.Context, v Version) error
}

// ErrNotFound: no such subject, version or id.
var ErrNotFound = errors.New("not found")

// Embedded is the registry in our state. Safe for concurrent use.
type Embedded struct {
	store Store
	// judging is held while a schema from outside is read: whoever may ask takes this much of the CPU and no more.
	judging chan struct{}

	compiling sync.Mutex
	compiled  map[uint32]string // descriptors of .proto files, by id

	mu       sync.RWMutex
	mode     compat.Mode
	subjects map[string][]Version
	byID     map[uint32]Version
	ids      map[content]uint32
	next     uint32
	// stale: the store may hold more than we know.
	stale bool
}

// putTime bounds the writing of a schema. Whoever asks for it may go away meanwhile: what was written counts.
const putTime = 30 * time.Second

type content struct {
	format shape.Format
	text   string
}

// Open reads what the store has. mode is the compatibility of every subject.
func Open(ctx context.Context, store Store, mode compat.Mode) (*Embedded, error) {
	e := &Embedded{store: store, judging: make(chan struct{}, 1), mode: mode, compiled: map[uint32]string{}}
	if err := e.load(ctx); err != nil {
		return nil, fmt.Errorf("read the schemas: %w", err)
	}
	return e, nil
}

// load takes what the store has in the place of what we know.
func (e *Embedded) load(ctx context.Context) error {
	all, err := e.store.Schemas(ctx)
	if err != nil {
		return err
	}
	first := map[uint32]Version{}
	for _, v := range all {
		f, ok := first[v.ID]
		if !ok {
			first[v.ID] = v
		} else if f.Format != v.Format || f.Text != v.Text {
			return fmt.Errorf("schema id %d stands for two schemas, version %d of %s and version %d of %s: restore the data folder from a backup (leat backup)",
				v.ID, f.Version, f.Subject, v.Version, v.Subject)
		}
	}
	e.subjects, e.byID, e.ids, e.next, e.stale = map[string][]Version{}, map[uint32]Version{}, map[content]uint32{}, 1, false
	for _, v := range all {
		e.add(v)
	}
	return nil
}

func (e *Embedded) add(v Version) {
	e.subjects[v.Subject] = append(e.subjects[v.Subject], v)
	e.ids[content{v.Format, v.Text}] = v.ID
	if _, ok := e.byID[v.ID]; !ok {
		e.byID[v.ID] = v
	}
	e.next = max(e.next, v.ID+1)
}

// SetMode changes the compatibility of what is registered from now on.
func (e *Embedded) SetMode(m compat.Mode) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mode = m
}

// Mode returns the compatibility that holds.
func (e *Embedded) Mode() compat.Mode {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.mode
}

// Register returns the id of the schema under the subject and makes it the subject's newest version when it is none
// yet. A *compat.Error when it does not go with the earlier ones. It is durable before it has an id.
func (e *Embedded) Register(ctx context.Context, subject string, f shape.Format, text string) (uint32, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stale {
		if err := e.load(ctx); err != nil {
			return 0, fmt.Errorf("register a schema of %s: read the schemas again: %w", subject, err)
		}
	}
	for _, v := range e.subjects[subject] {
		if v.Format == f && v.Text == text {
			return v.ID, nil
		}
	}
	if err := compat.Valid(f, text); err != nil {
		return 0, fmt.Errorf("register a schema of %s: %w", subject, err)
	}
	if err := check(e.mode, e.subjects[subject], f, text); err != nil {
		return 0, fmt.Errorf("register a schema of %s: %w", subject, err)
	}
	id, known := e.ids[content{f, text}]
	if !known {
		id = e.next
	}
	v := Version{Subject: subject, Version: len(e.subjects[subject]) + 1, ID: id, Format: f, Text: text}
	put, cancel := context.WithTimeout(context.WithoutCancel(ctx), putTime)
	defer cancel()
	if err := e.store.PutSchema(put, v); err != nil {
		e.stale = true // it may be there all the same
		return 0, fmt.Errorf("register a schema of %s: %w", subject, err)
	}
	e.add(v)
	return id, nil
}

func check(mode compat.Mode, versions []Version, f shape.Format, text string) error {
	var earlier []string
	for _, v := range versions {
		if v.Format != f && mode != compat.None {
			return fmt.Errorf("version %d is of type %s, this is %s: use another topic, or compatibility: none", v.Version, v.Format, f)
		}
		earlier = append(earlier, v.Text)
	}
	return compat.Check(mode, f, text, earlier)
}

// Versions returns the texts of the subject's versions in that format, the oldest first; none when there is no such
// subject.
func (e *Embedded) Versions(_ context.Context, subject string, f shape.Format) ([]string, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var texts []string
	for _, v := range e.subjects[subject] {
		if v.Format == f {
			texts = append(texts, v.Text)
		}
	}
	return texts, nil
}

// Subjects lists the names, sorted.
func (e *Embedded) Subjects() []string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	names := make([]string, 0, len(e.subjects))
	for s := range e.subjects {
		names = append(names, s)
	}
	slices.Sort(names)
	return names
}

// Subject returns its versions, the oldest first. ErrNotFound.
func (e *Embedded) Subject(name string) ([]Version, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	all := e.subjects[name]
	if len(all) == 0 {
		return nil, fmt.Errorf("subject %q: %w", name, ErrNotFound)
	}
	return slices.Clone(all), nil
}

// ByID returns a version that has the id. ErrNotFound.
func (e *Embedded) ByID(id uint32) (Version, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	v, ok := e.byID[id]
	if !ok {
		return v, fmt.Errorf("schema %d: %w", id, ErrNotFound)
	}
	return v, nil
}

// Uses lists the versions that have the id, by subject.
func (e *Embedded) Uses(id uint32) []Version {
	var all []Version
	for _, s := range e.Subjects() {
		e.mu.RLock()
		for _, v := range e.subjects[s] {
			if v.ID == id {
				all = append(all, v)
			}
		}
		e.mu.RUnlock()
	}
	return all
}
