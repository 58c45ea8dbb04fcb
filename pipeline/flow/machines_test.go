package flow

import (
	"fmt"
	"testing"
	"time"
)

func half() float64 { return 0.5 }

func TestOutageRule(t *testing.T) {
	type call struct {
		n, keys, failed int // failed of each 10
		every           float64
		r               Result
		want            Change
	}
	for name, c := range map[string]call{
		"over half of many keys":          {40, 10, 6, 0.5, Broke, Suspected},
		"under half":                      {200, 10, 4, 0.1, Broke, Same},
		"few keys":                        {200, 4, 10, 0.1, Broke, Same},
		"few calls":                       {19, 19, 10, 0.1, Broke, Same},
		"over half, but slowly":           {200, 10, 6, 3, Broke, Same},
		"all of the last twenty":          {20, 20, 10, 0.01, Broke, Suspected},
		"all of the last twenty, slowly":  {20, 20, 10, 30, Broke, Suspected},
		"the endpoint says it is away":    {1, 1, 10, 1, Away, Began},
		"nothing is known of any of them": {100, 100, 10, 0.01, Mute, Same},
	} {
		t.Run(name, func(t *testing.T) {
			o, got := NewOutage(half), Same
			for i := range c.n {
				now := at(float64(i) * c.every)
				o.Sent(uint64(i + 1))
				r := Worked
				if i*7%10 < c.failed {
					r = c.r
				}
				if got = o.Done(uint64(i+1), uint64(i%c.keys), r, 0, "said no", now); got != Same {
					break
				}
			}
			if got != c.want || o.On() != (c.want != Same) {
				t.Fatalf("%d, on %v: %s", got, o.On(), o.Reason())
			}
		})
	}
}

// suspected is an outage that twenty failed calls brought about.
func suspected(t *testing.T) (o Outage) {
	t.Helper()
	o = NewOutage(half)
	for i := range uint64(20) {
		o.Sent(i + 1)
	}
	change := Same
	for i := range uint64(20) {
		change = max(change, o.Done(i+1, i, Broke, 0, "500", at(float64(i))))
	}
	if change != Suspected || !o.On() || o.Sure() || o.Since() != at(0) {
		t.Fatalf("%d %+v", change, o)
	}
	return o
}

// TestASuspicionIsAskedFor: one probe after the other, at once; the majority decides.
func TestASuspicionIsAskedFor(t *testing.T) {
	for votes, want := range map[string]Change{"bbb": Began, "www": Cleared, "wbwbw": Cleared, "bwbwb": Began, "wa": Began, "bbmmww": Same, "bbmmwmwmw": Cleared} {
		o, change := suspected(t), Same
		for i, v := range votes {
			if change != Same || !o.Permits(at(20)) {
				t.Fatalf("%s: vote %d comes too late or too early", votes, i)
			}
			n := uint64(100 + i)
			o.Sent(n)
			if o.Permits(at(1000)) {
				t.Fatal("two probes at once")
			}
			if o.Done(5, 5, Broke, 0, "of before", at(20)) != Same || o.Done(6, 6, Worked, 0, "", at(20)) != Same {
				t.Fatal("a call from before votes")
			}
			change = o.Done(n, n, map[rune]Result{'w': Worked, 'b': Broke, 'a': Away, 'm': Mute}[v], 0, "x", at(20))
		}
		if change != want || o.Sure() != (want == Began) || o.On() != (want != Cleared) {
			t.Fatalf("%s: %d, want %d; %+v", votes, change, want, o)
		}
		if want == Began && (o.Since() != at(0) || o.Until() != at(21) || o.Away(at(50)) != 50*time.Second) {
			t.Fatalf("%s: since %s until %s", votes, o.Since(), o.Until())
		}
		if want != Cleared {
			continue
		}
		if o.Away(at(50)) != 0 {
			t.Fatal("it was not away")
		}
		for i := range uint64(200) { // and for a while nobody asks again
			now := at(20 + float64(i)/4)
			if ch := o.Done(200+i, i, Broke, 0, "500", now); (ch == Suspected) != (i == 120) {
				t.Fatalf("%d at %d", ch, i)
			} else if ch == Suspected {
				break
			}
		}
	}
}

func TestOutageProbesAndEnds(t *testing.T) {
	o := NewOutage(half)
	now := 0.0
	for i := range uint64(3) {
		o.Sent(i + 1)
	}
	if o.Done(1, 1, Away, 0, "404", at(now)) != Began || o.Permits(at(now)) {
		t.Fatal("the outage has not begun")
	}
	if o.Done(2, 2, Worked, 0, "", at(now)) != Same {
		t.Fatal("ended by a call from before")
	}
	waits := ""
	number := uint64(10)
	for range 9 {
		waits += fmt.Sprint(o.Until().Sub(at(now)).Round(time.Second), " ")
		now = o.Until().Sub(epoch).Seconds()
		if !o.Permits(o.Until()) {
			t.Fatal("no probe")
		}
		o.Sent(number)
		if o.Permits(at(now + 1000)) {
			t.Fatal("two probes at once")
		}
		o.Done(number, 1, Broke, 0, "500", at(now))
		number++
	}
	if waits != "1s 2s 4s 8s 16s 32s 1m0s 1m0s 1m0s " {
		t.Fatal(waits)
	}
	now = o.Until().Sub(epoch).Seconds()
	o.Sent(number)
	o.Done(number, 1, Mute, 0, "", at(now))
	if d := o.Until().Sub(at(now)); d != time.Minute {
		t.Fatalf("after a probe that was cut off: %s", d)
	}
	o.Sent(number)
	o.Done(number, 1, Away, time.Hour, "503", at(now))
	if d := o.Until().Sub(at(now)); d < 15*time.Minute || d > 18*time.Minute {
		t.Fatalf("Retry-After of an hour: %s", d)
	}
	if o.Hurry(); !o.Permits(at(now)) {
		t.Fatal("not in a hurry")
	}
	o.Sent(number + 1)
	if o.Done(number+1, 1, Worked, 0, "", at(now+1)) != Ended || o.On() || o.Away(at(1e6)) != at(now+1).Sub(epoch) {
		t.Fatalf("not over, or %s", o.Away(at(1e6)))
	}
}

func TestPacer(t *testing.T) {
	p := NewPacer(1000, 100*time.Millisecond)
	sent := 0
	for i := range 5000 { // thirty are offered each millisecond
		if now := at(float64(i) / 1000); p.Permits(now) {
			p.Sent(30, now)
			sent += 30
		}
	}
	if sent < 4990 || sent > 5000+100+30 {
		t.Fatalf("%d in five seconds", sent)
	}
}
