package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// maxConnections bounds what the host side may open; a client pool needs a few dozen.
const maxConnections = 4096

// guestListener accepts the server's connections and nobody else's. What comes from inside the sandbox is closed
// before a byte is read: the code there has no token, and must not be able to use up what the server needs.
type guestListener struct {
	net.Listener
	fromInside func(net.Conn) bool
	open       atomic.Int32
}

func listen(address string) (*guestListener, error) {
	// Keep-alive probes only clean up after a host that vanished without a word; each costs an idle sandbox a wake-up.
	config := net.ListenConfig{KeepAlive: 2 * time.Minute}
	l, err := config.Listen(context.Background(), "tcp4", address)
	if err != nil {
		return nil, err
	}
	return &guestListener{Listener: l, fromInside: isFromInside}, nil
}

func (l *guestListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, err
			}
			time.Sleep(5 * time.Millisecond) // out of descriptors, or a connection that died in the queue
			continue
		}
		tcp, _ := conn.(*net.TCPConn)
		if l.fromInside(conn) || l.open.Load() >= maxConnections {
			if tcp != nil {
				tcp.SetLinger(0)
			}
			conn.Close()
			continue
		}
		l.open.Add(1)
		return &guestConn{TCPConn: tcp, listener: l}, nil
	}
}

type guestConn struct {
	*net.TCPConn
	listener *guestListener
	closed   atomic.Bool
}

func (c *guestConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.listener.open.Add(-1)
	}
	return c.TCPConn.Close()
}

// isFromInside knows a connection of the sandbox to itself: over loopback, or over its own address.
func isFromInside(conn net.Conn) bool {
	remote, ok1 := conn.RemoteAddr().(*net.TCPAddr)
	local, ok2 := conn.LocalAddr().(*net.TCPAddr)
	return !ok1 || !ok2 || remote.IP.IsLoopback() || remote.IP.Equal(local.IP)
}

func tcpOf(conn net.Conn) (*net.TCPConn, bool) {
	switch c := conn.(type) {
	case *guestConn:
		return c.TCPConn, true
	case *net.TCPConn:
		return c, true
	}
	return nil, false
}

func isEOF(err error) bool { return err == io.EOF || errors.Is(err, syscall.ESHUTDOWN) }
