package config

import (
	"net/netip"
	"testing"
)

func TestRank(t *testing.T) {
	for _, c := range []struct {
		own, zone string
		want      int
	}{{"eu/b", "eu/b", 0}, {"eu/b", "eu/a", 1}, {"eu/b", "eu", 1}, {"eu", "eu", 0}, {"eu/b", "us/b", 2}, {"", "eu/b", 2}, {"eu/b", "", 2}, {"", "", 2}} {
		if got := (&Config{Zone: c.own}).Rank(c.zone); got != c.want {
			t.Errorf("from %q to %q: %d, want %d", c.own, c.zone, got, c.want)
		}
	}
}

func TestAsks(t *testing.T) {
	e := Egress{Hosts: []string{"search", "*.example.com", "10.9.0.1", "Hooks.Example.ORG"}}
	for host, want := range map[string]bool{"search": false, "SEARCH.": false, "a.example.com": false, "a.b.example.com": false, "example.com": true,
		"evilexample.com": true, "10.9.0.1": false, "::ffff:10.9.0.1": false, "10.9.0.2": true, "hooks.example.org": false, "a.search": true} {
		if e.Asks(host) != want {
			t.Errorf("%s: asked %v", host, !want)
		}
	}
	if (Egress{}).Asks("anybody.example") {
		t.Error("without a list nobody is asked")
	}
}

// Each way to write an address is judged by the address.
func TestEgressForms(t *testing.T) {
	all := Egress{Allow: []string{"public", "private", "loopback", "0.0.0.0/0", "::/0"}}
	public := Egress{Allow: []string{"public"}}
	for text, want := range map[string][2]bool{ // allowed by all, by public
		"93.184.216.34": {true, true}, "::ffff:93.184.216.34": {true, true}, "64:ff9b::5db8:d822": {true, true}, "2606:2800:220:1::1": {true, true},
		"10.0.0.1": {true, false}, "::ffff:10.0.0.1": {true, false}, "172.16.0.1": {true, false}, "192.168.0.1": {true, false}, "100.64.0.1": {true, false},
		"198.18.0.1": {true, false}, "198.19.255.255": {true, false}, "fd00::1": {true, false}, "127.0.0.1": {true, false}, "127.9.9.9": {true, false}, "::1": {true, false},
		"64:ff9b::a00:1": {}, "64:ff9b::7f00:1": {}, "64:ff9b::a9fe:a9fe": {}, "64:ff9b:1::a00:1": {}, "2002:a00:1::": {}, "2001::1": {}, "::10.0.0.1": {},
		"169.254.169.254": {}, "::ffff:169.254.169.254": {}, "fe80::1": {}, "fe80::1%eth0": {}, "fec0::1": {}, "0.0.0.0": {}, "::": {}, "0.1.2.3": {},
		"224.0.0.1": {}, "ff02::1": {}, "255.255.255.255": {}, "100.100.100.200": {}, "fd00:ec2::254": {}, "168.63.129.16": {}, "192.0.0.192": {},
	} {
		a := netip.MustParseAddr(text)
		if got := [2]bool{all.Permits(a), public.Permits(a)}; got != want {
			t.Errorf("%s: permitted by all, by public %v, want %v", text, got, want)
		}
	}
}
