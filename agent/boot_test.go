package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// image makes a root with the given files.
func image(t *testing.T, files map[string]string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("changing owners needs root")
	}
	root := t.TempDir()
	for _, dir := range []string{"/dev", "/bin", "/usr/bin"} {
		os.MkdirAll(root+dir, 0o755)
	}
	for path, text := range files {
		os.MkdirAll(filepath.Dir(root+path), 0o755)
		write(t, root+path, text)
	}
	return root
}

func TestBootPreparesAnyImage(t *testing.T) {
	for name, c := range map[string]struct {
		files         map[string]string
		passwd, group string // what must be in the files afterwards, "" for unchanged
		uid, gid      uint32
	}{
		"empty": {nil, "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n", "root:x:0:\nuser:x:1000:\n", 1000, 1000},
		"a usual one": {map[string]string{"/etc/passwd": "root:x:0:0::/root:/bin/bash\n", "/etc/group": "root:x:0:\n", "/bin/bash": ""},
			"root:x:0:0::/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n", "root:x:0:\nuser:x:1000:\n", 1000, 1000},
		"uid 1000 is somebody's": {map[string]string{"/etc/passwd": "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh",
			"/etc/group": "root:x:0:\nnode:x:1000:"},
			"root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nuser:x:1001:1001::/home/user:/bin/sh\n",
			"root:x:0:\nnode:x:1000:\nuser:x:1001:\n", 1001, 1001},
		"gid 1000 is somebody's": {map[string]string{"/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/group": "root:x:0:\nstaff:x:1000:\n"},
			"root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n", "root:x:0:\nstaff:x:1000:\nuser:x:1001:\n", 1000, 1001},
		"it has a user": {map[string]string{"/etc/passwd": "root:x:0:0::/root:/bin/sh\nuser:x:500:50::/elsewhere:/bin/sh\n", "/etc/group": "root:x:0:\n"},
			"root:x:0:0::/root:/bin/sh\nuser:x:500:50::/elsewhere:/bin/sh\n", "root:x:0:\n", 500, 50},
	} {
		root := image(t, c.files)
		for round := 0; round < 2; round++ { // the second changes nothing
			acc, _ := boot(root, "/.paddock/agent")
			if acc.UID != c.uid || acc.GID != c.gid {
				t.Errorf("%s: %+v", name, acc)
			}
			if got := read(t, root+"/etc/passwd"); got != c.passwd {
				t.Errorf("%s: passwd\n%s", name, got)
			}
			if got := read(t, root+"/etc/group"); got != c.group {
				t.Errorf("%s: group\n%s", name, got)
			}
			if got := read(t, root+"/etc/hosts"); got != "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" {
				t.Errorf("%s: hosts\n%s", name, got)
			}
		}
		if info := mustInfo(t, root+"/home/user"); info.UID != c.uid || info.GID != c.gid || info.Type != "dir" {
			t.Errorf("%s: %+v", name, info)
		}
		for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
			if info := mustInfo(t, root+dir); info.Mode != 0o1777 {
				t.Errorf("%s: %s has mode %o", name, dir, info.Mode)
			}
		}
		if target, _ := os.Readlink(root + "/usr/bin/sudo"); target != "/.paddock/agent" {
			t.Errorf("%s: sudo is %q", name, target)
		}
		if target, _ := os.Readlink(root + "/dev/fd"); target != "/proc/self/fd" {
			t.Errorf("%s: fd is %q", name, target)
		}
	}
}

func TestBootReplacesTheImagesSudoAndCopiesTheSkeleton(t *testing.T) {
	root := image(t, map[string]string{"/usr/bin/sudo": "the real one", "/etc/skel/.bashrc": "# rc\n", "/etc/shadow": "root:*:1::::::\n",
		"/etc/hosts": "10.0.0.1 db # localhost in a comment"})
	os.Chmod(root+"/etc/shadow", 0o640)
	boot(root, "/.paddock/agent")
	if target, _ := os.Readlink(root + "/usr/bin/sudo"); target != "/.paddock/agent" {
		t.Errorf("sudo is %q", target)
	}
	if got := read(t, root+"/home/user/.bashrc"); got != "# rc\n" {
		t.Error(got)
	}
	if info := mustInfo(t, root+"/home/user/.bashrc"); info.UID != 1000 {
		t.Errorf("%+v", info)
	}
	if got := read(t, root+"/etc/shadow"); got != "root:*:1::::::\nuser:*:19000:0:99999:7:::\n" {
		t.Error(got)
	}
	if info := mustInfo(t, root+"/etc/shadow"); info.Mode != 0o640 {
		t.Errorf("%o", info.Mode)
	}
	if got := read(t, root+"/etc/hosts"); !strings.HasPrefix(got, "10.0.0.1 db # localhost in a comment\n127.0.0.1\tlocalhost\n") {
		t.Error(got)
	}
	unlinkSudo(root, "/.paddock/agent")
	if _, err := os.Lstat(root + "/usr/bin/sudo"); err == nil {
		t.Error("the link is still there")
	}
}
