package diskfs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

// TestDirect: where a file can be written past the cache, what was written so is there, and it can be written at
// any offset again once that is off.
func TestDirect(t *testing.T) {
	f, err := OS{}.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	memory := make([]byte, 3*Page)
	page := memory[-uintptr(unsafe.Pointer(unsafe.SliceData(memory)))%Page:][:2*Page]
	for i := range page {
		page[i] = 7
	}
	if d, ok := f.(Direct); ok && d.SetDirect(true) == nil {
		check(f.WriteVec([][]byte{page}, 0))
		check(d.SetDirect(false))
	} else {
		check(f.WriteVec([][]byte{page}, 0))
	}
	check(f.WriteVec([][]byte{{1}, {2, 3}}, Page-1))
	check(f.Sync())
	copy(page[Page-1:], []byte{1, 2, 3})
	got := make([]byte, 2*Page)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, page) {
		t.Errorf("what was written is not there: %v", err)
	}
}
