package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The test binary is also the sandbox's sudo: a link to it named sudo behaves as the agent does.
func TestMain(m *testing.M) {
	if strings.HasSuffix(filepath.Base(os.Args[0]), "sudo") {
		sudoSocket = os.Getenv("PADDOCK_TEST_SUDO_SOCKET")
		os.Exit(sudoMain(os.Args[1:]))
	}
	reaperForTests = newReaper()
	go reaperForTests.run()
	os.Exit(m.Run())
}

// One reaper per program: it waits for every child.
var reaperForTests *reaper

const testToken = "a-token-of-the-tests"

// testAgent is an agent over a real socket whose home directories and account files lie in a directory of the test.
type testAgent struct {
	t      *testing.T
	root   string
	home   string
	url    string
	server *guestListener
	agent  *agent
	sudo   *sudoServer // of withSudo
}

func newTestAgent(t *testing.T) *testAgent {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the agent starts processes as other users and needs root")
	}
	root := t.TempDir()
	home := filepath.Join(root, "home")
	for _, dir := range []string{filepath.Join(root, "etc"), home} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Every directory above must let other users through.
	for dir := home; dir != "/"; dir = filepath.Dir(dir) {
		if fi, err := os.Stat(dir); err == nil && fi.Mode()&0o005 != 0o005 && strings.HasPrefix(dir, os.TempDir()+"/") {
			os.Chmod(dir, fi.Mode().Perm()|0o005)
		}
	}
	write(t, filepath.Join(root, "etc/passwd"), fmt.Sprintf("root:x:0:0::%s:/bin/bash\nuser:x:54321:54321::%s:/bin/bash\n", home, home))
	write(t, filepath.Join(root, "etc/group"), "root:x:0:\nuser:x:54321:\nextra:x:54322:user\n")
	if err := os.Chown(home, 54321, 54321); err != nil {
		t.Fatal(err)
	}
	users, events := newAccounts(root), newEventLog()
	processes := newProcesses(users, reaperForTests, newLauncher(nil), events)
	a := &agent{accounts: users, processes: processes, events: events, connections: newConnections(), claimer: testClaimer(root, users)}
	listener, err := listen("127.0.0.1:0", a.connections)
	if err != nil {
		t.Fatal(err)
	}
	listener.fromInside = func(net.Conn) bool { return false }
	server := newHTTPServer(a)
	go server.Serve(listener)
	t.Cleanup(func() {
		for _, view := range processes.list() {
			if p, err := processes.get(view.ID); err == nil {
				processes.remove(p)
			}
		}
		server.Close()
	})
	return &testAgent{t: t, root: root, home: home, url: "http://" + listener.Addr().String(), server: listener, agent: a}
}

func testClaimer(root string, users *accounts) *claimer {
	return &claimer{
		root: root, accounts: users, templateEnv: map[string]string{"FROM_TEMPLATE": "template", "LAYER": "template"},
		setHostname: func(string) error { return nil },
		addEntropy:  func([]byte) error { return nil },
		limitPids:   func(int) bool { return false },
		openSudo:    func(account) error { return nil },
		closeSudo:   func() {},
		trust:       &trustStore{root: root},
	}
}

func claimed(t *testing.T) *testAgent {
	a := newTestAgent(t)
	status, body := a.call("POST", "/v1/claim", map[string]any{"sandbox_id": "s1", "token": testToken, "hostname": "sbx-1",
		"machine_id": strings.Repeat("0a", 16), "env": map[string]string{"FROM_CLAIM": "claim", "LAYER": "claim"}})
	if status != 200 {
		t.Fatalf("claim: %d %s", status, body)
	}
	return a
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// send makes a request; a body that is no []byte goes as JSON.
func (a *testAgent) send(method, path string, body any, headers ...string) *http.Response {
	a.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		reader = bytes.NewReader(b)
	case io.Reader:
		reader = b
	default:
		text, _ := json.Marshal(b)
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, a.url+path, reader)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	return res
}

func (a *testAgent) call(method, path string, body any, headers ...string) (int, string) {
	a.t.Helper()
	res := a.send(method, path, body, headers...)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if got := res.Header.Get(protocolHeader); got != "2" {
		a.t.Errorf("%s %s: %s is %q", method, path, protocolHeader, got)
	}
	return res.StatusCode, string(text)
}

// want calls and compares the whole answer.
func (a *testAgent) want(status int, body, method, path string, request any) {
	a.t.Helper()
	gotStatus, gotBody := a.call(method, path, request)
	if gotStatus != status || gotBody != body {
		a.t.Errorf("%s %s\n got %d %s\nwant %d %s", method, path, gotStatus, gotBody, status, body)
	}
}

// wantCode calls and compares the code of the error.
func (a *testAgent) wantCode(code, method, path string, request any, headers ...string) {
	a.t.Helper()
	status, body := a.call(method, path, request, headers...)
	var e protocolError
	json.Unmarshal([]byte(body), &e)
	if e.Code != code || status != statusOf[code] {
		a.t.Errorf("%s %s: got %d %s, want %s", method, path, status, body, code)
	}
}

type frame struct {
	kind    byte
	number  uint64
	payload string
}

func parseFrames(t *testing.T, data []byte) []frame {
	t.Helper()
	var frames []frame
	for len(data) > 0 {
		if len(data) < frameHeader {
			t.Fatalf("%d bytes are no frame", len(data))
		}
		size := int(binary.BigEndian.Uint32(data[9:]))
		if size > maxPayload || len(data) < frameHeader+size {
			t.Fatalf("a frame of %d bytes with %d left", size, len(data)-frameHeader)
		}
		frames = append(frames, frame{data[0], binary.BigEndian.Uint64(data[1:]), string(data[frameHeader : frameHeader+size])})
		data = data[frameHeader+size:]
	}
	return frames
}

func joined(frames []frame, kind byte) string {
	var b strings.Builder
	for _, f := range frames {
		if f.kind == kind {
			b.WriteString(f.payload)
		}
	}
	return b.String()
}

// result is a command that has ended.
type result struct {
	start  startedView
	stdout string
	stderr string
	exit   exitStatus
	frames []frame
}

func (a *testAgent) run(body map[string]any) result {
	a.t.Helper()
	status, text := a.call("POST", "/v1/start-and-follow", body)
	if status != 200 {
		a.t.Fatalf("start: %d %s", status, text)
	}
	return a.resultOf([]byte(text))
}

func (a *testAgent) resultOf(data []byte) result {
	a.t.Helper()
	frames := parseFrames(a.t, data)
	r := result{frames: frames, stdout: joined(frames, frameStdout) + joined(frames, frameTerminal), stderr: joined(frames, frameStderr)}
	if frames[0].kind == frameStarted {
		json.Unmarshal([]byte(frames[0].payload), &r.start)
	}
	last := frames[len(frames)-1]
	if last.kind != frameExit {
		a.t.Fatalf("the last frame has type %d", last.kind)
	}
	json.Unmarshal([]byte(last.payload), &r.exit)
	return r
}

func (a *testAgent) start(body map[string]any) startedView {
	a.t.Helper()
	status, text := a.call("POST", "/v1/processes", body)
	var started startedView
	if err := json.Unmarshal([]byte(text), &started); err != nil || status != 201 {
		a.t.Fatalf("start: %d %s", status, text)
	}
	return started
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for i := 0; i < 500; i++ {
		if condition() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
