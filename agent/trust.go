package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
)

const (
	// Where update-ca-certificates takes local authorities from: what it builds later has this one too.
	authorityFile = "/usr/local/share/ca-certificates/paddock.crt"
	certsDir      = "/etc/ssl/certs"
	// The name of a link by which OpenSSL finds the authority in a directory: its hash of the name that every
	// sandbox's authority has (src/host/authorities.ts).
	authorityLink = "64bd77e6.0"
	// Written before the certificate in a bundle, so that it is found again.
	authorityMark = "\n# Paddock: the authority of this sandbox\n"
	maxAuthority  = 8192
)

var (
	// The bundles of the distributions; what they link to is the same file more than once.
	bundleFiles = []string{caBundle, "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem", "/var/lib/ca-certificates/ca-bundle.pem", "/etc/ssl/cert.pem"}
	// Where the other distributions take local authorities from, if they are of that kind.
	anchorDirs = []string{"/etc/pki/ca-trust/source/anchors", "/etc/ca-certificates/trust-source/anchors", "/usr/share/pki/trust/anchors"}

	authorityShape = regexp.MustCompile(`^-----BEGIN CERTIFICATE-----\n(?:[A-Za-z0-9+/=]{1,76}\n)+-----END CERTIFICATE-----\n$`)
)

// hasAuthority tells that authorityFile is there.
var hasAuthority atomic.Bool

// trustStore makes the sandbox trust the authority that its claim brings, so that connections the egress proxy looks into
// verify like any other. It does what update-ca-certificates would, without the second that takes.
type trustStore struct {
	root      string
	installed string
	bundles   []string
	anchors   []string
}

// prepare does before a claim what takes longest: the bundles come out of the image's layer into the sandbox's own, and
// lose the authority of whatever sandbox the image was made from.
func (t *trustStore) prepare() error {
	var seen []os.FileInfo
	var failed error
	t.bundles, t.anchors = nil, nil
	if err := os.MkdirAll(t.root+filepath.Dir(authorityFile), 0o755); err != nil {
		failed = err
	}
	for _, dir := range anchorDirs {
		if fi, err := os.Stat(t.root + dir); err == nil && fi.IsDir() {
			t.anchors = append(t.anchors, dir)
		}
	}
	for _, path := range bundleFiles {
		fi, err := os.Stat(t.root + path)
		if err != nil || !fi.Mode().IsRegular() || sameAsAny(fi, seen) {
			continue
		}
		seen = append(seen, fi)
		t.bundles = append(t.bundles, path)
		failed = firstOf(failed, t.rewrite(path, ""))
	}
	return failed
}

// install puts the certificate in the place of the one before.
func (t *trustStore) install(certificate string) error {
	if certificate == "" || certificate == t.installed {
		return nil
	}
	failed := writeFileIn(t.root+authorityFile, certificate)
	for _, dir := range t.anchors {
		failed = firstOf(failed, writeFileIn(t.root+dir+"/paddock.crt", certificate))
	}
	for _, path := range t.bundles {
		if t.installed == "" {
			failed = firstOf(failed, appendTo(t.root+path, authorityMark+certificate))
		} else {
			failed = firstOf(failed, t.rewrite(path, authorityMark+certificate))
		}
	}
	if fi, err := os.Stat(t.root + certsDir); err == nil && fi.IsDir() {
		failed = firstOf(failed, linkTo(t.root+certsDir+"/paddock.pem", authorityFile))
		failed = firstOf(failed, linkTo(t.root+certsDir+"/"+authorityLink, "paddock.pem"))
	}
	t.installed = certificate
	hasAuthority.Store(true)
	return failed
}

// rewrite takes whatever authority is in a bundle out of it and puts another text at its end. A bundle that is right is
// opened for writing all the same: that is what takes it out of the image's layer.
func (t *trustStore) rewrite(path, end string) error {
	f, err := os.OpenFile(t.root+path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	text, err := readSmallFile(t.root + path)
	if err != nil {
		return err
	}
	cleaned := withoutAuthority(text)
	if end == "" && len(cleaned) == len(text) {
		return nil
	}
	return replaceFile(t.root+path, append(cleaned, end...), 0o644)
}

func withoutAuthority(bundle []byte) []byte {
	const last = "-----END CERTIFICATE-----\n"
	var kept []byte
	for {
		start := bytes.Index(bundle, []byte(authorityMark))
		if start < 0 {
			return append(kept, bundle...)
		}
		kept = append(kept, bundle[:start]...)
		bundle = bundle[start+len(authorityMark):]
		end := bytes.Index(bundle, []byte(last))
		if end < 0 {
			return append(kept, bundle...)
		}
		bundle = bundle[end+len(last):]
	}
}

// firstOf keeps the first error: the rest is tried all the same.
func firstOf(first, next error) error {
	if first != nil {
		return first
	}
	return next
}

func sameAsAny(fi os.FileInfo, others []os.FileInfo) bool {
	for _, other := range others {
		if os.SameFile(fi, other) {
			return true
		}
	}
	return false
}

func writeFileIn(path, text string) error {
	if err := overwriteAtOnce(path, []byte(text)); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return replaceFile(path, []byte(text), 0o644)
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func linkTo(path, target string) error {
	if err := os.Symlink(target, path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil // there, or somebody's own
}

// bundle is what the variables of clients that replace their own authorities name; "" where the image has none: they
// would trust nobody else then.
func bundle() string {
	if path, ok := knownBundle.Load().(string); ok {
		return path
	}
	for _, path := range bundleFiles {
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			knownBundle.Store(path)
			return path
		}
	}
	return ""
}

var knownBundle atomic.Value

// caEnv makes the common clients trust the sandbox's authority. It is set from the start, without need, because Node reads
// its certificates only when it starts, and a secret may come later.
func caEnv(env map[string]string) {
	if path := bundle(); path != "" {
		for _, name := range bundleVariables {
			env[name] = path
		}
	}
	// These add to what the client has.
	if hasAuthority.Load() {
		for _, name := range authorityVariables {
			env[name] = authorityFile
		}
	}
}

func isCAVariable(name string) bool {
	for _, list := range [][]string{bundleVariables, authorityVariables} {
		for _, ca := range list {
			if name == ca {
				return true
			}
		}
	}
	return false
}

var (
	bundleVariables = []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "PIP_CERT",
		"CARGO_HTTP_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"}
	authorityVariables = []string{"NODE_EXTRA_CA_CERTS", "DENO_CERT"}
)
