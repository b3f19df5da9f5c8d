package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	reservedPrefix = ".wh..wh." // what a storage driver of old kept for itself
)

// apply puts one layer over what the tree holds. https://github.com/opencontainers/image-spec/blob/main/layer.md
func (t *tree) apply(layer io.Reader) (answer, error) {
	syscall.Umask(0)
	hash := sha256.New()
	stream := &metered{source: layer, left: t.limits.stream}
	whole := io.TeeReader(stream, hash)
	if err := t.applyEntries(tar.NewReader(whole)); err != nil {
		return answer{}, stream.blame(err)
	}
	// What follows the end of the tar belongs to the layer's digest.
	if _, err := io.Copy(io.Discard, whole); err != nil {
		return answer{}, stream.blame(err)
	}
	if err := t.restoreTimes(); err != nil {
		return answer{}, err
	}
	return answer{DiffID: hex.EncodeToString(hash.Sum(nil)), Bytes: t.bytes, Entries: t.entries, Stream: t.limits.stream - stream.left, Skipped: t.skipped}, nil
}

// metered ends a tar that is longer than it may be.
type metered struct {
	source io.Reader
	left   int64
	failed error
}

func (m *metered) Read(into []byte) (int, error) {
	n, err := m.source.Read(into)
	if m.left -= int64(n); m.left < 0 {
		err = tooLarge("is longer than it may be when decompressed")
	}
	if err != nil && err != io.EOF {
		m.failed = err
	}
	return n, err
}

// blame prefers what the stream said to what a reader above made of it.
func (m *metered) blame(err error) error {
	if m.failed != nil {
		return m.failed
	}
	return err
}

func (t *tree) applyEntries(reader *tar.Reader) error {
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return broken("is no tar that can be read: %v", err)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := t.count(); err != nil {
			return err
		}
		if err := t.applyEntry(header, reader); err != nil {
			return err
		}
	}
}

func (t *tree) applyEntry(header *tar.Header, content io.Reader) error {
	parts, err := split(header.Name)
	if err != nil {
		return err
	}
	if err := t.spend(header.Name, xattrsSize(header)); err != nil {
		return err
	}
	if len(parts) == 0 {
		if header.Typeflag != tar.TypeDir {
			return refused(header.Name, "names the root, which is a directory")
		}
		return t.describeDirectory("/", header)
	}
	parent, err := t.parentOf(header.Name, parts)
	if err != nil {
		return err
	}
	if err := t.touch(parent); err != nil {
		return err
	}
	last := parts[len(parts)-1]
	if strings.HasPrefix(last, whiteoutPrefix) {
		return t.whiteOut(header.Name, parent, last)
	}
	path := join(parent, last)
	if len(path) > longestPath {
		return refused(header.Name, "leads deeper than %d bytes", longestPath)
	}
	if header.Typeflag == tar.TypeDir {
		return t.putDirectory(path, header)
	}
	if header.Typeflag == tar.TypeLink {
		return t.putHardLink(path, header)
	}
	if err := t.remove(path, false); err != nil {
		return err
	}
	return t.put(path, header, content)
}

func (t *tree) whiteOut(name, parent, last string) error {
	if last == opaqueName {
		return t.empty(parent, true)
	}
	if strings.HasPrefix(last, reservedPrefix) {
		return nil
	}
	hidden := strings.TrimPrefix(last, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return refused(name, "is no whiteout")
	}
	return t.remove(join(parent, hidden), true)
}

func (t *tree) putDirectory(path string, header *tar.Header) error {
	info, err := os.Lstat(t.at(path))
	if err == nil && !info.IsDir() {
		if err := t.remove(path, false); err != nil {
			return err
		}
	}
	if err != nil || !info.IsDir() {
		if err := t.spend(header.Name, blockSize); err != nil {
			return err
		}
		if err := os.Mkdir(t.at(path), 0o700); err != nil {
			return atFault(header.Name, err)
		}
	}
	t.markFresh(path)
	return t.describeDirectory(path, header)
}

func (t *tree) describeDirectory(path string, header *tar.Header) error {
	if err := describe(t.at(path), header); err != nil {
		return err
	}
	return t.remember(path, header.ModTime)
}

func (t *tree) putHardLink(path string, header *tar.Header) error {
	parts, err := split(header.Linkname)
	if err != nil {
		return refused(header.Name, "is a hard link to a name that cannot be: %v", err)
	}
	if len(parts) == 0 {
		return refused(header.Name, "is a hard link to the root")
	}
	parent, err := t.resolve(header.Name, parts[:len(parts)-1], false)
	if err != nil {
		return err
	}
	target := join(parent, parts[len(parts)-1])
	info, err := os.Lstat(t.at(target))
	if parent == "" || err != nil {
		return refused(header.Name, "is a hard link to %s, which is not there", quote(header.Linkname))
	}
	if info.IsDir() {
		return refused(header.Name, "is a hard link to %s, a directory", quote(header.Linkname))
	}
	if existing, err := os.Lstat(t.at(path)); err == nil && os.SameFile(existing, info) {
		t.markFresh(path)
		return nil
	}
	if err := t.remove(path, false); err != nil {
		return err
	}
	// Never follows a link at its end.
	if err := os.Link(t.at(target), t.at(path)); err != nil {
		return atFault(header.Name, err)
	}
	t.markFresh(path)
	return nil
}

// put makes everything else; nothing is at the path.
func (t *tree) put(path string, header *tar.Header, content io.Reader) error {
	place := t.at(path)
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse:
		if err := t.putFile(place, header, content); err != nil {
			return err
		}
	case tar.TypeSymlink:
		t.forget()
		if header.Linkname == "" || len(header.Linkname) > longestPath || strings.ContainsRune(header.Linkname, 0) {
			return refused(header.Name, "is a link to a name that cannot be")
		}
		if err := t.spend(header.Name, linkSize(len(header.Linkname))); err != nil {
			return err
		}
		if err := os.Symlink(header.Linkname, place); err != nil {
			return atFault(header.Name, err)
		}
	case tar.TypeFifo:
		if err := syscall.Mkfifo(place, 0o600); err != nil {
			return atFault(header.Name, err)
		}
	case tar.TypeChar, tar.TypeBlock:
		t.skipped++
		return nil
	default:
		return refused(header.Name, "is of the unknown kind %q", header.Typeflag)
	}
	t.markFresh(path)
	return describe(place, header)
}

func (t *tree) putFile(place string, header *tar.Header, content io.Reader) error {
	if err := t.spend(header.Name, header.Size); err != nil {
		return err
	}
	file, err := os.OpenFile(place, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return atFault(header.Name, err)
	}
	defer file.Close()
	if err := t.copy(file, content); err != nil {
		var problem *problem
		if errors.As(err, &problem) || errors.As(err, new(*os.PathError)) {
			return atFault(header.Name, err)
		}
		return broken("ends or is damaged within %s: %v", quote(header.Name), err)
	}
	if err := file.Truncate(header.Size); err != nil {
		return err
	}
	return file.Close()
}

var noBytes [64 << 10]byte

// copy leaves a hole where a whole block is zero.
func (t *tree) copy(file *os.File, content io.Reader) error {
	block := t.block[:]
	var offset int64
	for {
		n, err := io.ReadFull(content, block)
		if n > 0 && !(n == len(block) && bytes.Equal(block, noBytes[:])) {
			if _, err := file.WriteAt(block[:n], offset); err != nil {
				return err
			}
		}
		offset += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return checkEnd(content)
		}
		if err != nil {
			return err
		}
	}
}

// checkEnd tells a file that is over from one that is cut off: io.ReadFull calls both alike.
func checkEnd(content io.Reader) error {
	if _, err := content.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("unexpected end")
	}
	return nil
}

// atFault blames the layer for a name that this file system does not take.
func atFault(name string, err error) error {
	for _, errno := range []syscall.Errno{syscall.ENAMETOOLONG, syscall.EINVAL, syscall.ELOOP, syscall.EMLINK, syscall.EILSEQ} {
		if errors.Is(err, errno) {
			return refused(name, "cannot be made: %v", errno)
		}
	}
	return err
}
