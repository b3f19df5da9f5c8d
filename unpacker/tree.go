package main

import (
	"errors"
	"hash/maphash"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	blockSize      = 4096
	mostNamesBytes = 128 << 20 // of directories whose times are remembered
)

type limits struct {
	bytes   int64 // that the tree may take, over all layers
	entries int64 // of this layer
	stream  int64 // length of the tar
}

// tree is a directory that a layer is applied to. Its paths are absolute and free of links: `resolve` makes them so, with
// the directory as the root of every link, and nobody else changes the directory meanwhile.
type tree struct {
	root    string // "/" when confined
	limits  limits
	bytes   int64
	entries int64
	skipped int64

	seed  maphash.Seed
	fresh map[uint64]struct{} // hashes of paths that this layer has made: its whiteouts are not about them

	times      map[string]time.Time // of directories, set when nothing is written to them any more
	timesBytes int

	lastParent, lastResolved string
	block                    [64 << 10]byte // of a file on its way
}

func newTree(root string, limits limits, bytes int64) *tree {
	return &tree{root: root, limits: limits, bytes: bytes, seed: maphash.MakeSeed(), fresh: map[uint64]struct{}{}, times: map[string]time.Time{}}
}

// at is where a path of the tree lies.
func (t *tree) at(path string) string {
	if t.root == "/" {
		return path
	}
	return t.root + path
}

// makeDirectory makes one that the layer takes for granted, always alike.
func (t *tree) makeDirectory(name, path string) error {
	if err := t.count(); err != nil {
		return err
	}
	if err := t.touch(parentPath(path)); err != nil {
		return err
	}
	if err := t.spend(name, blockSize); err != nil {
		return err
	}
	if err := os.Mkdir(t.at(path), 0o755); err != nil {
		return atFault(name, err)
	}
	t.markFresh(path)
	return t.remember(path, time.Unix(0, 0))
}

func (t *tree) count() error {
	if t.entries++; t.entries > t.limits.entries {
		return tooLarge("has more files than an image may have")
	}
	return nil
}

// spend counts what something takes on the disk before it is written.
func (t *tree) spend(name string, size int64) error {
	if size < 0 || size > t.limits.bytes-t.bytes {
		return tooLarge("takes more than %d bytes when unpacked, at %s", t.limits.bytes, quote(name))
	}
	t.bytes += inBlocks(size)
	return nil
}

// refund gives back what `spend` took for something that is removed. Of a file that has other names nothing is freed.
func (t *tree) refund(info os.FileInfo) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && (info.IsDir() || stat.Nlink == 1) {
		t.bytes -= sizeOf(info)
	}
}

func sizeOf(info os.FileInfo) int64 {
	switch {
	case info.Mode().IsRegular():
		return inBlocks(info.Size())
	case info.IsDir():
		return blockSize
	case info.Mode()&fs.ModeSymlink != 0:
		return linkSize(int(info.Size()))
	}
	return 0
}

// linkSize: short targets lie in the inode.
func linkSize(length int) int64 {
	if length < 60 {
		return 0
	}
	return inBlocks(int64(length))
}

func inBlocks(size int64) int64 { return (size + blockSize - 1) &^ (blockSize - 1) }

// touch remembers when a directory was changed last, before it is changed only because of what is in it.
func (t *tree) touch(path string) error {
	if _, known := t.times[path]; known {
		return nil
	}
	info, err := os.Lstat(t.at(path))
	if err != nil {
		return err
	}
	return t.remember(path, info.ModTime())
}

func (t *tree) remember(path string, modified time.Time) error {
	if _, known := t.times[path]; !known {
		if t.timesBytes += len(path); t.timesBytes > mostNamesBytes {
			return tooLarge("has directories whose names take more than %d bytes", mostNamesBytes)
		}
	}
	t.times[path] = modified
	return nil
}

// restoreTimes is the last thing that happens to a layer's directories.
func (t *tree) restoreTimes() error {
	for path, at := range t.times {
		if err := setTimes(t.at(path), at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (t *tree) hash(path string) uint64 { return maphash.String(t.seed, path) }

// markFresh counts the directories above as this layer's too: they hold something of it.
func (t *tree) markFresh(path string) {
	for !t.isFresh(path) {
		t.fresh[t.hash(path)] = struct{}{}
		path = parentPath(path)
	}
}

func (t *tree) isFresh(path string) bool {
	_, is := t.fresh[t.hash(path)]
	return is
}

// remove takes a path away with all that is below it. With `lower`, what this layer has made stays.
func (t *tree) remove(path string, lower bool) error {
	info, err := os.Lstat(t.at(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		if lower && t.isFresh(path) {
			return nil
		}
		t.refund(info)
		t.forget()
		return os.Remove(t.at(path))
	}
	if err := t.empty(path, lower); err != nil {
		return err
	}
	if lower && t.isFresh(path) {
		return nil
	}
	t.refund(info)
	t.forget()
	delete(t.times, path)
	return os.Remove(t.at(path))
}

// empty removes what is in a directory. Its depth is bounded, because every path's is.
func (t *tree) empty(path string, lower bool) error {
	if err := t.touch(path); err != nil {
		return err
	}
	directory, err := os.Open(t.at(path))
	if err != nil {
		return err
	}
	names, err := directory.Readdirnames(-1)
	directory.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.remove(join(path, name), lower); err != nil {
			return err
		}
	}
	return nil
}

func join(directory, name string) string {
	if directory == "/" {
		return "/" + name
	}
	return directory + "/" + name
}

func parentPath(path string) string {
	if end := strings.LastIndexByte(path, '/'); end > 0 {
		return path[:end]
	}
	return "/"
}
