package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
)

const newToken = "another-token-of-the-tests"

// become replaces the identity with the token given, or with testToken.
func (a *testAgent) become(token string, changes map[string]any) (int, string) {
	a.t.Helper()
	return a.call("POST", "/v1/identity", identityBody(changes), "Authorization", "Bearer "+token)
}

func identityBody(changes map[string]any) map[string]any {
	body := claimBody(map[string]any{"sandbox_id": "s2", "token": newToken, "hostname": "sbx-2", "machine_id": strings.Repeat("0b", 16),
		"env": map[string]string{"FROM_CLAIM": "new"}})
	for k, v := range changes {
		body[k] = v
	}
	return body
}

func TestANewIdentityReplacesEverything(t *testing.T) {
	a := newTestAgent(t)
	os.MkdirAll(a.root+"/var/lib/dbus", 0o755)
	os.MkdirAll(a.root+"/usr/bin", 0o755)
	write(t, a.root+"/var/lib/dbus/machine-id", "old\n")
	write(t, a.root+"/etc/hosts", "127.0.0.1 localhost\n10.0.0.1\tsbx-1a2b3c4d.example\n")
	var calls []string
	note := func(format string, args ...any) { calls = append(calls, fmt.Sprintf(format, args...)) }
	c := a.agent.claimer
	c.executable = "/.paddock/agent"
	c.setHostname = func(name string) error { note("hostname %s", name); return nil }
	c.addEntropy = func(e []byte) error { note("entropy %s", e); return nil }
	c.limitPids = func(n int) bool { note("pids %d", n); return n > 0 }
	c.openSudo = func(acc account) error { note("sudo for %s", acc.Name); return nil }
	c.closeSudo = func() { note("no sudo") }
	expect := func(want ...string) {
		t.Helper()
		if got := strings.Join(calls, ", "); got != strings.Join(want, ", ") {
			t.Errorf("got %s, want %v", got, want)
		}
		calls = nil
	}

	a.call("POST", "/v1/claim", claimBody(map[string]any{"sudo": true, "env": map[string]string{"FROM_CLAIM": "old"}}))
	expect("entropy random", "hostname sbx-1a2b3c4d", "sudo for user", "pids 100")
	running := a.start(map[string]any{"cmd": "read x; echo $FROM_CLAIM", "stdin": true})

	status, body := a.become(testToken, map[string]any{"default_user": "root", "nameservers": []string{"10.0.0.9"}, "limits": map[string]int{"pids": 7}})
	want := `{"protocol":2,"user":{"name":"root","uid":0,"gid":0,"home":"` + a.home + `"},"enforced":{"pids":true,"memory":false}}`
	if status != 200 || body != want {
		t.Errorf("%d %s", status, body)
	}
	expect("entropy random", "hostname sbx-2", "no sudo", "pids 7")
	for path, want := range map[string]string{
		"/etc/hostname": "sbx-2\n", "/etc/machine-id": strings.Repeat("0b", 16) + "\n", "/var/lib/dbus/machine-id": strings.Repeat("0b", 16) + "\n",
		"/etc/resolv.conf": "nameserver 10.0.0.9\n", "/etc/hosts": "127.0.0.1 localhost\n10.0.0.1\tsbx-1a2b3c4d.example\n127.0.1.1\tsbx-2\n",
	} {
		if got := read(t, a.root+path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}

	// The old token is refused, on open connections too; processes go on with the environment they have.
	a.wantCode("unauthorized", "GET", "/v1/processes", nil)
	a.wantCode("unauthorized", "POST", "/v1/identity", identityBody(nil))
	withNew := []string{"Authorization", "Bearer " + newToken}
	a.call("POST", "/v1/processes/"+running.ID+"/stdin", []byte("\n"), withNew...)
	_, output := a.call("GET", "/v1/processes/"+running.ID+"/output?follow=true", nil, withNew...)
	if r := a.resultOf([]byte(output)); r.stdout != "old\n" {
		t.Errorf("%q", r.stdout)
	}
	_, output = a.call("POST", "/v1/start-and-follow", map[string]any{"cmd": "id -un; echo $FROM_CLAIM $FROM_TEMPLATE"}, withNew...)
	if r := a.resultOf([]byte(output)); r.stdout != "root\nnew template\n" {
		t.Errorf("%q", r.stdout)
	}

	// Sudo comes back, with its link.
	os.Remove(a.root + "/usr/bin/sudo")
	calls = nil
	if status, body := a.become(newToken, map[string]any{"sudo": true, "entropy": ""}); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	expect("hostname sbx-2", "sudo for user", "pids 100")
	if target, _ := os.Readlink(a.root + "/usr/bin/sudo"); target != "/.paddock/agent" {
		t.Errorf("sudo is %q", target)
	}
	a.wantCode("already_claimed", "POST", "/v1/claim", claimBody(nil))
}

func TestWhatANewIdentityLeavesEmptyStays(t *testing.T) {
	a := newTestAgent(t)
	a.call("POST", "/v1/claim", claimBody(nil))
	a.agent.claimer.setHostname = func(string) error { t.Error("the hostname was set"); return nil }
	a.agent.claimer.addEntropy = func([]byte) error { t.Error("entropy was added"); return nil }
	kept := map[string]any{"hostname": "", "machine_id": "", "entropy": "", "nameservers": []string{}}
	if status, body := a.become(testToken, kept); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tsbx-1a2b3c4d\n"
	for path, want := range map[string]string{"/etc/hostname": "sbx-1a2b3c4d\n", "/etc/machine-id": strings.Repeat("0a", 16) + "\n",
		"/etc/resolv.conf": "nameserver 10.0.0.1\nnameserver fd00::1\n", "/etc/hosts": hosts} {
		if got := read(t, a.root+path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	// The name it still has goes with the next one.
	a.agent.claimer.setHostname = func(string) error { return errors.New("refused by the kernel") }
	a.become(newToken, map[string]any{"entropy": ""})
	if got := read(t, a.root+"/etc/hosts"); got != strings.Replace(hosts, "sbx-1a2b3c4d", "sbx-2", 1) {
		t.Error(got)
	}
}

func TestANewIdentityMayBeRepeatedWithItsToken(t *testing.T) {
	a := claimed(t)
	_, first := a.become(testToken, nil)
	status, second := a.become(newToken, nil)
	if status != 200 || first != second {
		t.Errorf("%d %s, first %s", status, second, first)
	}
	if got := read(t, a.root+"/etc/hosts"); strings.Count(got, "sbx-") != 1 {
		t.Error(got)
	}
	// The same sandbox, under the token it has.
	if status, body := a.become(newToken, map[string]any{"env": map[string]string{"FROM_CLAIM": "newer"}}); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	_, output := a.call("POST", "/v1/start-and-follow", map[string]any{"cmd": "echo $FROM_CLAIM"}, "Authorization", "Bearer "+newToken)
	if r := a.resultOf([]byte(output)); r.stdout != "newer\n" {
		t.Errorf("%q", r.stdout)
	}
}

func TestANewIdentityThatIsRefusedChangesNothing(t *testing.T) {
	a := newTestAgent(t)
	a.wantCode("not_claimed", "POST", "/v1/identity", identityBody(nil))
	a.call("POST", "/v1/claim", claimBody(nil))
	for field, changes := range map[string]map[string]any{
		"sandbox_id": {"sandbox_id": ""}, "token": {"token": "short"}, "hostname": {"hostname": "a b"}, "machine_id": {"machine_id": "x"},
		"entropy": {"entropy": "%"}, "nameservers": {"nameservers": []string{"x y"}}, "env": {"env": map[string]string{"a=b": "x"}},
		"limits.pids": {"limits": map[string]int{"pids": -1}}, "limits.memory_bytes": {"limits": map[string]int{"memory_bytes": -1}},
		"sudo": {"sudo": "yes"}, "env ": {"env": []string{"A=b"}},
	} {
		status, body := a.become(testToken, changes)
		var e protocolError
		json.Unmarshal([]byte(body), &e)
		if status != 400 || e.Code != "bad_request" || !strings.Contains(e.Message, strings.TrimSpace(field)) {
			t.Errorf("%s: %d %s", field, status, body)
		}
	}
	a.wantCode("user_not_found", "POST", "/v1/identity", identityBody(map[string]any{"default_user": "nobody-here"}))
	a.wantCode("unauthorized", "POST", "/v1/identity", identityBody(nil), "Authorization", "")
	a.wantCode("unauthorized", "POST", "/v1/identity", identityBody(nil), "Authorization", "Bearer "+newToken)
	if got := read(t, a.root+"/etc/hostname"); got != "sbx-1a2b3c4d\n" {
		t.Error(got)
	}
	a.want(200, `{"processes":[]}`, "GET", "/v1/processes", nil)
}

// Whoever calls while the identity changes is served wholly under the old one or wholly under the new one.
func TestNoCallSeesHalfAnIdentity(t *testing.T) {
	a := claimed(t)
	hostname := a.root + "/etc/hostname"
	os.Chmod(hostname, 0o644)
	seen := func(token string) (string, int) {
		res := a.send("POST", "/v1/start-and-follow", map[string]any{"cmd": "echo $FROM_CLAIM $(cat " + hostname + ")"}, "Authorization", "Bearer "+token)
		defer res.Body.Close()
		if res.StatusCode != 200 {
			return "", res.StatusCode
		}
		var text strings.Builder
		if _, err := copyAll(&text, res.Body); err != nil {
			t.Error(err)
		}
		return a.resultOf([]byte(text.String())).stdout, 200
	}
	token := testToken
	want := map[string]string{testToken: "claim sbx-1\n"}
	for round := 0; round < 5; round++ {
		next := fmt.Sprint(newToken, round)
		want[next] = fmt.Sprintf("e%d sbx-r%d\n", round, round)
		var callers sync.WaitGroup
		for i := 0; i < 8; i++ {
			for _, with := range []string{token, next} {
				callers.Add(1)
				go func(with string) {
					defer callers.Done()
					// The file may have changed by the time the old one's command reads it; what it was given may not.
					got, status := seen(with)
					env, _, _ := strings.Cut(got, " ")
					wantEnv, _, _ := strings.Cut(want[with], " ")
					if status != 401 && (status != 200 || env != wantEnv || with == next && got != want[next]) {
						t.Errorf("with %s: %d %q", with, status, got)
					}
				}(with)
			}
		}
		winners := make(chan int, 2)
		for i := 0; i < 2; i++ {
			go func() {
				status, _ := a.become(token, map[string]any{"token": next, "hostname": fmt.Sprint("sbx-r", round), "env": map[string]string{"FROM_CLAIM": fmt.Sprint("e", round)}})
				winners <- status
			}()
		}
		if got := []int{<-winners, <-winners}; got[0]+got[1] != http.StatusOK+http.StatusUnauthorized {
			t.Errorf("two calls with the old token: %v", got)
		}
		callers.Wait()
		if _, status := seen(token); status != 401 {
			t.Errorf("the old token: %d", status)
		}
		token = next
	}
}

func TestHostsLosesOnlyTheLineThatWasAdded(t *testing.T) {
	root := t.TempDir()
	os.Mkdir(root+"/etc", 0o755)
	for _, c := range []struct{ before, old, name, after string }{
		{"127.0.0.1 localhost\n127.0.1.1\ta\n", "a", "b", "127.0.0.1 localhost\n127.0.1.1\tb\n"},
		{"127.0.1.1\ta\n127.0.0.1 localhost\n", "a", "b", "127.0.0.1 localhost\n127.0.1.1\tb\n"},
		{"127.0.0.1 localhost a\n", "a", "b", "127.0.0.1 localhost a\n127.0.1.1\tb\n"},
		{"127.0.0.1 localhost\n127.0.1.1\ta.b\n127.0.1.1\ta c\n", "a", "c", "127.0.0.1 localhost\n127.0.1.1\ta.b\n127.0.1.1\ta c\n"},
		{"127.0.0.1 localhost\n127.0.1.1\ta\n", "a", "a", "127.0.0.1 localhost\n127.0.1.1\ta\n"},
		{"127.0.0.1 localhost", "", "b", "127.0.0.1 localhost\n127.0.1.1\tb\n"},
	} {
		write(t, root+"/etc/hosts", c.before)
		if err := renameHost(root, c.old, c.name); err != nil {
			t.Fatal(err)
		}
		if got := read(t, root+"/etc/hosts"); got != c.after {
			t.Errorf("%q: got %q, want %q", c.before, got, c.after)
		}
	}
}
