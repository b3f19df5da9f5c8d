package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestAHoldLeavesNoConnectionAndLosesNoOutput(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"cmd": "read x; echo first; read x; head -c 12000000 /dev/zero | tr '\\0' y; echo last", "stdin": true})
	path := "/v1/processes/" + p.ID
	res := a.send("GET", path+"/output?follow=true", nil)
	defer res.Body.Close()
	a.call("POST", path+"/stdin", []byte("\n"))
	first := make([]byte, frameHeader+len("first\n"))
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	idle, err := net.Dial("tcp", strings.TrimPrefix(a.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	fmt.Fprintf(idle, "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
	idleReader := bufio.NewReader(idle)
	if _, err := idleReader.ReadString('}'); err != nil {
		t.Fatal(err)
	}

	held := a.send("POST", "/v1/hold", map[string]int{"output_seconds": 60})
	io.ReadAll(held.Body)
	held.Body.Close()
	if held.StatusCode != 200 || !held.Close {
		t.Errorf("%d, the connection stays: %v", held.StatusCode, !held.Close)
	}
	eventually(t, "no connection is open", func() bool {
		a.agent.connections.mu.Lock()
		defer a.agent.connections.mu.Unlock()
		return len(a.agent.connections.open) == 0
	})
	if _, err := res.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the follower read on: %v", err)
	}
	idle.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := idleReader.ReadByte(); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the idle connection: %v", err)
	}

	// More than the buffer holds, while nobody follows.
	a.call("POST", path+"/stdin", []byte("\n"))
	time.Sleep(300 * time.Millisecond)
	_, output := a.call("GET", path+"/output?after=1&follow=true", nil)
	r := a.resultOf([]byte(output))
	if len(r.stdout) != 12000000+len("last\n") || r.frames[0].number != 2 || !strings.HasSuffix(r.stdout, "ylast\n") {
		t.Errorf("%d bytes, from entry %d", len(r.stdout), r.frames[0].number)
	}
	a.want(200, "{}", "POST", "/v1/hold", nil)
	a.wantCode("bad_request", "POST", "/v1/hold", map[string]int{"output_seconds": maxHoldSeconds + 1})
	a.wantCode("unauthorized", "POST", "/v1/hold", nil, "Authorization", "")
}

func TestNobodyIsExpectedBackUnderANewIdentity(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"cmd": "read x; head -c 12000000 /dev/zero; exit 3", "stdin": true})
	path := "/v1/processes/" + p.ID
	res := a.send("GET", path+"/output?follow=true", nil)
	defer res.Body.Close()
	a.want(200, "{}", "POST", "/v1/hold", map[string]int{"output_seconds": 60})
	a.call("POST", path+"/stdin", []byte("\n"))
	running := func() bool {
		_, view := a.call("GET", path, nil)
		return strings.Contains(view, `"running":true`)
	}
	time.Sleep(300 * time.Millisecond)
	if !running() {
		t.Fatal("its output was dropped")
	}
	if status, body := a.become(testToken, map[string]any{"token": testToken}); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	eventually(t, "it goes on to its end", func() bool { return !running() })
}

func TestAnIdleConnectionOutlivesTheServersPool(t *testing.T) {
	const poolKeepsIdleFor = 30 * time.Second // src/host/agent/connection.ts
	if server := newHTTPServer(nil); server.IdleTimeout <= poolKeepsIdleFor {
		t.Errorf("%v", server.IdleTimeout)
	}
}
