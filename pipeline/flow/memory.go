package flow

// Memory is a tree of budgets: a process, its subscriptions, and what reads for each of them (its live session, a
// pass for parked keys, a replay). A subscription's credit is its own, whatever others hold; the rest of the
// process's total floats to whoever reads. Only data is counted: acknowledgements and control records never wait.
//
// What is counted never exceeds the total, but for this: an account that holds nothing may take one piece, however
// large, as nobody is to wait for ever for what others may never give back.
//
// What a subscription may borrow grows by what it delivers. A piece that does not fit waits in line for the float.
// Meanwhile the one that borrowed most of those that stand still, or else of all, is asked to give back what it
// read ahead: it is in the log; and what it may borrow begins anew. So those that stand still end up with
// their credits.
//
// Pure; the owner holds the lock.
//
// Tried: lending all of the float. Subscriptions that began later found nothing left for their credits until others
// moved; now an eighth is kept for them.
type Memory struct {
	total, used int64 // used: what is held or reserved as credit
	moved       int64 // by all, ever
	subs        []*Share
	line        []*Account // who waits, in order
	blocked     bool       // one of them waits for the float
	owed        int        // shares that have no credit yet
}

// Share is a subscription's part of a Memory.
type Share struct {
	m      *Memory
	own    int64 // what its credit is to be
	credit int64 // what it is: own, or none yet
	used   int64
	// most it may hold in all, and window: the most now.
	most, window int64
	last         int64 // Memory.moved when it moved last
	asked        bool
	// Ask is called to have what was read ahead given back.
	ask func()
}

// Account is one who reads for a subscription.
type Account struct {
	share *Share
	limit int64 // it takes nothing more from there on
	used  int64
	wants int64 // it waits in line for so much; 0: it does not
	paid  int64 // it waited, and has so much
	// grant is called when paid is set.
	grant func()
}

// spare: this part of the total is not borrowed, but for credits to come.
const spare = 8

// NewMemory returns a budget of that many bytes.
func NewMemory(total int64) *Memory { return &Memory{total: total} }

// Share gives a subscription a credit, taken from the float as soon as others have given back so much of it, and the
// most that it may hold. ask is called, under the owner's lock, when it should give back what it has read ahead.
func (m *Memory) Share(credit, most int64, ask func()) *Share {
	s := &Share{m: m, own: credit, most: most, window: min(most, credit), last: m.moved, ask: ask}
	m.subs = append(m.subs, s)
	if credit > 0 {
		m.owed++
		m.serve()
	}
	return s
}

// Close gives the credit back; nothing of the share is held any more.
func (s *Share) Close() {
	m := s.m
	for i, x := range m.subs {
		if x == s {
			m.subs = append(m.subs[:i], m.subs[i+1:]...)
			m.used -= max(s.credit, s.used)
			if s.credit < s.own {
				m.owed--
			}
			m.serve()
			return
		}
	}
}

// Account returns one of limit bytes. grant is called, under the owner's lock, when what it waited for is there.
func (s *Share) Account(limit int64, grant func()) *Account {
	return &Account{share: s, limit: limit, grant: grant}
}

// Used is what is held, credits in use or not left out.
func (m *Memory) Used() int64 {
	n := int64(0)
	for _, s := range m.subs {
		n += s.used
	}
	return n
}

// Waiting is how many wait for the float.
func (m *Memory) Waiting() int { return len(m.line) }

// Used bytes of the share, and of the account.
func (s *Share) Used() int64   { return s.used }
func (a *Account) Used() int64 { return a.used }

// borrowed is how much of the float the share holds.
func (s *Share) borrowed() int64 { return max(0, s.used-s.credit) }

// Room reports whether the account may read on, as far as its own limits go. It may exceed them by the one piece
// that it reads then.
func (a *Account) Room() bool {
	s := a.share
	return a.paid > 0 || a.used == 0 || a.used < a.limit && s.used < s.window
}

// fits reports whether n more bytes are there, without borrowing or from the float.
func (a *Account) fits(n int64) bool {
	s := a.share
	return a.used == 0 || s.used+n <= s.credit || s.m.used+s.more(n) <= s.m.total-s.m.total/spare
}

// more is by how much n more bytes raise what is borrowed.
func (s *Share) more(n int64) int64 { return max(s.credit, s.used+n) - max(s.credit, s.used) }

// Take takes n bytes, and reports whether they were there. Those that wait go first.
func (a *Account) Take(n int64) bool {
	s := a.share
	if paid := a.paid; paid > 0 {
		a.paid = 0
		if n <= paid || a.used == paid || a.fits(n-paid) {
			a.add(n - paid)
			return true
		}
		a.Give(paid, false)
		return false
	}
	if !a.fits(n) || s.m.blocked && a.used > 0 && s.more(n) > 0 {
		return false
	}
	a.add(n)
	return true
}

func (a *Account) add(n int64) {
	s := a.share
	s.m.used += s.more(n)
	s.used += n
	a.used += n
}

// Wait stands in line for n bytes: grant is called once they are taken for the account; the next Take gets them. It
// reports whether that was at once.
func (a *Account) Wait(n int64) bool {
	if a.wants == 0 && a.paid == 0 {
		a.wants = n
		a.share.m.line = append(a.share.m.line, a)
		a.share.m.serve()
	}
	return a.paid > 0
}

// Waits reports whether the account stands in line.
func (a *Account) Waits() bool { return a.wants > 0 }

// Leave gives up what the account waited for.
func (a *Account) Leave() {
	m := a.share.m
	for i, x := range m.line {
		if x == a {
			m.line = append(m.line[:i], m.line[i+1:]...)
			break
		}
	}
	a.wants = 0
	if a.paid > 0 {
		n := a.paid
		a.paid = 0
		a.Give(n, false)
		return
	}
	m.serve()
}

// Give gives n bytes back. moved: they were delivered, not dropped.
func (a *Account) Give(n int64, moved bool) {
	s := a.share
	s.m.used += s.more(-n)
	s.used -= n
	a.used -= n
	if moved {
		s.m.moved += n
		s.last, s.asked = s.m.moved, false
		s.window = min(s.most, s.window+n)
	}
	s.m.serve()
}

// serve grants what there is to those that wait, in order; one that needs nothing of the float waits for nobody.
func (m *Memory) serve() {
	m.blocked = false
	if m.owed > 0 {
		m.lend()
	}
	if len(m.line) == 0 {
		return
	}
	kept, blocked := m.line[:0], (*Account)(nil)
	for _, a := range m.line {
		if !a.Room() { // not before it moves
			kept = append(kept, a)
			continue
		}
		if !a.fits(a.wants) || (blocked != nil || m.blocked) && a.used > 0 && a.share.more(a.wants) > 0 {
			if kept = append(kept, a); blocked == nil {
				blocked = a
			}
			continue
		}
		a.add(a.wants)
		a.paid, a.wants = a.wants, 0
		a.grant()
	}
	clear(m.line[len(kept):])
	if m.line = kept; blocked != nil {
		m.blocked = true
		m.press(blocked.share, blocked.wants)
	}
}

// lend gives those their credits that have none: they come before all who wait.
func (m *Memory) lend() {
	for _, s := range m.subs {
		if s.credit == s.own {
			continue
		}
		n := max(s.own, s.used) - s.used
		if m.used+n > m.total && m.used > 0 {
			m.blocked = true
			m.press(s, n)
			return
		}
		m.used += n
		s.credit = s.own
		m.owed--
	}
}

// press asks one that borrowed to give back, if it stands still or borrowed more than the first in line would have.
func (m *Memory) press(first *Share, wants int64) {
	var most *Share
	for _, s := range m.subs {
		if s == first || s.asked || s.borrowed() == 0 || !s.still() && s.borrowed() <= first.borrowed()+wants {
			continue
		}
		if most == nil || s.still() && !most.still() || s.still() == most.still() && s.borrowed() > most.borrowed() {
			most = s
		}
	}
	if most != nil {
		most.asked, most.window = true, min(most.most, most.own)
		most.ask()
	}
}

// still: while it moved nothing, all others moved a quarter of what there is.
func (s *Share) still() bool { return s.m.moved-s.last > s.m.total/4 }
