package main

import (
	"archive/tar"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// unpackTree reads a tar of files and directories into a directory, which is made when it is missing. New files belong
// to the user, have the permissions and times of the archive, and take the place of whatever was there; no link is
// followed below the directory. It returns how many files came, and their bytes.
func unpackTree(root string, acc account, body io.Reader) (files int, bytes int64, err error) {
	if _, err := makeDirs(root, acc); err != nil {
		return 0, 0, err
	}
	type dated struct {
		path string
		at   time.Time
	}
	var directories []dated
	archive := tar.NewReader(body)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return files, bytes, asUploadFault(err)
		}
		path, err := below(root, header.Name)
		if err != nil {
			return files, bytes, err
		}
		switch header.Typeflag {
		case tar.TypeDir:
			made, err := unpackDir(path, header, acc)
			if err != nil {
				return files, bytes, err
			}
			if made {
				directories = append(directories, dated{path, header.ModTime})
			}
		case tar.TypeReg:
			size, err := unpackFile(path, header, acc, archive)
			if err != nil {
				return files, bytes, err
			}
			files++
			bytes += size
		default:
			return files, bytes, fail("bad_request", "%q is neither file nor directory", header.Name)
		}
	}
	// Last, because every file that comes changes the time of its directory.
	for i := len(directories) - 1; i >= 0; i-- {
		_ = os.Chtimes(directories[i].path, directories[i].at, directories[i].at)
	}
	return files, bytes, nil
}

func below(root, name string) (string, error) {
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return "", fail("bad_request", "%q leads out of the directory", name)
		}
	}
	return filepath.Join(root, name), nil
}

func unpackDir(path string, header *tar.Header, acc account) (bool, error) {
	fi, err := os.Lstat(path)
	switch {
	case err == nil && fi.IsDir():
		return false, nil
	case err == nil:
		return false, fail("not_directory", "%q is not a directory", path)
	case !errors.Is(err, os.ErrNotExist):
		return false, err
	}
	if _, err := makeDirs(path, acc); err != nil {
		return false, err
	}
	return true, syscall.Chmod(path, uint32(header.Mode)&0o777)
}

func unpackFile(path string, header *tar.Header, acc account, body io.Reader) (int64, error) {
	if fi, err := os.Lstat(path); err == nil {
		if fi.IsDir() {
			return 0, fail("is_directory", "%q is a directory", path)
		}
		if err := os.Remove(path); err != nil {
			return 0, err
		}
	} else if errors.Is(err, os.ErrNotExist) {
		if _, err := makeDirs(filepath.Dir(path), acc); err != nil {
			return 0, err
		}
	} else {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := copyAll(f, body)
	if err != nil {
		return size, asUploadFault(err)
	}
	if err := f.Chown(int(acc.UID), int(acc.GID)); err != nil {
		return size, err
	}
	if err := syscall.Fchmod(int(f.Fd()), uint32(header.Mode)&0o777); err != nil {
		return size, err
	}
	return size, os.Chtimes(path, header.ModTime, header.ModTime)
}

// asUploadFault leaves the errors of the file system as they are; what the archive's own are is the sender's fault.
func asUploadFault(err error) error {
	var errno syscall.Errno
	var known *protocolError
	if errors.As(err, &errno) || errors.As(err, &known) {
		return err
	}
	return fail("bad_request", "the archive cannot be read: %v", err)
}

// packTree writes everything below a directory as a tar. Links and special files have entries without content, so that
// whoever reads it can say what there was. What changes meanwhile is sent as it is then; what goes is left out.
func packTree(w http.ResponseWriter, root string) error {
	fi, err := os.Lstat(root)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fail("not_directory", "%q is not a directory", root)
	}
	w.Header().Set("Content-Type", "application/x-tar")
	w.WriteHeader(http.StatusOK)
	archive := tar.NewWriter(w)
	if err := packDir(archive, root, "", 0); err != nil {
		logf("archive of %s: %v", root, err)
		panic(http.ErrAbortHandler) // the answer has begun: only its broken end can tell
	}
	if archive.Close() != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

func packDir(archive *tar.Writer, dir, name string, depth int) error {
	if depth > maxDepth {
		return errors.New("too deep")
	}
	names, err := readNames(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, each := range names {
		path, entry := dir+"/"+each, name+each
		fi, err := os.Lstat(path)
		if err != nil {
			continue // gone meanwhile
		}
		if fi.IsDir() {
			if err := archive.WriteHeader(treeHeader(entry+"/", tar.TypeDir, fi)); err != nil {
				return err
			}
			if err := packDir(archive, path, entry+"/", depth+1); err != nil {
				return err
			}
			continue
		}
		if err := packFile(archive, path, entry, fi); err != nil {
			return err
		}
	}
	return nil
}

func packFile(archive *tar.Writer, path, name string, fi os.FileInfo) error {
	if !fi.Mode().IsRegular() {
		kind := byte(tar.TypeFifo)
		if fi.Mode()&os.ModeSymlink != 0 {
			kind = tar.TypeSymlink
		}
		header := treeHeader(name, kind, fi)
		if kind == tar.TypeSymlink {
			header.Linkname = "."
		}
		return archive.WriteHeader(header)
	}
	f, now, err := openRegular(path)
	if err != nil {
		return nil // gone, or something else meanwhile
	}
	defer f.Close()
	header := treeHeader(name, tar.TypeReg, now)
	header.Size = now.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	size, err := copyAll(archive, io.LimitReader(f, header.Size))
	if err != nil {
		return err
	}
	// One that shrank while it was read keeps its length: the header has gone out.
	_, err = io.CopyN(archive, zeroes{}, header.Size-size)
	return err
}

func treeHeader(name string, kind byte, fi os.FileInfo) *tar.Header {
	return &tar.Header{Name: name, Typeflag: kind, Mode: int64(fi.Mode().Perm()), ModTime: fi.ModTime().Truncate(time.Second)}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0
	}
	return len(p), nil
}
