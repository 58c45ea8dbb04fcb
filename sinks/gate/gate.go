// Package gate holds back what a subscription has not agreed to: before the first event of a table version goes to the
// sink, the version is held against the subscription's mapping and contract.
//
// What does not fit makes the subscription's Deliveries wait, and nobody else's: nothing is lost, nothing is an
// attempt, and it goes on when the file of the contract, or the mapping, is changed.
package gate

import (
	"fmt"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Options of a gate.
type Options struct {
	// Encoding says how the subscription's events look.
	Encoding encode.Options
	// Contract, nil for none.
	Contract *Contract
}

// again is how long a table that does not fit is not looked at anew.
const again = 2 * time.Second

// Gate stands before the sink of one subscription. Safe for concurrent use.
type Gate struct {
	o Options

	mu sync.Mutex
	// known tables: when they may be looked at again, and why they do not fit; nil: they do, for good.
	known map[*schemas.Table]*verdict
}

type verdict struct {
	why   error
	until time.Time
}

// maxKnown bounds what is remembered; old versions are gone with their segments.
const maxKnown = 4096

// New returns a gate; nil where there is nothing to hold tables against.
func New(o Options) *Gate {
	if o.Contract == nil && len(o.Encoding.Mapping) == 0 {
		return nil
	}
	return &Gate{o: o, known: map[*schemas.Table]*verdict{}}
}

// Admit returns nil when all tables of the Delivery fit; else a *pipeline.DeliveryError: the sink must not get it yet.
func (g *Gate) Admit(d *pipeline.Delivery) error {
	var last *schemas.Table
	for i := range d.Runs {
		r := &d.Runs[i]
		for e := r.From; e < r.To; e++ {
			t := r.Batch.TableOf(int(e))
			if t == nil || t == last {
				continue
			}
			if err := g.check(t); err != nil {
				return &pipeline.DeliveryError{Class: pipeline.Unavailable, RetryAfter: again, Reason: err.Error()}
			}
			last = t
		}
	}
	return nil
}

// check returns why a table version does not fit; nil when it does.
func (g *Gate) check(t *schemas.Table) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.known[t]
	if v != nil && (v.why == nil || time.Now().Before(v.until)) {
		return v.why
	}
	if len(g.known) >= maxKnown {
		clear(g.known)
	}
	v = &verdict{why: Fits(&g.o.Encoding, g.o.Contract, t), until: time.Now().Add(again)}
	g.known[t] = v
	return v.why
}

// Fits returns nil when the mapping allows the table version and the contract is kept by it.
func Fits(o *encode.Options, c *Contract, t *schemas.Table) error {
	view, err := o.View(t, &cell.Form{})
	if err != nil {
		return err
	}
	if c == nil || !c.covers(t) {
		return nil
	}
	if err := c.holds(view, t); err != nil {
		return fmt.Errorf("%s version %d breaks the contract %s: %w", t.Subject(), t.Version, c.Name, err)
	}
	return nil
}
