package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

const (
	maxEntries   = 100_000
	maxDepth     = 1000
	uploadPrefix = ".paddock-upload-"
)

// fileEntry is a file, directory or link as the API shows it.
type fileEntry struct {
	Name       string `json:"name"`
	Path       string `json:"path"`
	Type       string `json:"type"`
	Size       int64  `json:"size"`
	Mode       uint32 `json:"mode"`
	UID        uint32 `json:"uid"`
	GID        uint32 `json:"gid"`
	MtimeMS    int64  `json:"mtime_ms"`
	Target     string `json:"target,omitempty"`
	TargetType string `json:"target_type,omitempty"`
}

func typeOf(mode os.FileMode) string {
	switch mode.Type() {
	case 0:
		return "file"
	case os.ModeDir:
		return "dir"
	case os.ModeSymlink:
		return "symlink"
	}
	return "other"
}

func entryOf(path string, fi os.FileInfo) fileEntry {
	e := fileEntry{Name: filepath.Base(path), Path: path, Type: typeOf(fi.Mode()), Size: fi.Size(), MtimeMS: fi.ModTime().UnixMilli()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		e.Mode, e.UID, e.GID = st.Mode&0o7777, st.Uid, st.Gid
	}
	if e.Type == "symlink" {
		e.Target, _ = os.Readlink(path)
		if target, err := os.Stat(path); err == nil {
			e.TargetType = typeOf(target.Mode())
		}
	}
	return e
}

// fileInfo describes what is at path itself: a link is shown as a link.
func fileInfo(path string) (fileEntry, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return fileEntry{}, err
	}
	return entryOf(path, fi), nil
}

// listFiles lists a directory, depth levels deep. Links inside are not followed.
func listFiles(path string, depth int) ([]fileEntry, bool, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	if !fi.IsDir() {
		return nil, false, fail("not_directory", "%q is not a directory", path)
	}
	l := lister{}
	if err := l.walk(path, depth); err != nil {
		return nil, false, err
	}
	sort.Slice(l.entries, func(i, j int) bool { return l.entries[i].Path < l.entries[j].Path })
	return l.entries, l.truncated, nil
}

type lister struct {
	entries   []fileEntry
	truncated bool
}

func (l *lister) walk(dir string, depth int) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	var below []string
	for !l.truncated {
		// In portions: a directory may have millions of entries.
		names, err := f.Readdirnames(4096)
		for _, name := range names {
			if len(l.entries) == maxEntries {
				l.truncated = true
				break
			}
			path := strings.TrimSuffix(dir, "/") + "/" + name
			fi, err := os.Lstat(path)
			if err != nil {
				continue // gone meanwhile
			}
			l.entries = append(l.entries, entryOf(path, fi))
			if fi.IsDir() && depth > 1 {
				below = append(below, path)
			}
		}
		if err == io.EOF || len(names) == 0 {
			break
		}
		if err != nil {
			f.Close()
			return err
		}
	}
	f.Close() // before going deeper: descriptors would grow with the depth
	for _, path := range below {
		if l.truncated {
			break
		}
		if err := l.walk(path, depth-1); err != nil && len(l.entries) == 0 {
			return err
		}
	}
	return nil
}

// openRegular opens a file for reading. What is not a regular file is never opened, and a file that is exchanged for a
// FIFO in between does not block.
func openRegular(path string) (*os.File, os.FileInfo, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if err := requireRegular(path, fi); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	if fi, err = f.Stat(); err == nil {
		err = requireRegular(path, fi)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

func requireRegular(path string, fi os.FileInfo) error {
	switch {
	case fi.IsDir():
		return fail("is_directory", "%q is a directory", path)
	case !fi.Mode().IsRegular():
		return fail("not_regular", "%q is a device, socket or FIFO", path)
	}
	return nil
}

// writeFile streams a body into a file. A failure changes nothing and leaves nothing behind, as long as the target
// can be renamed over; where it cannot (a bind-mounted file, a directory that is read-only), it is written in place.
func writeFile(path string, acc account, mode *uint32, body io.Reader) (int64, error) {
	target, err := resolveLinks(path)
	if err != nil {
		return 0, err
	}
	old, err := os.Lstat(target)
	switch {
	case err == nil:
		if err := requireRegular(path, old); err != nil {
			return 0, err
		}
	case !errors.Is(err, os.ErrNotExist):
		return 0, err
	}
	made, err := makeDirs(filepath.Dir(target), acc)
	if err != nil {
		return 0, err
	}
	size, err := writeBeside(target, old, acc, mode, body)
	if err != nil {
		removeDirs(made)
	}
	return size, err
}

func writeBeside(target string, old os.FileInfo, acc account, mode *uint32, body io.Reader) (int64, error) {
	var random [8]byte
	rand.Read(random[:])
	tmp := filepath.Join(filepath.Dir(target), uploadPrefix+hex.EncodeToString(random[:]))
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		if old != nil && mayWriteInPlace(err) {
			return overwrite(target, mode, body)
		}
		return 0, err
	}
	defer f.Close()
	size, err := copyAll(f, body)
	if err == nil {
		err = dress(f, old, acc, mode)
	}
	if err == nil {
		err = os.Rename(tmp, target)
		if old != nil && mayWriteInPlace(err) {
			if _, err = f.Seek(0, io.SeekStart); err == nil {
				_, err = overwrite(target, mode, f)
			}
			os.Remove(tmp)
		}
	}
	if err != nil {
		os.Remove(tmp)
		return 0, err
	}
	return size, nil
}

// mayWriteInPlace tells whether the error is of a kind that renaming has and writing may not have.
func mayWriteInPlace(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EBUSY, syscall.EXDEV, syscall.EROFS, syscall.EACCES, syscall.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// dress gives a new file its owner and mode: those of the file it replaces, else the user's.
func dress(f *os.File, old os.FileInfo, acc account, mode *uint32) error {
	uid, gid, bits := acc.UID, acc.GID, uint32(0o644)
	if old != nil {
		if st, ok := old.Sys().(*syscall.Stat_t); ok {
			uid, gid, bits = st.Uid, st.Gid, st.Mode&0o7777
		}
	}
	if mode != nil {
		bits = *mode
	}
	if err := f.Chown(int(uid), int(gid)); err != nil {
		return err
	}
	return syscall.Fchmod(int(f.Fd()), bits) // after chown, which clears set-uid
}

func overwrite(target string, mode *uint32, body io.Reader) (int64, error) {
	f, err := os.OpenFile(target, os.O_WRONLY|os.O_TRUNC|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := copyAll(f, body)
	if err == nil && mode != nil {
		err = syscall.Fchmod(int(f.Fd()), *mode)
	}
	return size, err
}

// copyAll copies in large portions and constant memory. The wrappers hide the shortcuts of the standard library
// (splice, sendfile), which are slow in the sandbox's kernel.
func copyAll(to io.Writer, from io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, *buf)
}

// removeAll deletes a file or tree; links are not followed.
func removeAll(path string) (bool, error) {
	if path == "/" {
		return false, fail("bad_request", "the root directory cannot be deleted")
	}
	if _, err := os.Lstat(path); err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return false, nil
		}
		return false, err
	}
	return true, os.RemoveAll(path)
}

// renameFile moves a file or tree, also from one mount to another.
func renameFile(oldPath, newPath string, acc account) error {
	if _, err := os.Lstat(oldPath); err != nil {
		return err
	}
	if oldPath == "/" || strings.HasPrefix(newPath, oldPath+"/") {
		return fail("bad_request", "%q cannot be moved into itself", oldPath)
	}
	made, err := makeDirs(filepath.Dir(newPath), acc)
	if err != nil {
		return err
	}
	// Not os.Rename, which refuses every existing directory.
	err = syscall.Rename(oldPath, newPath)
	if err == syscall.EXDEV {
		err = moveAcross(oldPath, newPath)
	}
	if err != nil {
		removeDirs(made)
	}
	return err
}

// moveAcross copies beside the target, renames and then removes the source, as mv does.
func moveAcross(oldPath, newPath string) error {
	var random [8]byte
	rand.Read(random[:])
	tmp := filepath.Join(filepath.Dir(newPath), uploadPrefix+hex.EncodeToString(random[:]))
	err := copyTree(oldPath, tmp)
	if err == nil {
		err = syscall.Rename(tmp, newPath)
	}
	if err != nil {
		os.RemoveAll(tmp)
		return err
	}
	return os.RemoveAll(oldPath)
}

func copyTree(from, to string) error {
	fi, err := os.Lstat(from)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fail("internal", "no owner of %q", from)
	}
	times := []syscall.Timespec{st.Atim, st.Mtim}
	switch typeOf(fi.Mode()) {
	case "symlink":
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
		return os.Lchown(to, int(st.Uid), int(st.Gid))
	case "dir":
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		names, err := readNames(from)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := copyTree(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
				return err
			}
		}
	case "file":
		if err := copyFile(from, to); err != nil {
			return err
		}
	default:
		// FIFOs and sockets are made anew, without being opened.
		if err := syscall.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := syscall.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return syscall.UtimesNano(to, times)
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func copyFile(from, to string) error {
	src, _, err := openRegular(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	_, err = copyAll(dst, src)
	return err
}

// byteRange is a part of a file, both ends included.
type byteRange struct{ first, last int64 }

// parseRange reads a Range header. Without one, or with one that is malformed or has several parts, it returns nil: the
// whole file is a right answer (RFC 9110, 14.2).
func parseRange(header string, size int64) (*byteRange, error) {
	spec := strings.TrimPrefix(header, "bytes=")
	if spec == header || strings.Contains(spec, ",") {
		return nil, nil
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return nil, nil
	}
	unsatisfiable := fail("bad_range", "the file has %d bytes", size)
	if from == "" {
		n, err := strconv.ParseInt(to, 10, 64)
		if err != nil || n < 0 {
			return nil, nil
		}
		if n == 0 || size == 0 {
			return nil, unsatisfiable
		}
		if n > size {
			n = size
		}
		return &byteRange{size - n, size - 1}, nil
	}
	first, err := strconv.ParseInt(from, 10, 64)
	if err != nil || first < 0 {
		return nil, nil
	}
	last := size - 1
	if to != "" {
		last, err = strconv.ParseInt(to, 10, 64)
		if err != nil || last < first {
			return nil, nil
		}
	}
	if first >= size {
		return nil, unsatisfiable
	}
	if last >= size {
		last = size - 1
	}
	return &byteRange{first, last}, nil
}
