package main

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxTunnels        = 1024
	tunnelDialTimeout = 5 * time.Second
)

var tunnels atomic.Int32

// dialLoopback reaches a server of the sandbox, which mostly listens on loopback only.
func dialLoopback(port int) (*net.TCPConn, error) {
	var first error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(port)), tunnelDialTimeout)
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if first == nil {
			first = err
		}
	}
	if errors.Is(first, syscall.ECONNREFUSED) {
		return nil, fail("connection_refused", "nothing listens on port %d of the sandbox", port)
	}
	return nil, fail("connection_refused", "port %d of the sandbox cannot be reached: %v", port, first)
}

// serveTunnel turns the request's connection into a connection to a port of the sandbox.
func serveTunnel(w http.ResponseWriter, r *http.Request) error {
	port, err := strconv.Atoi(r.URL.Query().Get("port"))
	switch {
	case err != nil || port < 1 || port > 65535:
		return fail("bad_request", "port must be between 1 and 65535")
	case port == agentPort:
		return fail("bad_request", "port %d is the agent's own", agentPort)
	case !strings.EqualFold(r.Header.Get("Upgrade"), "paddock-tunnel"):
		return fail("bad_request", "the header Upgrade: paddock-tunnel is missing")
	}
	if tunnels.Add(1) > maxTunnels {
		tunnels.Add(-1)
		return fail("too_many", "%d tunnels are already open", maxTunnels)
	}
	defer tunnels.Add(-1)
	inside, err := dialLoopback(port)
	if err != nil {
		return err
	}
	defer inside.Close()
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return fail("internal", "the connection cannot be taken over")
	}
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	outside, ok := conn.(*guestConn)
	if !ok {
		return fail("internal", "the connection is not one of the listener's")
	}
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: paddock-tunnel\r\n" +
		protocolHeader + ": " + strconv.Itoa(protocolVersion) + "\r\n\r\n")); err != nil {
		return nil
	}
	splice(outside.TCPConn, inside, buffered.Reader, outside.noticeRestore)
	return nil
}

// splice moves bytes both ways until both directions have ended, or one has failed.
func splice(outside, inside *net.TCPConn, early *bufio.Reader, failed func(error)) {
	var both sync.WaitGroup
	both.Add(2)
	go func() {
		defer both.Done()
		if n := early.Buffered(); n > 0 {
			head, _ := early.Peek(n)
			if _, err := inside.Write(head); err != nil {
				inside.Close()
				outside.Close()
				return
			}
		}
		if err := forward(inside, outside); err != nil {
			failed(err)
		}
	}()
	go func() {
		defer both.Done()
		forward(outside, inside)
	}()
	both.Wait()
}

// forward copies one direction. Its end becomes a half-close; a failure ends both directions.
func forward(to, from *net.TCPConn) error {
	source, err := from.SyscallConn()
	for err == nil {
		var writeErr error
		err = waitReadable(source, syscall.Read, func(data []byte) { _, writeErr = to.Write(data) })
		if writeErr != nil {
			err = writeErr
		}
	}
	if isEOF(err) {
		to.CloseWrite()
		return nil
	}
	to.SetLinger(0)
	to.Close()
	from.Close()
	return err
}
