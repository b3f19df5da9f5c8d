package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// account is a user of the sandbox, as /etc/passwd and /etc/group describe it.
type account struct {
	Name   string `json:"name"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Home   string `json:"home"`
	shell  string
	groups []uint32
}

func (a account) credential() *syscall.Credential {
	return &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: a.groups}
}

// passwdEntry is a line of /etc/passwd.
type passwdEntry struct {
	name        string
	uid, gid    uint32
	home, shell string
}

// groupEntry is a line of /etc/group.
type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

func parsePasswd(text string) []passwdEntry {
	var entries []passwdEntry
	for _, line := range strings.Split(text, "\n") {
		f := strings.Split(line, ":")
		if len(f) < 7 || f[0] == "" || f[0][0] == '#' {
			continue
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		entries = append(entries, passwdEntry{f[0], uint32(uid), uint32(gid), f[5], strings.TrimSpace(f[6])})
	}
	return entries
}

func parseGroup(text string) []groupEntry {
	var entries []groupEntry
	for _, line := range strings.Split(text, "\n") {
		f := strings.Split(line, ":")
		if len(f) < 4 || f[0] == "" || f[0][0] == '#' {
			continue
		}
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			continue
		}
		members := strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' || r == ' ' || r == '\r' })
		entries = append(entries, groupEntry{f[0], uint32(gid), members})
	}
	return entries
}

// accounts answers "who is this user" from the sandbox's own files. They are read again only when they have
// changed: users are looked up for every command, and added by commands.
type accounts struct {
	passwdPath, groupPath string

	mu          sync.Mutex
	passwdStamp fileStamp
	groupStamp  fileStamp
	passwd      []passwdEntry
	group       []groupEntry
}

type fileStamp struct {
	mtime time.Time
	size  int64
	inode uint64
}

func stampOf(path string) fileStamp {
	fi, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	stamp := fileStamp{mtime: fi.ModTime(), size: fi.Size()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		stamp.inode = st.Ino
	}
	return stamp
}

func newAccounts(root string) *accounts {
	return &accounts{passwdPath: root + "/etc/passwd", groupPath: root + "/etc/group"}
}

// entries returns both files; the slices must not be changed.
func (a *accounts) entries() ([]passwdEntry, []groupEntry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if stamp := stampOf(a.passwdPath); stamp != a.passwdStamp || a.passwd == nil {
		text, _ := readSmallFile(a.passwdPath)
		a.passwd, a.passwdStamp = parsePasswd(string(text)), stamp
	}
	if stamp := stampOf(a.groupPath); stamp != a.groupStamp || a.group == nil {
		text, _ := readSmallFile(a.groupPath)
		a.group, a.groupStamp = parseGroup(string(text)), stamp
	}
	return a.passwd, a.group
}

// find looks up a name or a numeric uid. root exists in every sandbox; a number nobody has a name for is
// accepted as it stands, with gid of the same number, as `docker run --user` does.
func (a *accounts) find(user string) (account, error) {
	passwd, group := a.entries()
	number, numeric := parseID(user)
	var found *passwdEntry
	for i := range passwd {
		if passwd[i].name == user {
			found = &passwd[i]
			break
		}
	}
	if found == nil && numeric {
		for i := range passwd {
			if passwd[i].uid == number {
				found = &passwd[i]
				break
			}
		}
	}
	switch {
	case found != nil:
		acc := account{Name: found.name, UID: found.uid, GID: found.gid, Home: found.home, shell: found.shell}
		if acc.Home == "" {
			acc.Home = "/"
		}
		for _, g := range group {
			if g.gid == acc.GID {
				continue
			}
			for _, m := range g.members {
				if m == acc.Name {
					acc.groups = append(acc.groups, g.gid)
					break
				}
			}
		}
		// The primary group is listed too, as login programs do: `id` shows it once either way.
		acc.groups = append([]uint32{acc.GID}, acc.groups...)
		return acc, nil
	case user == "root" || numeric && number == 0:
		return account{Name: "root", Home: "/root", groups: []uint32{0}}, nil
	case numeric:
		return account{Name: user, UID: number, GID: number, Home: "/", groups: []uint32{number}}, nil
	}
	return account{}, fail("user_not_found", "there is no user %q in the sandbox", user)
}

// findGroup looks up a group's name or number.
func (a *accounts) findGroup(name string) (uint32, bool) {
	_, group := a.entries()
	for _, g := range group {
		if g.name == name {
			return g.gid, true
		}
	}
	return parseID(name)
}

// nameOf returns the user's name for a uid, or the number as text.
func (a *accounts) nameOf(uid uint32) string {
	passwd, _ := a.entries()
	for _, e := range passwd {
		if e.uid == uid {
			return e.name
		}
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// parseID reads a uid or gid; 2^32-1 is refused because the kernel takes it for "leave unchanged".
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, false
	}
	return uint32(n), true
}
