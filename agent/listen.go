package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxConnections bounds what the host side may open; a client pool needs a few dozen.
const maxConnections = 4096

// guestListener accepts the server's connections and nobody else's. What comes from inside the sandbox is closed
// before a byte is read: the code there has no token, and must not be able to use up what the server needs.
//
// It survives the restore of a checkpoint. A restore cuts the open connections, and afterwards the kernel of the
// sandbox sometimes tells nobody that a new one waits on the old socket. The cut shows itself on the old connections
// (ECONNABORTED); then the socket is replaced, and what waits on the old one is served first.
type guestListener struct {
	address    string
	fromInside func(net.Conn) bool
	open       atomic.Int32

	mu      sync.Mutex
	current *net.TCPListener
	waiting []net.Conn // taken over from replaced sockets
	renewed time.Time
	closed  bool
}

func listen(address string) (*guestListener, error) {
	l := &guestListener{address: address, fromInside: isFromInside}
	socket, err := listenTCP(address)
	if err != nil {
		return nil, err
	}
	l.current, l.address = socket, socket.Addr().String()
	return l, nil
}

func listenTCP(address string) (*net.TCPListener, error) {
	// Keep-alive probes only clean up after a host that vanished without a word; each costs an idle sandbox a wake-up.
	config := net.ListenConfig{KeepAlive: 2 * time.Minute}
	l, err := config.Listen(context.Background(), "tcp4", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// Addr implements net.Listener.
func (l *guestListener) Addr() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current.Addr()
}

// Close implements net.Listener.
func (l *guestListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.current.Close()
}

// Accept implements net.Listener.
func (l *guestListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.next()
		if err != nil {
			return nil, err
		}
		if conn == nil {
			continue
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok || l.fromInside(conn) || l.open.Load() >= maxConnections {
			if ok {
				tcp.SetLinger(0)
			}
			conn.Close()
			continue
		}
		l.open.Add(1)
		return &guestConn{TCPConn: tcp, listener: l}, nil
	}
}

// next returns the next connection, or none if it is worth asking again.
func (l *guestListener) next() (net.Conn, error) {
	l.mu.Lock()
	socket := l.current
	if len(l.waiting) > 0 {
		conn := l.waiting[0]
		l.waiting = l.waiting[1:]
		l.mu.Unlock()
		return conn, nil
	}
	l.mu.Unlock()
	conn, err := socket.Accept()
	if err == nil {
		return conn, nil
	}
	l.mu.Lock()
	replaced, closed := l.current != socket, l.closed
	l.mu.Unlock()
	if closed || errors.Is(err, net.ErrClosed) && !replaced {
		return nil, net.ErrClosed
	}
	if !replaced {
		time.Sleep(5 * time.Millisecond) // out of descriptors, or a connection that died in the queue
	}
	return nil, nil
}

// renew replaces the socket. All connections of a restored sandbox ask for it within a moment.
func (l *guestListener) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || time.Since(l.renewed) < time.Second {
		return
	}
	l.waiting = append(l.waiting, drainAccepted(l.current)...)
	l.current.Close()
	for i := 0; ; i++ {
		socket, err := listenTCP(l.address)
		if err == nil {
			l.current = socket
			break
		}
		if i == 500 {
			logf("listen: %v", err)
			return // Accept fails now, and the caller begins anew
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.renewed = time.Now()
}

// drainAccepted takes what waits on a socket, without waiting.
func drainAccepted(socket *net.TCPListener) []net.Conn {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	var conns []net.Conn
	raw.Control(func(fd uintptr) {
		for {
			accepted, _, err := syscall.Accept4(int(fd), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				return
			}
			file := os.NewFile(uintptr(accepted), "accepted")
			if conn, err := net.FileConn(file); err == nil {
				conns = append(conns, conn)
			}
			file.Close()
		}
	})
	return conns
}

// guestConn is a connection of the server.
type guestConn struct {
	*net.TCPConn
	listener *guestListener
	closed   atomic.Bool
}

// Read notices the restore of a checkpoint.
func (c *guestConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if err != nil {
		c.noticeRestore(err)
	}
	return n, err
}

func (c *guestConn) noticeRestore(err error) {
	if errors.Is(err, syscall.ECONNABORTED) {
		go guard("renewing the listener", c.listener.renew)
	}
}

// Close implements net.Conn.
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

func isEOF(err error) bool { return err == io.EOF || errors.Is(err, syscall.ESHUTDOWN) }
