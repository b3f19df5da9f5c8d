package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

func TestBeforeTheClaimOnlyHealthAndClaimAnswer(t *testing.T) {
	a := newTestAgent(t)
	a.want(200, `{"claimed":false,"protocol":2,"version":"dev"}`, "GET", "/v1/health", nil)
	for _, path := range []string{"/v1/processes", "/v1/files?path=/etc/passwd", "/v1/tunnel?port=1", "/v1/nothing"} {
		a.wantCode("not_claimed", "GET", path, nil)
	}
}

func TestEveryCallNeedsTheToken(t *testing.T) {
	a := claimed(t)
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "bearer " + testToken, "Basic " + testToken, testToken} {
		a.wantCode("unauthorized", "GET", "/v1/processes", nil, "Authorization", header)
	}
	a.want(200, `{"processes":[]}`, "GET", "/v1/processes", nil)
	a.wantCode("not_found", "GET", "/v1/nothing", nil)
	a.wantCode("not_found", "PATCH", "/v1/processes", nil)
}

func TestConnectionsFromInsideTheSandboxGetNothing(t *testing.T) {
	l, err := listen("127.0.0.1:0", newConnections())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go newHTTPServer(&agent{}).Serve(l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return // closed before the handshake was seen to the end
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(conn, "GET /v1/health HTTP/1.0\r\n\r\n")
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, error %v", n, err)
	}
}

func TestTheListenerIsReplacedAfterARestore(t *testing.T) {
	a := claimed(t)
	for i := 0; i < 3; i++ {
		a.server.renew(a.server.current)
		a.want(200, `{"processes":[]}`, "GET", "/v1/processes", nil)
	}
}

func TestAnOversizedBodyIsRefused(t *testing.T) {
	a := claimed(t)
	a.wantCode("bad_request", "POST", "/v1/processes", map[string]string{"cmd": strings.Repeat("x", maxBody)})
	a.wantCode("bad_request", "POST", "/v1/processes", []byte("{"))
}

func TestEventsAreNumberedAndCanBeResumed(t *testing.T) {
	a := claimed(t)
	for i := 0; i < 3; i++ {
		a.run(map[string]any{"cmd": "exit 2", "tag": fmt.Sprint("t", i), "kind": "background"})
	}
	res := a.send("GET", "/v1/events?after=1", nil)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for want := uint64(2); want <= 3; want++ {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.N != want || e.Type != "process_exit" || *e.Tag != fmt.Sprint("t", want-1) || e.Exit.ExitCode != 2 || e.Kind != "background" {
			t.Errorf("event %s", lines.Text())
		}
	}
}

func TestTunnelCarriesBothDirectionsAndHalfCloses(t *testing.T) {
	a := claimed(t)
	inside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	go func() {
		conn, err := inside.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			fmt.Fprintf(conn, "echo %s\n", lines.Text())
		}
		fmt.Fprint(conn, "end\n") // after the client's half has ended
	}()
	port := inside.Addr().(*net.TCPAddr).Port
	conn, err := net.Dial("tcp", strings.TrimPrefix(a.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	// The first bytes come together with the request.
	fmt.Fprintf(conn, "GET /v1/tunnel?port=%d HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: paddock-tunnel\r\n\r\none\n", port, testToken)
	r := bufio.NewReader(conn)
	if line, _ := r.ReadString('\n'); line != "HTTP/1.1 101 Switching Protocols\r\n" {
		t.Fatalf("got %q", line)
	}
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprint(conn, "two\n")
	conn.(*net.TCPConn).CloseWrite()
	for _, want := range []string{"echo one\n", "echo two\n", "end\n"} {
		if got, err := r.ReadString('\n'); got != want {
			t.Errorf("got %q %v, want %q", got, err, want)
		}
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the tunnel did not end")
	}
}

func TestTunnelRefusals(t *testing.T) {
	a := claimed(t)
	up := []string{"Connection", "Upgrade", "Upgrade", "paddock-tunnel"}
	for port, code := range map[string]string{"": "bad_request", "0": "bad_request", "65536": "bad_request", "x": "bad_request",
		"49983": "bad_request", "1": "connection_refused"} {
		a.wantCode(code, "GET", "/v1/tunnel?port="+port, nil, up...)
	}
	a.wantCode("bad_request", "GET", "/v1/tunnel?port=1", nil)
}
