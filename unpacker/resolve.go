package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

const (
	longestPath = 4095
	longestName = 255
	deepest     = 256
	mostLinks   = 40 // followed for one name, as the kernel does
)

// split checks a name of the tar and cuts it into components, none of which is empty, `.` or `..`.
func split(name string) ([]string, error) {
	if name == "" {
		return nil, refused(name, "is no name")
	}
	if strings.HasPrefix(name, "/") {
		return nil, refused(name, "is an absolute name; names in a layer are relative")
	}
	if len(name) > longestPath {
		return nil, refused(name, "is longer than %d bytes", longestPath)
	}
	if strings.ContainsRune(name, 0) {
		return nil, refused(name, "has a NUL in it")
	}
	var parts []string
	for _, part := range strings.Split(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, refused(name, "has .. in it")
		case len(part) > longestName:
			return nil, refused(name, "has a component longer than %d bytes", longestName)
		}
		parts = append(parts, part)
	}
	if len(parts) > deepest {
		return nil, refused(name, "is deeper than %d directories", deepest)
	}
	return parts, nil
}

// parentOf is the directory that holds the last component, links followed and directories made on the way.
func (t *tree) parentOf(name string, parts []string) (string, error) {
	parent := strings.Join(parts[:len(parts)-1], "/")
	if parent == t.lastParent && t.lastResolved != "" {
		return t.lastResolved, nil
	}
	path, err := t.resolve(name, parts[:len(parts)-1], true)
	if err != nil {
		return "", err
	}
	t.lastParent, t.lastResolved = parent, path
	return path, nil
}

// forget is called when a name may lead elsewhere than before.
func (t *tree) forget() { t.lastResolved = "" }

// resolve follows links as a process does whose root is the tree: `..` ends at the root, absolute links begin there. With
// `make` what is missing becomes a directory, otherwise the path is "".
func (t *tree) resolve(name string, parts []string, make bool) (string, error) {
	left := append([]string(nil), parts...)
	path, depth, links := "", 0, 0
	for len(left) > 0 {
		part := left[0]
		left = left[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			if depth > 0 {
				path, depth = path[:strings.LastIndexByte(path, '/')], depth-1
			}
			continue
		}
		next := path + "/" + part
		if len(next) > longestPath || depth >= deepest {
			return "", refused(name, "leads deeper than %d bytes or %d directories", longestPath, deepest)
		}
		info, err := os.Lstat(t.at(next))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if !make {
				return "", nil
			}
			if err := t.makeDirectory(name, next); err != nil {
				return "", err
			}
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > mostLinks {
				return "", refused(name, "leads through more than %d links", mostLinks)
			}
			target, err := os.Readlink(t.at(next))
			if err != nil {
				return "", err
			}
			if strings.HasPrefix(target, "/") {
				path, depth = "", 0
			}
			left = append(strings.Split(target, "/"), left...)
			continue
		case !info.IsDir():
			if !make {
				return "", nil
			}
			return "", refused(name, "leads through %s, which is no directory", quote(next))
		}
		path, depth = next, depth+1
	}
	if path == "" {
		return "/", nil
	}
	return path, nil
}
