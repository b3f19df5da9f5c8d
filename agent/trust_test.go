package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const someRoot = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

func authorityOf(letter string) string {
	return "-----BEGIN CERTIFICATE-----\n" + strings.Repeat(letter, 64) + "\n" + letter + "==\n-----END CERTIFICATE-----\n"
}

func newTrust(t *testing.T, files map[string]string) *trustStore {
	t.Helper()
	store := &trustStore{root: t.TempDir()}
	for path, text := range files {
		os.MkdirAll(filepath.Dir(store.root+path), 0o755)
		write(t, store.root+path, text)
	}
	if err := store.prepare(); err != nil {
		t.Fatal(err)
	}
	return store
}

func TestTheAuthorityIsTrustedTheWayDebianDoesIt(t *testing.T) {
	store := newTrust(t, map[string]string{caBundle: someRoot})
	os.Symlink("certs/ca-certificates.crt", store.root+"/etc/ssl/cert.pem") // the same file under a second name
	store.prepare()
	a, b := authorityOf("A"), authorityOf("B")
	for i := 0; i < 2; i++ { // the same again is nothing
		if err := store.install(a); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{authorityFile: a, caBundle: someRoot + authorityMark + a, certsDir + "/paddock.pem": a} {
		if path == certsDir+"/paddock.pem" {
			if target, _ := os.Readlink(store.root + path); target != authorityFile {
				t.Errorf("%s leads to %q", path, target)
			}
			continue
		}
		if got := read(t, store.root+path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	if target, _ := os.Readlink(store.root + certsDir + "/" + authorityLink); target != "paddock.pem" {
		t.Errorf("the link by hash leads to %q", target)
	}
	// Another one takes its place, and what others added stays.
	write(t, store.root+caBundle, read(t, store.root+caBundle)+"# mine\n"+someRoot)
	if err := store.install(b); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, store.root+caBundle), someRoot+"# mine\n"+someRoot+authorityMark+b; got != want {
		t.Errorf("%q", got)
	}
	if got := read(t, store.root+authorityFile); got != b {
		t.Errorf("%q", got)
	}
	store.install("")
	if got := read(t, store.root+authorityFile); got != b {
		t.Error("nothing took it away")
	}
}

func TestAnImageThatWasMadeFromASandboxLosesThatSandboxesAuthority(t *testing.T) {
	store := newTrust(t, map[string]string{caBundle: someRoot + authorityMark + authorityOf("O") + someRoot})
	if got := read(t, store.root+caBundle); got != someRoot+someRoot {
		t.Errorf("%q", got)
	}
}

func TestOtherDistributionsAreServedToo(t *testing.T) {
	bundle := "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
	store := newTrust(t, map[string]string{bundle: someRoot, "/etc/pki/ca-trust/source/anchors/.keep": ""})
	a := authorityOf("A")
	if err := store.install(a); err != nil {
		t.Fatal(err)
	}
	if got := read(t, store.root+bundle); got != someRoot+authorityMark+a {
		t.Errorf("%q", got)
	}
	if got := read(t, store.root+"/etc/pki/ca-trust/source/anchors/paddock.crt"); got != a {
		t.Errorf("%q", got)
	}
}

func TestAnImageWithoutAuthoritiesGetsNoBundle(t *testing.T) {
	store := newTrust(t, nil)
	if err := store.install(authorityOf("A")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(store.root + caBundle); err == nil {
		t.Error("a bundle with one authority would shut everybody else out")
	}
	if got := read(t, store.root+authorityFile); got != authorityOf("A") {
		t.Errorf("%q", got)
	}
}

func TestAClaimWithWhatIsNoCertificateIsRefused(t *testing.T) {
	a := newTestAgent(t)
	for _, pem := range []string{"x", someRoot + someRoot, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", someRoot + "\n$(id)",
		"-----BEGIN CERTIFICATE-----\nAA AA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n" + strings.Repeat("AAAA\n", 2000) + "-----END CERTIFICATE-----\n"} {
		a.wantCode("bad_request", "POST", "/v1/claim", claimBody(map[string]any{"ca_certificate": pem}))
	}
	status, body := a.call("POST", "/v1/claim", claimBody(map[string]any{"ca_certificate": someRoot}))
	if status != 200 {
		t.Fatal(body)
	}
	if got := read(t, a.root+authorityFile); got != someRoot {
		t.Errorf("%q", got)
	}
	hasAuthority.Store(false)
}
