package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// volumesDir is where the host makes volumes appear, one below each number.
const volumesDir = "/.paddock/volumes"

const maxMounts = 64

var pointShape = regexp.MustCompile(`^[0-9]{1,3}$`)

type mountRequest struct {
	Mounts []struct {
		Point    string `json:"point"`
		Path     string `json:"path"`
		ReadOnly bool   `json:"read_only"`
	} `json:"mounts"`
}

// mount binds volumes that the host has made appear to the paths where they are wanted. It may be repeated.
func (a *agent) mount(w http.ResponseWriter, r *http.Request, id *identity) error {
	var request mountRequest
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	if len(request.Mounts) > maxMounts {
		return fail("bad_request", "mounts has more than %d entries", maxMounts)
	}
	acc, err := a.accounts.find(id.defaultUser)
	if err != nil {
		return err
	}
	for _, m := range request.Mounts {
		if !pointShape.MatchString(m.Point) || !filepath.IsAbs(m.Path) {
			return fail("bad_request", "a mount needs a point, which is a number, and an absolute path")
		}
		path, err := cleanPath(m.Path, acc)
		if err != nil {
			return err
		}
		if err := bindVolume(filepath.Join(volumesDir, m.Point), path, m.ReadOnly, acc); err != nil {
			return err
		}
	}
	return answer(w, 200, struct{}{}, nil)
}

func bindVolume(source, path string, readOnly bool, acc account) error {
	if _, err := makeDirs(path, acc); err != nil {
		return err
	}
	if from, err := os.Stat(source); err != nil {
		return err
	} else if to, err := os.Stat(path); err == nil && os.SameFile(from, to) {
		return nil
	}
	if err := syscall.Mount(source, path, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if readOnly {
		// For those who look at the list of mounts. What keeps it read-only is the host.
		_ = syscall.Mount("", path, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	}
	return nil
}
