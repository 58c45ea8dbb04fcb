package records

import "math/big"

// decimal is an unscaled number, as big-endian two's complement with no byte too many. Its memory is used again.
type decimal struct {
	small [9]byte
	big   big.Int
	out   []byte
}

var one = big.NewInt(1)

func (d *decimal) bytes() []byte { return d.out }

// setUint sets n × 10⁰.
func (d *decimal) setUint(n uint64) {
	d.small[0] = 0
	for i := 8; i > 0; i-- {
		d.small[i] = byte(n)
		n >>= 8
	}
	d.out = shortest(d.small[:])
}

func (d *decimal) setInt(n int64) {
	d.small[0] = byte(n >> 63)
	for i := 8; i > 0; i-- {
		d.small[i] = byte(n)
		n >>= 8
	}
	d.out = shortest(d.small[:])
}

// shortest cuts leading bytes that only repeat the sign.
func shortest(p []byte) []byte {
	for len(p) > 1 && (p[0] == 0 && p[1] < 0x80 || p[0] == 0xff && p[1] >= 0x80) {
		p = p[1:]
	}
	return p
}

// set reads digits with at most scale of them behind the dot; not ok: text is no such number.
func (d *decimal) set(text []byte, scale int) (ok bool) {
	digits, negative := text, false
	if len(digits) > 0 && digits[0] == '-' {
		digits, negative = digits[1:], true
	}
	dot, count := len(digits), 0
	for i, c := range digits {
		switch {
		case c == '.' && dot == len(digits):
			dot = i
		case c < '0' || c > '9':
			return false
		default:
			count++
		}
	}
	fraction := max(len(digits)-dot-1, 0)
	if count == 0 || fraction > scale {
		return false
	}
	if count+scale-fraction <= 18 {
		n := int64(0)
		for _, c := range digits {
			if c != '.' {
				n = n*10 + int64(c-'0')
			}
		}
		for range scale - fraction {
			n *= 10
		}
		if negative {
			n = -n
		}
		d.setInt(n)
		return true
	}
	whole := append(append([]byte{}, digits[:dot]...), digits[min(dot+1, len(digits)):]...)
	for range scale - fraction {
		whole = append(whole, '0')
	}
	if _, ok := d.big.SetString(string(whole), 10); !ok {
		return false
	}
	d.setBig(negative)
	return true
}

func (d *decimal) setBig(negative bool) {
	if negative && d.big.Sign() > 0 { // two's complement of -n is the complement of n-1
		p := d.big.Sub(&d.big, one).Bytes()
		for i := range p {
			p[i] = ^p[i]
		}
		d.out = shortest(append([]byte{0xff}, p...))
		return
	}
	d.out = shortest(append([]byte{0}, d.big.Bytes()...))
}
