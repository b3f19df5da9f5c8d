package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func treeIn(t *testing.T) *tree {
	return newTree(t.TempDir(), limits{bytes: 1 << 20, entries: 100, stream: 1 << 20}, 0)
}

func TestNamesAreCutIntoComponents(t *testing.T) {
	for name, want := range map[string]string{"a": "a", "./a/b/": "a b", "a//b/./c": "a b c", ".": "", "./": "", "..a/b..": "..a b.."} {
		if parts, err := split(name); err != nil || strings.Join(parts, " ") != want {
			t.Errorf("%q: %q, %v", name, parts, err)
		}
	}
	for _, name := range []string{"", "/", "/a", "..", "a/..", "../a", "a/../b", "a\x00b", strings.Repeat("a", 256), strings.Repeat("a/", 257), strings.Repeat("a/", 2048)} {
		if _, err := split(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestLinksEndAtTheRoot(t *testing.T) {
	tree := treeIn(t)
	outside := t.TempDir()
	os.MkdirAll(filepath.Join(tree.root, "usr/lib"), 0o755)
	for name, target := range map[string]string{"lib": "usr/lib", "abs": "/usr/lib", "up": "../../../../../usr/lib", "out": outside, "usr/back": "../..", "chain": "usr/back/lib"} {
		if err := os.Symlink(target, filepath.Join(tree.root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"lib": "/usr/lib", "abs": "/usr/lib", "up": "/usr/lib", "usr/back": "/", "usr/back/usr/back": "/", "chain": "/usr/lib", "out": outside} {
		parts, _ := split(name)
		if path, err := tree.resolve(name, parts, true); err != nil || path != want {
			t.Errorf("%s leads to %q, %v", name, path, err)
		}
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Error("something was made outside")
	}
	if info, err := os.Stat(tree.root + outside); err != nil || !info.IsDir() {
		t.Error("the target was not made below the root")
	}
}

func TestWhatIsMissingIsMadeOnlyWhenAsked(t *testing.T) {
	tree := treeIn(t)
	if path, err := tree.resolve("a/b", []string{"a", "b"}, false); err != nil || path != "" {
		t.Errorf("%q, %v", path, err)
	}
	if path, err := tree.resolve("a/b", []string{"a", "b"}, true); err != nil || path != "/a/b" {
		t.Errorf("%q, %v", path, err)
	}
	if tree.entries != 2 || tree.bytes != 2*blockSize {
		t.Errorf("%d entries, %d bytes", tree.entries, tree.bytes)
	}
}

func TestWhatIsRemovedIsGivenBack(t *testing.T) {
	tree := treeIn(t)
	tree.resolve("a/b", []string{"a", "b"}, true)
	os.WriteFile(tree.at("/a/b/file"), make([]byte, 5000), 0o644)
	os.Link(tree.at("/a/b/file"), tree.at("/other"))
	tree.spend("a/b/file", 5000)
	if err := tree.remove("/a", false); err != nil || tree.bytes != 2*blockSize {
		t.Errorf("%d bytes after one of two names is gone, %v", tree.bytes, err)
	}
	if err := tree.remove("/other", false); err != nil || tree.bytes != 0 {
		t.Errorf("%d bytes after both are gone, %v", tree.bytes, err)
	}
}
