package main

import (
	"archive/tar"
	"bytes"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func archiveURL(path string) string { return "/v1/files/archive?path=" + url.QueryEscape(path) }

func tarOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := range headers {
		h := headers[i]
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			w.Write([]byte(h.Name))
		}
	}
	w.Close()
	return out.Bytes()
}

func TestATreeComesInAsOneStream(t *testing.T) {
	a := claimed(t)
	at := time.Unix(1_500_000_000, 0)
	root := filepath.Join(a.home, "tree")
	outside := filepath.Join(a.home, "outside")
	write(t, outside, "mine")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "led")); err != nil {
		t.Fatal(err)
	}
	body := tarOf(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o750, ModTime: at}, tar.Header{Name: "d/run", Typeflag: tar.TypeReg, Mode: 0o4755, ModTime: at},
		tar.Header{Name: "made/on/the/way", Typeflag: tar.TypeReg, Mode: 0o600, ModTime: at}, tar.Header{Name: "led", Typeflag: tar.TypeReg, Mode: 0o644, ModTime: at})
	if status, answer := a.call("PUT", archiveURL(root), body); status != 200 || !strings.Contains(answer, `"files":3`) {
		t.Fatalf("%d %s", status, answer)
	}
	if info := mustInfo(t, filepath.Join(root, "d/run")); info.Mode != 0o755 || info.UID != 54321 || info.MtimeMS != at.UnixMilli() {
		t.Errorf("%+v", info)
	}
	if info := mustInfo(t, filepath.Join(root, "d")); info.Mode != 0o750 || info.MtimeMS != at.UnixMilli() {
		t.Errorf("%+v", info)
	}
	if info := mustInfo(t, filepath.Join(root, "led")); info.Type != "file" {
		t.Errorf("%+v", info)
	}
	if content, _ := os.ReadFile(outside); string(content) != "mine" {
		t.Errorf("a link was followed: %q", content)
	}
	for name, bad := range map[string][]byte{
		"..":   tarOf(t, tar.Header{Name: "a/../../out", Typeflag: tar.TypeReg}),
		"link": tarOf(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}),
		"cut":  body[:700],
		"junk": []byte(strings.Repeat("x", 2000)),
	} {
		if status, answer := a.call("PUT", archiveURL(filepath.Join(a.home, "bad")), bad); status != 400 {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
}

func TestATreeGoesOutAsOneStream(t *testing.T) {
	a := claimed(t)
	root := filepath.Join(a.home, "tree")
	if err := os.MkdirAll(filepath.Join(root, "d/empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "d/f"), "content")
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, answer := a.call("GET", archiveURL(root), nil)
	if status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	found := map[string]string{}
	for r := tar.NewReader(strings.NewReader(answer)); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(r)
		found[header.Name] = string(header.Typeflag) + string(content)
	}
	for name, want := range map[string]string{"d/": "5", "d/empty/": "5", "d/f": "0content", "link": "2", "pipe": "6"} {
		if found[name] != want {
			t.Errorf("%s: %q instead of %q", name, found[name], want)
		}
	}
	for _, path := range []string{filepath.Join(root, "d/f"), filepath.Join(root, "missing"), filepath.Join(root, "link")} {
		if status, answer := a.call("GET", archiveURL(path), nil); status == 200 {
			t.Errorf("%s: %d %q", path, status, answer)
		}
	}
}

func TestAMountIsCheckedBeforeAnythingIsBound(t *testing.T) {
	a := claimed(t)
	for _, body := range []string{`{"mounts":[{"point":"../etc","path":"/data"}]}`, `{"mounts":[{"point":"0","path":"data"}]}`, `{"mounts":[{"point":"","path":"/data"}]}`} {
		if status, answer := a.call("POST", "/v1/mounts", []byte(body)); status != 400 {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
}
