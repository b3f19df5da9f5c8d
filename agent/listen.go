package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxConnections bounds what the host side may open; a client pool needs a few dozen.
const maxConnections = 4096

// sendBuffer bounds what was given to a follower and has not left the sandbox: it is lost when the connection is cut, so
// the output keeps more than that for being asked again.
const sendBuffer = 512 << 10

// connections are those that are open.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func newConnections() *connections { return &connections{open: map[net.Conn]struct{}{}} }

// add takes one in, unless there are too many.
func (c *connections) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= maxConnections {
		return false
	}
	c.open[conn] = struct{}{}
	return true
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

// resetOthers cuts all but one.
func (c *connections) resetOthers(spared net.Conn) {
	c.mu.Lock()
	others := make([]net.Conn, 0, len(c.open))
	for conn := range c.open {
		if conn != spared {
			others = append(others, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range others {
		if guest, ok := conn.(*guestConn); ok {
			guest.SetLinger(0)
		}
		conn.Close()
	}
}

// guestListener accepts the server's connections and nobody else's. What comes from inside the sandbox is closed
// before a byte is read: the code there has no token, and must not be able to use up what the server needs.
//
// It survives the restore of a checkpoint. A restore cuts the open connections, and afterwards the kernel of the
// sandbox sometimes tells nobody that a new one waits on the old socket. The cut shows itself on the old connections
// (ECONNABORTED); then the socket is replaced, and what waits on the old one is served first.
type guestListener struct {
	address    string
	fromInside func(net.Conn) bool
	open       *connections

	mu      sync.Mutex
	current *net.TCPListener
	waiting []net.Conn // taken over from replaced sockets
	closed  bool
}

func listen(address string, open *connections) (*guestListener, error) {
	l := &guestListener{address: address, fromInside: isFromInside, open: open}
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
		conn, socket, err := l.next()
		if err != nil {
			return nil, err
		}
		if conn == nil {
			continue
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			conn.Close()
			continue
		}
		accepted := &guestConn{TCPConn: tcp, listener: l, socket: socket}
		if l.fromInside(conn) || !l.open.add(accepted) {
			tcp.SetLinger(0)
			tcp.Close()
			continue
		}
		tcp.SetWriteBuffer(sendBuffer)
		return accepted, nil
	}
}

// next returns the next connection and the socket that accepts at this time, or none if it is worth asking again.
func (l *guestListener) next() (net.Conn, *net.TCPListener, error) {
	l.mu.Lock()
	socket := l.current
	if len(l.waiting) > 0 {
		conn := l.waiting[0]
		l.waiting = l.waiting[1:]
		l.mu.Unlock()
		return conn, socket, nil
	}
	l.mu.Unlock()
	conn, err := socket.Accept()
	if err == nil {
		return conn, socket, nil
	}
	l.mu.Lock()
	replaced, closed := l.current != socket, l.closed
	l.mu.Unlock()
	if closed || errors.Is(err, net.ErrClosed) && !replaced {
		return nil, nil, net.ErrClosed
	}
	if !replaced {
		time.Sleep(5 * time.Millisecond) // out of descriptors, or a connection that died in the queue
	}
	return nil, nil, nil
}

// renew replaces a socket that may have become deaf. All its connections ask for it; the first one is heard.
func (l *guestListener) renew(deaf *net.TCPListener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.current != deaf {
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
	socket   *net.TCPListener // that accepted it
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
		go guard("renewing the listener", func() { c.listener.renew(c.socket) })
	}
}

// Close implements net.Conn.
func (c *guestConn) Close() error {
	c.listener.open.remove(c)
	return c.TCPConn.Close()
}

// isFromInside knows a connection of the sandbox to itself: over loopback, or over its own address.
func isFromInside(conn net.Conn) bool {
	remote, ok1 := conn.RemoteAddr().(*net.TCPAddr)
	local, ok2 := conn.LocalAddr().(*net.TCPAddr)
	return !ok1 || !ok2 || remote.IP.IsLoopback() || remote.IP.Equal(local.IP)
}

func isEOF(err error) bool { return err == io.EOF || errors.Is(err, syscall.ESHUTDOWN) }
