package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const maxLinks = 40

// cleanPath makes a request's path absolute and clean.
func cleanPath(path string, acc account) (string, error) {
	switch {
	case path == "":
		return "", fail("bad_request", "path is missing")
	case strings.IndexByte(path, 0) >= 0:
		return "", fail("bad_request", "path contains a NUL byte")
	case !filepath.IsAbs(path):
		path = acc.Home + "/" + path
	}
	path = filepath.Clean(path)
	if len(path) >= 4096 {
		return "", fail("bad_request", "path is longer than 4095 bytes")
	}
	return path, nil
}

// resolveLinks follows symbolic links to the end, which need not exist: the result is the path a new file would
// get. The directory it lies in is fully resolved as far as it exists.
func resolveLinks(path string) (string, error) {
	for i := 0; i < maxLinks; i++ {
		dir, base := filepath.Split(path)
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			path = filepath.Join(real, base)
		} else if isLinkLoop(err) {
			return "", syscall.ELOOP
		}
		target, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link, or not there
		}
		if !filepath.IsAbs(target) {
			// Not Join, which would resolve ".." by spelling instead of by the directories.
			target = filepath.Dir(path) + "/" + target
		}
		path = strings.TrimRight(target, "/")
		if path == "" {
			return "/", nil
		}
	}
	return "", syscall.ELOOP
}

// isLinkLoop knows EvalSymlinks' own error, which has no type.
func isLinkLoop(err error) bool {
	return errors.Is(err, syscall.ELOOP) || err != nil && strings.Contains(err.Error(), "too many links")
}

// makeDirs makes a directory with its parents. New ones belong to the user; their paths are returned, outermost
// first, so that a failed operation can take them away.
func makeDirs(path string, acc account) (made []string, err error) {
	var missing []string
	for p := path; ; p = filepath.Dir(p) {
		fi, err := os.Stat(p)
		if err == nil {
			if !fi.IsDir() {
				return nil, fail("not_directory", "%q is not a directory", p)
			}
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		missing = append(missing, p)
		if p == "/" || p == "." {
			return nil, err
		}
	}
	for i := len(missing) - 1; i >= 0; i-- {
		p := missing[i]
		if err := os.Mkdir(p, 0o755); err != nil {
			if fi, statErr := os.Stat(p); statErr == nil && fi.IsDir() {
				continue // somebody else was faster
			}
			removeDirs(made)
			return nil, err
		}
		made = append(made, p)
		if err := os.Lchown(p, int(acc.UID), int(acc.GID)); err != nil {
			removeDirs(made)
			return nil, err
		}
	}
	return made, nil
}

// removeDirs takes back what makeDirs made, as far as it is still empty.
func removeDirs(made []string) {
	for i := len(made) - 1; i >= 0; i-- {
		if syscall.Rmdir(made[i]) != nil {
			return
		}
	}
}

// cutPrefix is strings.CutPrefix, which Go 1.19 has not.
func cutPrefix(s, prefix string) (string, bool) {
	if !strings.HasPrefix(s, prefix) {
		return s, false
	}
	return s[len(prefix):], true
}
