package app

import "golang.org/x/sys/unix"

// freeSpace returns how many bytes of the disk that holds a folder are free for us, of how many.
func freeSpace(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	// What is kept for root is neither free nor used by anybody.
	unit := uint64(st.Bsize)
	return st.Bavail * unit, (st.Blocks - st.Bfree + st.Bavail) * unit, nil
}
