package main

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func claimBody(changes map[string]any) map[string]any {
	body := map[string]any{"sandbox_id": "s1", "token": testToken, "hostname": "sbx-1a2b3c4d", "machine_id": strings.Repeat("0a", 16),
		"entropy": base64.StdEncoding.EncodeToString([]byte("random")), "nameservers": []string{"10.0.0.1", "fd00::1"},
		"limits": map[string]int{"pids": 100}}
	for k, v := range changes {
		body[k] = v
	}
	return body
}

func TestAClaimGivesAnIdentityOnce(t *testing.T) {
	a := newTestAgent(t)
	os.MkdirAll(a.root+"/var/lib/dbus", 0o755)
	write(t, a.root+"/var/lib/dbus/machine-id", "old\n")
	os.Symlink("../run/gone/resolv.conf", a.root+"/etc/resolv.conf") // as images with systemd have it
	var hostname, entropy string
	var pids int
	var sudoFor []string
	c := a.agent.claimer
	c.setHostname = func(name string) error { hostname = name; return nil }
	c.addEntropy = func(e []byte) error { entropy = string(e); return nil }
	c.limitPids = func(n int) bool { pids = n; return true }
	c.openSudo = func(acc account) error { sudoFor = append(sudoFor, acc.Name); return nil }

	want := `{"protocol":2,"user":{"name":"user","uid":54321,"gid":54321,"home":"` + a.home + `"},"enforced":{"pids":true,"memory":false}}`
	a.want(200, want, "POST", "/v1/claim", claimBody(map[string]any{"sudo": true, "default_user": "user"}))
	if hostname != "sbx-1a2b3c4d" || entropy != "random" || pids != 100 || strings.Join(sudoFor, " ") != "user" {
		t.Errorf("%q %q %d %v", hostname, entropy, pids, sudoFor)
	}
	for path, want := range map[string]string{
		"/etc/hostname": "sbx-1a2b3c4d\n", "/etc/machine-id": strings.Repeat("0a", 16) + "\n", "/var/lib/dbus/machine-id": strings.Repeat("0a", 16) + "\n",
		"/etc/resolv.conf": "nameserver 10.0.0.1\nnameserver fd00::1\n",
	} {
		if got := read(t, a.root+path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	if got := read(t, a.root+"/etc/hosts"); !strings.Contains(got, "127.0.1.1\tsbx-1a2b3c4d\n") {
		t.Error(got)
	}
	// The answer was lost: the same again. Nothing is done twice.
	a.want(200, want, "POST", "/v1/claim", claimBody(map[string]any{"sudo": true, "default_user": "user"}))
	if len(sudoFor) != 1 {
		t.Error("done twice")
	}
	a.wantCode("already_claimed", "POST", "/v1/claim", claimBody(map[string]any{"sandbox_id": "s2"}))
	a.wantCode("already_claimed", "POST", "/v1/claim", claimBody(map[string]any{"token": testToken + "x"}))
	var health map[string]any
	_, text := a.call("GET", "/v1/health", nil, "Authorization", "")
	json.Unmarshal([]byte(text), &health)
	if health["claimed"] != true {
		t.Error(text)
	}
}

func TestAClaimThatIsRefusedLeavesTheAgentUnclaimed(t *testing.T) {
	a := newTestAgent(t)
	for _, c := range []struct {
		code    string
		changes map[string]any
	}{
		{"bad_request", map[string]any{"token": "short"}}, {"bad_request", map[string]any{"sandbox_id": ""}},
		{"bad_request", map[string]any{"hostname": "a b"}}, {"bad_request", map[string]any{"hostname": "-a"}},
		{"bad_request", map[string]any{"hostname": "a\nb"}}, {"bad_request", map[string]any{"machine_id": "xyz"}},
		{"bad_request", map[string]any{"entropy": "%"}}, {"bad_request", map[string]any{"nameservers": []string{"x y"}}},
		{"bad_request", map[string]any{"nameservers": []string{"1.1.1.1\noptions x"}}}, {"bad_request", map[string]any{"env": map[string]string{"": "x"}}},
		{"bad_request", map[string]any{"limits": map[string]int{"pids": -1}}}, {"user_not_found", map[string]any{"default_user": "nobody-here"}},
	} {
		a.wantCode(c.code, "POST", "/v1/claim", claimBody(c.changes))
	}
	if _, err := os.Stat(filepath.Join(a.root, "etc/hostname")); err == nil {
		t.Error("something was written")
	}
	a.wantCode("not_claimed", "GET", "/v1/processes", nil)
}
