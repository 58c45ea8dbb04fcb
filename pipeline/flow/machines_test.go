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
		want            bool
	}
	for name, c := range map[string]call{
		"over half of many keys":       {40, 10, 6, 0.5, Broke, true},
		"under half":                   {200, 10, 4, 0.1, Broke, false},
		"few keys":                     {200, 4, 10, 0.1, Broke, false},
		"few calls":                    {19, 19, 10, 0.1, Broke, false},
		"over half, but slowly":        {200, 10, 6, 3, Broke, false},
		"all of the last twenty":       {20, 20, 10, 0.01, Broke, true},
		"five connections refused":     {5, 1, 10, 3, Refused, true},
		"four connections refused":     {4, 1, 10, 3, Refused, false},
		"the endpoint says it is away": {1, 1, 10, 1, Away, true},
	} {
		t.Run(name, func(t *testing.T) {
			o, on := NewOutage(half), false
			for i := range c.n {
				now := at(float64(i) * c.every)
				o.Sent(uint64(i + 1))
				r := Worked
				if i*7%10 < c.failed {
					r = c.r
				}
				began, _ := o.Done(uint64(i+1), uint64(i%c.keys), r, 0, "said no", now)
				on = on || began
			}
			if on != c.want {
				t.Fatalf("on %v: %s", on, o.Reason())
			}
		})
	}
}

func TestOutageProbesAndEnds(t *testing.T) {
	o := NewOutage(half)
	now := 0.0
	for i := range uint64(3) {
		o.Sent(i + 1)
	}
	if began, _ := o.Done(1, 1, Away, 0, "404", at(now)); !began || o.Permits(at(now)) {
		t.Fatal("the outage has not begun")
	}
	if _, ended := o.Done(2, 2, Worked, 0, "", at(now)); ended {
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
	o.Done(number, 1, Away, time.Hour, "503", at(now))
	if d := o.Until().Sub(at(now)); d < 15*time.Minute || d > 18*time.Minute {
		t.Fatalf("Retry-After of an hour: %s", d)
	}
	o.Sent(number + 1)
	if _, ended := o.Done(number+1, 1, Worked, 0, "", at(now+1)); !ended || o.On() || o.Away(at(1e6)) != at(now+1).Sub(epoch) {
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
