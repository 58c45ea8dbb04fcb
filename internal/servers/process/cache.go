package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CacheDir is where server programs and templates are kept: LEAT_CACHE, else /var/cache/leat for
// root (the unprivileged user its servers run as cannot enter root's home), else "leat" in
// [os.UserCacheDir].
func CacheDir() (string, error) {
	if dir := os.Getenv("LEAT_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 {
		return "/var/cache/leat", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache folder: %w: set LEAT_CACHE", err)
	}
	return filepath.Join(dir, "leat"), nil
}

// Cached returns the cache's entry called name. When it is missing fill makes it in an empty folder
// that becomes the entry only when whole; other processes wait meanwhile.
func Cached(ctx context.Context, name string, fill func(dir string) error) (string, error) {
	root, err := CacheDir()
	if err != nil {
		return "", err
	}
	entry := filepath.Join(root, name)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("make the cache: %w: set LEAT_CACHE to a folder that can be written", err)
	}
	if err := Open(root, Unprivileged()); err != nil {
		return "", err
	}
	if Exists(entry) {
		return entry, nil
	}
	unlock, err := LockFile(ctx, entry+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if Exists(entry) {
		return entry, nil
	}
	left, err := filepath.Glob(filepath.Join(root, ".new-"+name+"-*"))
	if err != nil {
		return "", err
	}
	for _, dir := range left { // of a run that died here
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	tmp, err := os.MkdirTemp(root, ".new-"+name+"-")
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), fill(tmp)); err != nil {
		return "", errors.Join(fmt.Errorf("install %s into the cache: %w", name, err), os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, entry); err != nil {
		return "", err
	}
	return entry, nil
}

// Exists reports whether something stands at path.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// LockFile waits for the lock that path stands for, between processes. The file stays.
func LockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		got, err := tryLock(f)
		if err == nil && got {
			return func() { _ = f.Close() }, nil // closing a file nothing was written to
		}
		if err == nil {
			err = Pause(ctx, 50*time.Millisecond)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("wait for %s: %w", path, err), f.Close())
		}
	}
}

// CopyTree copies folders and regular files of src to dst, which must not exist, owned by as if not
// nil. Modes are kept.
func CopyTree(dst, src string, as *Identity) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		to := filepath.Join(dst, strings.TrimPrefix(path, src))
		switch {
		case d.IsDir():
			err = os.Mkdir(to, info.Mode().Perm())
		case info.Mode().IsRegular():
			err = copyFile(to, path, info.Mode().Perm())
		default: // sockets, links: a template has none that matter
			return nil
		}
		if err != nil {
			return err
		}
		return Chown(to, as)
	})
}

func copyFile(dst, src string, mode fs.FileMode) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Chown gives a file to a user; nil changes nothing.
func Chown(path string, as *Identity) error {
	if as == nil {
		return nil
	}
	return os.Chown(path, as.Uid, as.gid)
}

// Open lets the unprivileged user as enter dir, which is ours. The folders above are not ours to open:
// the error names the one that is in the way.
func Open(dir string, as *Identity) error {
	if as == nil {
		return nil
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o001 == 0 {
		if err := os.Chmod(dir, st.Mode().Perm()|0o001); err != nil {
			return err
		}
	}
	for p := filepath.Dir(dir); ; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		if err != nil {
			return err
		}
		if st.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("servers started by root run as an unprivileged user, who cannot enter %s: open it (chmod o+x) or set LEAT_CACHE and TMPDIR to folders everybody can enter", p)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

// OpenTree lets everybody read what is in dir as its owner may, whatever our umask.
func OpenTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm()
		return os.Chmod(path, mode|mode>>6&0o005)
	})
}
