package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	sandboxUser = "user"
	sandboxHome = "/home/user"
)

// readSmallFile reads a file that is small unless somebody plays tricks.
func readSmallFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 8<<20))
}

// replaceFile writes a file beside the target and renames it over it, so that a reader, or a crash, meets the old or
// the new one. The old mode and owner stay.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	tmp := path + ".paddock-new"
	if err := os.WriteFile(tmp, content, mode); err != nil {
		return err
	}
	if fi, err := os.Stat(path); err == nil {
		mode = fi.Mode().Perm()
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			_ = os.Chown(tmp, int(st.Uid), int(st.Gid))
		}
	}
	err := os.Chmod(tmp, mode)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// boot prepares what every image needs and may lack. It is idempotent, costs a few milliseconds, and never fails
// as a whole: an image that refuses one step is still a sandbox. root is "" in a sandbox and a directory in tests.
func boot(root, executable string) (account, *accounts) {
	must := func(what string, err error) {
		if err != nil {
			logf("%s: %v", what, err)
		}
	}
	for _, dir := range []string{"/etc", "/run/paddock", "/usr/bin"} {
		must("boot", os.MkdirAll(root+dir, 0o755))
	}
	if err := os.Mkdir(root+"/run/paddock/private", 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		must("boot", err)
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		must("boot", os.MkdirAll(root+dir, 0o755))
		must("boot", os.Chmod(root+dir, 0o777|os.ModeSticky))
	}
	for link, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(target, root+"/dev/"+link); err != nil && !errors.Is(err, os.ErrExist) {
			must("boot", err)
		}
	}
	must("users", ensureUser(root))
	must("hosts", renameHost(root, "", ""))
	must("sudo", linkSudo(root, executable))

	users := newAccounts(root)
	acc, err := users.find(sandboxUser)
	if err != nil {
		logf("users: %v", err)
		acc = account{Name: sandboxUser, UID: 1000, GID: 1000, Home: sandboxHome, groups: []uint32{1000}}
	}
	must("home", ensureHome(root, sandboxHome, acc))
	return acc, users
}

// freeID returns 1000 or the next number for which taken is false.
func freeID(taken func(uint32) bool) uint32 {
	id := uint32(1000)
	for taken(id) {
		id++
	}
	return id
}

// ensureUser adds root and `user` to the account files where they are missing.
func ensureUser(root string) error {
	etc := root + "/etc/"
	passwdText, _ := readSmallFile(etc + "passwd")
	groupText, _ := readSmallFile(etc + "group")
	passwd, group := parsePasswd(string(passwdText)), parseGroup(string(groupText))

	hasUser, hasRoot := false, false
	for _, e := range passwd {
		hasUser = hasUser || e.name == sandboxUser
		hasRoot = hasRoot || e.name == "root"
	}
	var addPasswd, addGroup, addShadow string
	sh := "/bin/sh"
	if _, err := os.Stat(root + "/bin/bash"); err == nil {
		sh = "/bin/bash"
	}
	hasRootGroup, userGID := false, int64(-1)
	for _, g := range group {
		hasRootGroup = hasRootGroup || g.name == "root"
		if g.name == sandboxUser {
			userGID = int64(g.gid)
		}
	}
	if !hasRootGroup {
		addGroup += "root:x:0:\n"
	}
	if !hasRoot {
		addPasswd += "root:x:0:0:root:/root:" + sh + "\n"
		addShadow += "root:*:19000:0:99999:7:::\n"
		if err := os.MkdirAll(root+"/root", 0o700); err != nil {
			return err
		}
	}
	if !hasUser {
		uid := freeID(func(id uint32) bool {
			for _, e := range passwd {
				if e.uid == id {
					return true
				}
			}
			return false
		})
		if userGID < 0 {
			// The number of the uid if it is free, so that the two agree.
			gid := freeID(func(id uint32) bool {
				for _, g := range group {
					if g.gid == id {
						return true
					}
				}
				return id < uid
			})
			userGID = int64(gid)
			addGroup += fmt.Sprintf("%s:x:%d:\n", sandboxUser, gid)
		}
		addPasswd += fmt.Sprintf("%s:x:%d:%d::%s:%s\n", sandboxUser, uid, userGID, sandboxHome, sh)
		addShadow += sandboxUser + ":*:19000:0:99999:7:::\n"
	}
	if err := appendLines(etc+"group", groupText, addGroup, 0o644); err != nil {
		return err
	}
	if addShadow != "" {
		// Only where there is one: without it, `x` in passwd just means that nobody can log in with a password.
		if shadow, err := readSmallFile(etc + "shadow"); err == nil {
			for _, line := range strings.SplitAfter(addShadow, "\n") {
				name, _, _ := strings.Cut(line, ":")
				if line != "" && strings.Contains("\n"+string(shadow), "\n"+name+":") {
					addShadow = strings.Replace(addShadow, line, "", 1)
				}
			}
			if err := appendLines(etc+"shadow", shadow, addShadow, 0o640); err != nil {
				return err
			}
		}
	}
	return appendLines(etc+"passwd", passwdText, addPasswd, 0o644)
}

func appendLines(path string, text []byte, lines string, mode os.FileMode) error {
	if lines == "" {
		return nil
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return replaceFile(path, append(text, lines...), mode)
}

// ensureHome makes a home as useradd does, with the files of /etc/skel.
func ensureHome(root, home string, acc account) error {
	fi, err := os.Lstat(root + home)
	if err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && fi.IsDir() && st.Uid != acc.UID && st.Uid == 0 {
			// Some images bring the directory but not the user.
			return os.Chown(root+home, int(acc.UID), int(acc.GID))
		}
		return nil
	}
	if err := os.MkdirAll(root+home, 0o755); err != nil {
		return err
	}
	if err := os.Chown(root+home, int(acc.UID), int(acc.GID)); err != nil {
		return err
	}
	skeleton, _ := os.ReadDir(root + "/etc/skel")
	for _, e := range skeleton {
		if !e.Type().IsRegular() {
			continue
		}
		text, err := readSmallFile(filepath.Join(root, "/etc/skel", e.Name()))
		if err != nil {
			continue
		}
		target := filepath.Join(root+home, e.Name())
		if os.WriteFile(target, text, 0o644) == nil {
			_ = os.Chown(target, int(acc.UID), int(acc.GID))
		}
	}
	return nil
}

// renameHost makes names of the loopback resolve, and the sandbox's own name once it has one. The line that was added
// for the old name goes.
func renameHost(root, old, hostname string) error {
	path := root + "/etc/hosts"
	before, _ := readSmallFile(path)
	text := string(before)
	if old != "" && old != hostname {
		text = strings.TrimPrefix(strings.Replace("\n"+text, "\n"+hostLine(old), "\n", 1), "\n")
	}
	has := func(name string) bool {
		for _, line := range strings.Split(text, "\n") {
			line, _, _ = strings.Cut(line, "#")
			fields := strings.Fields(line)
			for i := 1; i < len(fields); i++ {
				if fields[i] == name {
					return true
				}
			}
		}
		return false
	}
	var add string
	if !has("localhost") {
		add += "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	}
	if hostname != "" && !has(hostname) {
		add += hostLine(hostname)
	}
	if add != "" && text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if text += add; text == string(before) {
		return nil
	}
	return writeInPlaceOrReplace(path, []byte(text))
}

func hostLine(name string) string { return "127.0.1.1\t" + name + "\n" }

// writeInPlaceOrReplace is for files that may be bind mounts (they cannot be renamed over) or links out of place.
func writeInPlaceOrReplace(path string, content []byte) error {
	if err := overwriteAtOnce(path, content); err == nil {
		return nil
	}
	// A dangling link, for example resolv.conf into a directory that is not there.
	return replaceFile(path, content, 0o644)
}

// overwriteAtOnce writes before it cuts: a program that reads meanwhile never meets an empty file.
func overwriteAtOnce(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Truncate(int64(len(content)))
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// linkSudo puts the agent in the place of sudo: the kernel of the sandbox knows no set-uid.
func linkSudo(root, executable string) error {
	path := root + "/usr/bin/sudo"
	if target, err := os.Readlink(path); err == nil && target == executable {
		return nil
	}
	tmp := root + "/usr/bin/.sudo.paddock-new"
	os.Remove(tmp)
	if err := os.Symlink(executable, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// unlinkSudo takes it away again where it is not wanted.
func unlinkSudo(root, executable string) {
	path := root + "/usr/bin/sudo"
	if target, err := os.Readlink(path); err == nil && target == executable {
		os.Remove(path)
	}
}
