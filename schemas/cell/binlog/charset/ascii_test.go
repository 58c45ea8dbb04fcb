package charset

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// What is ASCII is copied at once: that must read as byte by byte does, in every character set.
func TestASCIIAtOnce(t *testing.T) {
	for name := range bases {
		c, err := codesOf(name)
		if err != nil {
			t.Fatal(err)
		}
		slow := *c
		slow.ascii = false

		rapid.Check(t, func(t *rapid.T) {
			raw := rapid.SliceOfN(rapid.OneOf(rapid.ByteRange('a', 'z'), rapid.ByteRange('a', 'z'), rapid.Byte()), 0, 40).Draw(t, "raw")
			got, err := c.decode(nil, raw)
			want, wantErr := slow.decode(nil, raw)
			if !bytes.Equal(got, want) || (err == nil) != (wantErr == nil) {
				t.Fatalf("%s %x: %q, %v; want %q, %v", name, raw, got, err, want, wantErr)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"ascii", "latin1"} {
		b.Run(name, func(b *testing.B) {
			f, err := Of(name)
			if err != nil {
				b.Fatal(err)
			}
			raw, dst := []byte("/home/user12/projects/alpha/file-00001234.txt"), make([]byte, 0, 100)
			for b.Loop() {
				if dst, err = f(dst[:0], raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
