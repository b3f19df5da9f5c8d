package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func fileURL(path string, more ...string) string {
	u := "/v1/files?path=" + url.QueryEscape(path)
	for i := 0; i+1 < len(more); i += 2 {
		u += "&" + more[i] + "=" + url.QueryEscape(more[i+1])
	}
	return u
}

func mustInfo(t *testing.T, path string) fileEntry {
	t.Helper()
	info, err := fileInfo(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestAFileIsWrittenAndReadBack(t *testing.T) {
	a := claimed(t)
	for _, name := range []string{"plain", "a/b/c/deep", "with space", "quote'\"$`\\", "new\nline", "日本 ümläut", "bad\xff\xfeutf8", strings.Repeat("n", 255)} {
		content := []byte("content of " + name)
		status, body := a.call("PUT", fileURL(name), content)
		if status != 200 || !strings.Contains(body, fmt.Sprintf(`"size":%d`, len(content))) {
			t.Errorf("%q: %d %s", name, status, body)
			continue
		}
		if status, body := a.call("GET", fileURL(name), nil); status != 200 || body != string(content) {
			t.Errorf("%q: %d %q", name, status, body)
		}
		if info := mustInfo(t, filepath.Join(a.home, name)); info.UID != 54321 || info.GID != 54321 || info.Mode != 0o644 {
			t.Errorf("%q: %+v", name, info)
		}
	}
	if info := mustInfo(t, filepath.Join(a.home, "a/b")); info.UID != 54321 || info.Mode != 0o755 {
		t.Errorf("%+v", info)
	}
}

func TestAnExistingFileKeepsItsModeAndOwner(t *testing.T) {
	a := claimed(t)
	path := filepath.Join(a.home, "f")
	write(t, path, "old")
	os.Chown(path, 7, 8)
	os.Chmod(path, 0o600)
	a.want(200, fmt.Sprintf(`{"path":%q,"size":3}`, path), "PUT", fileURL("f"), []byte("new"))
	if info := mustInfo(t, path); info.UID != 7 || info.GID != 8 || info.Mode != 0o600 {
		t.Errorf("%+v", info)
	}
	a.call("PUT", fileURL("f", "mode", "4751"), []byte("x"))
	if info := mustInfo(t, path); info.Mode != 0o4751 {
		t.Errorf("%o", info.Mode)
	}
	a.call("PUT", fileURL("g", "user", "root"), []byte("x"))
	if info := mustInfo(t, filepath.Join(a.home, "g")); info.UID != 0 {
		t.Errorf("%+v", info)
	}
}

func TestLinksAreFollowedToTheirEnd(t *testing.T) {
	a := claimed(t)
	os.MkdirAll(filepath.Join(a.home, "d/e"), 0o755)
	for link, target := range map[string]string{"abs": filepath.Join(a.home, "d/f"), "rel": "d/../d/f", "chain": "rel", "dir": "d/e",
		"dangling": "made/by/put", "up": "dir/../f", "loop1": "loop2", "loop2": "loop1"} {
		if err := os.Symlink(target, filepath.Join(a.home, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"abs", "rel", "chain", "up"} {
		a.call("PUT", fileURL(name), []byte("by "+name))
		if got := read(t, filepath.Join(a.home, "d/f")); got != "by "+name {
			t.Errorf("%s: %q", name, got)
		}
		if info := mustInfo(t, filepath.Join(a.home, name)); info.Type != "symlink" || info.TargetType != "file" {
			t.Errorf("%s: %+v", name, info)
		}
	}
	a.call("PUT", fileURL("dangling"), []byte("x"))
	if got := read(t, filepath.Join(a.home, "made/by/put")); got != "x" {
		t.Error(got)
	}
	for _, method := range []string{"PUT", "GET"} {
		a.wantCode("link_loop", method, fileURL("loop1"), nil)
		a.wantCode("link_loop", method, fileURL("loop1/x"), nil)
	}
	a.wantCode("link_loop", "GET", strings.Replace(fileURL("loop1"), "/files", "/files/list", 1), nil)
	// Deleting and renaming a link leaves its target alone.
	a.want(200, `{"removed":true}`, "DELETE", fileURL("dir"), nil)
	a.call("POST", "/v1/files/rename", map[string]string{"old_path": "abs", "new_path": "abs2"})
	if info := mustInfo(t, filepath.Join(a.home, "abs2")); info.Type != "symlink" {
		t.Errorf("%+v", info)
	}
	mustInfo(t, filepath.Join(a.home, "d/e"))
}

func TestWhatIsNoRegularFileIsNeverOpened(t *testing.T) {
	a := claimed(t)
	fifo := filepath.Join(a.home, "fifo")
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	os.Symlink(fifo, filepath.Join(a.home, "to-fifo"))
	l, err := net.Listen("unix", filepath.Join(a.home, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, name := range []string{"fifo", "to-fifo", "socket", "/dev/null", "/dev/zero"} {
			a.wantCode("not_regular", "GET", fileURL(name), nil)
			a.wantCode("not_regular", "PUT", fileURL(name), []byte("x"))
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it blocks")
	}
}

func TestErrorsOfFiles(t *testing.T) {
	a := claimed(t)
	os.Mkdir(filepath.Join(a.home, "dir"), 0o755)
	write(t, filepath.Join(a.home, "dir/file"), "x")
	for _, c := range []struct{ code, method, path string }{
		{"not_found", "GET", fileURL("missing")},
		{"is_directory", "GET", fileURL("dir")},
		{"is_directory", "PUT", fileURL("dir")},
		{"not_directory", "PUT", fileURL("dir/file/below")},
		{"not_directory", "PUT", fileURL("dir/file/below/deeper")},
		{"not_directory", "GET", fileURL("dir/file/below")},
		{"not_directory", "GET", "/v1/files/list?path=dir/file"},
		{"not_found", "GET", "/v1/files/list?path=missing"},
		{"not_found", "GET", "/v1/files/info?path=missing"},
		{"bad_request", "GET", "/v1/files"},
		{"bad_request", "GET", "/v1/files?path=a%00b"},
		{"bad_request", "PUT", fileURL(strings.Repeat("n", 256))},
		{"bad_request", "PUT", fileURL(strings.Repeat("n/", 2100))},
		{"bad_request", "PUT", fileURL("f", "mode", "999")},
		{"bad_request", "PUT", fileURL("f", "mode", "17777")},
		{"bad_request", "GET", "/v1/files/list?path=dir&depth=-1"},
		{"bad_request", "DELETE", fileURL("/")},
		{"bad_request", "DELETE", fileURL("/x/../..")},
		{"user_not_found", "GET", fileURL("dir/file", "user", "nobody-here")},
		{"bad_range", "GET", fileURL("dir/file")},
	} {
		headers := []string{}
		if c.code == "bad_range" {
			headers = []string{"Range", "bytes=5-"}
		}
		a.wantCode(c.code, c.method, c.path, nil, headers...)
	}
	entries, _ := os.ReadDir(a.home)
	if len(entries) != 1 {
		t.Errorf("something was left behind: %v", entries)
	}
}

func TestABrokenUploadChangesNothing(t *testing.T) {
	a := claimed(t)
	write(t, filepath.Join(a.home, "f"), "old")
	for _, path := range []string{"f", "new/dir/f"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(a.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\nhalf", fileURL(path), testToken)
		time.Sleep(50 * time.Millisecond)
		conn.Close()
	}
	eventually(t, "only the old file is left", func() bool {
		entries, _ := os.ReadDir(a.home)
		return len(entries) == 1
	})
	if got := read(t, filepath.Join(a.home, "f")); got != "old" {
		t.Error(got)
	}
}

func TestAFullDiskLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no mount:", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	_, err := writeFile(filepath.Join(dir, "a/b/f"), account{}, nil, bytes.NewReader(make([]byte, 2<<20)))
	if code := asProtocolError(err).Code; code != "no_space" {
		t.Errorf("%v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestWhatCannotBeRenamedOverIsWrittenInPlace(t *testing.T) {
	dir := t.TempDir()
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "mounted")
	write(t, source, "a long old content")
	write(t, target, "")
	if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
		t.Skip("no mount:", err)
	}
	defer syscall.Unmount(target, syscall.MNT_DETACH)
	if _, err := writeFile(target, account{}, nil, strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, source); got != "new" {
		t.Error(got)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left: %v", entries)
	}
	// Read-only: refused, and unchanged.
	syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	if _, err := writeFile(target, account{}, nil, strings.NewReader("x")); asProtocolError(err).Code != "forbidden" {
		t.Errorf("%v", err)
	}
	if got := read(t, source); got != "new" {
		t.Error(got)
	}
}

func TestMovingFromOneMountToAnother(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := syscall.Mount("none", to, "tmpfs", 0, ""); err != nil {
		t.Skip("no mount:", err)
	}
	defer syscall.Unmount(to, syscall.MNT_DETACH)
	os.MkdirAll(filepath.Join(from, "tree/sub"), 0o750)
	write(t, filepath.Join(from, "tree/sub/f"), "x")
	os.Chown(filepath.Join(from, "tree/sub/f"), 3, 4)
	os.Symlink("sub/f", filepath.Join(from, "tree/link"))
	syscall.Mkfifo(filepath.Join(from, "tree/fifo"), 0o600)
	if err := renameFile(filepath.Join(from, "tree"), filepath.Join(to, "new/tree"), account{UID: 5}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(to, "new/tree/link")); got != "x" {
		t.Error(got)
	}
	if info := mustInfo(t, filepath.Join(to, "new/tree/sub/f")); info.UID != 3 || info.GID != 4 {
		t.Errorf("%+v", info)
	}
	if info := mustInfo(t, filepath.Join(to, "new/tree/sub")); info.Mode != 0o750 {
		t.Errorf("%+v", info)
	}
	if _, err := os.Lstat(filepath.Join(from, "tree")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the source is still there")
	}
}

func TestRename(t *testing.T) {
	a := claimed(t)
	os.MkdirAll(filepath.Join(a.home, "full/x"), 0o755)
	os.Mkdir(filepath.Join(a.home, "empty"), 0o755)
	os.Mkdir(filepath.Join(a.home, "moved"), 0o755)
	write(t, filepath.Join(a.home, "f"), "f")
	write(t, filepath.Join(a.home, "g"), "g")
	rename := func(from, to string) map[string]string { return map[string]string{"old_path": from, "new_path": to} }
	for _, c := range []struct{ code, from, to string }{
		{"not_found", "missing", "x/y"}, {"exists", "moved", "full"}, {"is_directory", "f", "empty"}, {"not_directory", "empty", "f"},
		{"bad_request", "full", "full/x/y"}, {"bad_request", "", "x"}, {"not_directory", "f", "g/h"},
	} {
		a.wantCode(c.code, "POST", "/v1/files/rename", rename(c.from, c.to))
	}
	for _, c := range [][2]string{{"f", "g"}, {"moved", "empty"}, {"g", "p/q/g"}} {
		status, body := a.call("POST", "/v1/files/rename", rename(c[0], c[1]))
		var e fileEntry
		json.Unmarshal([]byte(body), &e)
		if status != 200 || e.Path != filepath.Join(a.home, c[1]) {
			t.Errorf("%v: %d %s", c, status, body)
		}
	}
	if got := read(t, filepath.Join(a.home, "p/q/g")); got != "f" {
		t.Error(got)
	}
}

func TestMkdirAndDelete(t *testing.T) {
	a := claimed(t)
	write(t, filepath.Join(a.home, "f"), "")
	a.want(200, `{"created":true}`, "POST", "/v1/files/mkdir", map[string]string{"path": "a/b"})
	a.want(200, `{"created":false}`, "POST", "/v1/files/mkdir", map[string]string{"path": "a/b"})
	a.wantCode("not_directory", "POST", "/v1/files/mkdir", map[string]string{"path": "f"})
	a.wantCode("not_directory", "POST", "/v1/files/mkdir", map[string]string{"path": "f/x"})
	write(t, filepath.Join(a.home, "a/b/c"), "")
	a.want(200, `{"removed":true}`, "DELETE", fileURL("a"), nil)
	a.want(200, `{"removed":false}`, "DELETE", fileURL("a"), nil)
	a.want(200, `{"removed":false}`, "DELETE", fileURL("f/x"), nil)
}

func TestListIsSortedBoundedAndDoesNotFollow(t *testing.T) {
	a := claimed(t)
	os.MkdirAll(filepath.Join(a.home, "d/a/b/c"), 0o755)
	write(t, filepath.Join(a.home, "d/a-b"), "12")
	write(t, filepath.Join(a.home, "d/bad\xff"), "")
	os.Symlink("..", filepath.Join(a.home, "d/link"))
	list := func(query string) string {
		t.Helper()
		_, body := a.call("GET", "/v1/files/list?path=d"+query, nil)
		var answer struct{ Entries []fileEntry }
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(body)
		}
		var names []string
		for _, e := range answer.Entries {
			names = append(names, strings.TrimPrefix(e.Path, a.home+"/d/")+":"+e.Type)
		}
		return strings.Join(names, " ")
	}
	if got := list(""); got != "a:dir a-b:file bad\uFFFD:file link:symlink" {
		t.Error(got)
	}
	if got := list("&depth=2"); got != "a:dir a-b:file a/b:dir bad\uFFFD:file link:symlink" {
		t.Error(got)
	}
	if got := list("&depth=9"); got != "a:dir a-b:file a/b:dir a/b/c:dir bad\uFFFD:file link:symlink" {
		t.Error(got)
	}
	a.want(200, `{"entries":[],"truncated":false}`, "GET", "/v1/files/list?path=d/a/b/c", nil)
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		header string
		size   int64
		want   string
	}{
		{"", 10, "all"}, {"bytes=0-0", 10, "0-0"}, {"bytes=2-5", 10, "2-5"}, {"bytes=2-", 10, "2-9"}, {"bytes=-3", 10, "7-9"},
		{"bytes=-30", 10, "0-9"}, {"bytes=5-99", 10, "5-9"}, {"bytes=10-", 10, "no"}, {"bytes=-0", 10, "no"}, {"bytes=0-", 0, "no"},
		{"bytes=5-2", 10, "all"}, {"bytes=0-1,3-4", 10, "all"}, {"items=0-1", 10, "all"}, {"bytes=x-", 10, "all"}, {"bytes=--1", 10, "all"},
		{"bytes=99999999999999999999-", 10, "all"},
	} {
		part, err := parseRange(c.header, c.size)
		got := "all"
		if err != nil {
			got = "no"
		} else if part != nil {
			got = fmt.Sprintf("%d-%d", part.first, part.last)
		}
		if got != c.want {
			t.Errorf("%q of %d: %s, want %s", c.header, c.size, got, c.want)
		}
	}
}

func TestAFileOfProcHasAContent(t *testing.T) {
	a := claimed(t)
	if status, body := a.call("GET", fileURL("/proc/self/status"), nil); status != 200 || !strings.Contains(body, "Pid:") {
		t.Errorf("%d %q", status, body)
	}
}

func TestLargeFilesStream(t *testing.T) {
	a := claimed(t)
	const size = 100 << 20
	status, body := a.call("PUT", fileURL("big"), io.LimitReader(zeros{}, size))
	if status != 200 {
		t.Fatal(body)
	}
	res := a.send("GET", fileURL("big"), nil, "Range", "bytes=1-")
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); n != size-1 || err != nil || res.StatusCode != 206 {
		t.Errorf("%d bytes, %v, %s", n, err, res.Status)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0
	}
	return len(p), nil
}
