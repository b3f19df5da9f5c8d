package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	protocolVersion   = 2
	protocolHeader    = "Paddock-Agent-Protocol"
	agentPort         = 49983
	maxBody           = 2 << 20
	keepAliveInterval = 10 * time.Second
)

// copyBuffers are for moving files; larger ones than for streams, because each system call of the sandbox is dear.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// agent is the HTTP face of everything else.
type agent struct {
	claimer     *claimer
	accounts    *accounts
	processes   *processes
	events      *eventLog
	connections *connections
	identity    atomic.Pointer[identity]
	// changing is held for writing while the identity changes, and for reading by what must happen wholly before or
	// wholly after that.
	changing sync.RWMutex
}

type connectionKey struct{}

func newHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		// Longer than the server's pool keeps an idle connection: one closed under it would cost a request. Without this
		// the time for headers would count.
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, conn)
		},
	}
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(protocolHeader, strconv.Itoa(protocolVersion))
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			logf("panic in %s %s: %v %s", r.Method, r.URL.Path, p, debug.Stack())
			writeError(w, fail("internal", "the agent met a fault of its own"))
		}
	}()
	if err := a.route(w, r); err != nil {
		writeError(w, err)
	}
}

func writeError(w http.ResponseWriter, err error) {
	e := asProtocolError(err)
	e = &protocolError{e.Code, strings.ToValidUTF8(e.Message, "\uFFFD")}
	writeJSON(w, statusOf[e.Code], e)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"code":"internal","message":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// answer is for handlers that give a value or an error.
func answer(w http.ResponseWriter, status int, value any, err error) error {
	if err == nil {
		writeJSON(w, status, value)
	}
	return err
}

func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return fail("bad_request", "the body ended early: %v", err)
	}
	if len(body) == 0 {
		body = []byte("{}")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fail("bad_request", "the body is not the JSON this call takes: %v", err)
	}
	return nil
}

// route finds the handler of a request, after the two checks every request must pass.
func (a *agent) route(w http.ResponseWriter, r *http.Request) error {
	call := r.Method + " " + r.URL.Path
	switch call {
	case "GET /v1/health":
		return answer(w, 200, map[string]any{"protocol": protocolVersion, "version": version, "claimed": a.identity.Load() != nil}, nil)
	case "POST /v1/claim":
		return a.claim(w, r)
	}
	id, err := a.authorize(r)
	if err != nil {
		return err
	}
	switch call {
	case "POST /v1/identity":
		return a.replaceIdentity(w, r)
	case "POST /v1/hold":
		return a.hold(w, r)
	case "POST /v1/processes":
		return a.start(w, r)
	case "POST /v1/start-and-follow":
		return a.startAndFollow(w, r)
	case "GET /v1/processes":
		return answer(w, 200, map[string]any{"processes": a.processes.list()}, nil)
	case "DELETE /v1/processes":
		return answer(w, 200, struct{}{}, a.processes.killAll())
	case "GET /v1/events":
		return a.followEvents(w, r)
	case "GET /v1/files", "PUT /v1/files", "DELETE /v1/files", "GET /v1/files/list", "GET /v1/files/info",
		"POST /v1/files/rename", "POST /v1/files/mkdir", "GET /v1/files/archive", "PUT /v1/files/archive":
		return a.files(w, r, id, call)
	case "POST /v1/mounts":
		return a.mount(w, r, id)
	case "GET /v1/tunnel":
		return serveTunnel(w, r)
	}
	if rest, ok := cutPrefix(r.URL.Path, "/v1/processes/"); ok {
		name, action, _ := strings.Cut(rest, "/")
		return a.process(w, r, name, r.Method+" "+action)
	}
	return fail("not_found", "there is no call %s %s", r.Method, r.URL.Path)
}

type startedView struct {
	ID        string `json:"id"`
	PID       int    `json:"pid"`
	StartedAt int64  `json:"started_at_ms"`
}

func (a *agent) start(w http.ResponseWriter, r *http.Request) error {
	p, err := a.launch(w, r)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, startedView{p.id, p.pid, p.startedAt}, nil)
}

func (a *agent) startAndFollow(w http.ResponseWriter, r *http.Request) error {
	p, err := a.launch(w, r)
	if err != nil {
		return err
	}
	f, err := p.out.follow(0, true)
	if err != nil {
		return err
	}
	payload, _ := json.Marshal(startedView{p.id, p.pid, p.startedAt})
	sendFrames(w, r, f, appendFrame(nil, frameStarted, 0, payload))
	return nil
}

// process serves what is below one process.
func (a *agent) process(w http.ResponseWriter, r *http.Request, name, call string) error {
	p, err := a.processes.get(name)
	if err != nil {
		return err
	}
	switch call {
	case "GET ":
		return answer(w, 200, p.view(), nil)
	case "DELETE ":
		return answer(w, 200, map[string]bool{"killed": a.processes.remove(p)}, nil)
	case "GET output":
		return followOutput(w, r, p)
	case "POST stdin":
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxStdinWaiting))
		if err != nil {
			return err
		}
		return answer(w, 200, map[string]int{"written": len(body)}, a.processes.writeStdin(p, body))
	case "POST stdin/close":
		return answer(w, 200, struct{}{}, a.processes.closeStdin(p))
	case "POST signal":
		req := struct {
			Signal json.RawMessage `json:"signal"`
			Group  *bool           `json:"group"`
		}{}
		if err := readJSON(w, r, &req); err != nil {
			return err
		}
		sig, err := parseSignal(req.Signal)
		if err != nil {
			return err
		}
		delivered, err := a.processes.signal(p, sig, req.Group == nil || *req.Group)
		return answer(w, 200, map[string]bool{"delivered": delivered}, err)
	case "POST resize":
		var req struct{ Cols, Rows int }
		if err := readJSON(w, r, &req); err != nil {
			return err
		}
		return answer(w, 200, struct{}{}, a.processes.resize(p, req.Cols, req.Rows))
	}
	return fail("not_found", "there is no call %s %s", r.Method, r.URL.Path)
}

func queryNumber(r *http.Request, name string) (uint64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, fail("bad_request", "%s must be a number", name)
	}
	return n, nil
}

func followOutput(w http.ResponseWriter, r *http.Request, p *process) error {
	after, err := queryNumber(r, "after")
	if err != nil {
		return err
	}
	f, err := p.out.follow(after, r.URL.Query().Get("follow") == "true")
	if err != nil {
		return err
	}
	sendFrames(w, r, f, nil)
	return nil
}

// sendFrames writes frames as they come, each batch in one piece, until the exit frame or until the client leaves.
func sendFrames(w http.ResponseWriter, r *http.Request, f *follower, buf []byte) {
	defer f.leave()
	w.Header().Set("Content-Type", "application/vnd.paddock.frames")
	w.Header().Set("Cache-Control", "no-store")
	flusher, _ := w.(http.Flusher)
	silence := time.NewTimer(keepAliveInterval)
	defer silence.Stop()
	for {
		var done bool
		buf, done = f.take(buf)
		if len(buf) > 0 {
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
		if done {
			return // the last flush is the end of the answer
		}
		flusher.Flush()
		if cap(buf) > 8<<10 {
			buf = nil // a follower that waits holds no memory
		}
		buf = buf[:0]
		// After Stop the channel may hold a tick of before; then one keep-alive comes early, which harms nobody.
		silence.Stop()
		silence.Reset(keepAliveInterval)
		select {
		case <-f.wake:
		case <-r.Context().Done():
			return
		case <-silence.C:
			buf = appendFrame(buf, frameKeepAlive, 0, nil)
		}
	}
}

func (a *agent) followEvents(w http.ResponseWriter, r *http.Request) error {
	after, err := queryNumber(r, "after")
	if err != nil {
		return err
	}
	if err := a.events.join(); err != nil {
		return err
	}
	defer a.events.leave()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	flusher, _ := w.(http.Flusher)
	encoder := json.NewEncoder(w)
	ticker := time.NewTicker(keepAliveInterval)
	defer ticker.Stop()
	for {
		events, last, changed := a.events.since(after)
		for _, e := range events {
			if encoder.Encode(e) != nil {
				return nil
			}
		}
		after = last
		flusher.Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return nil
		case now := <-ticker.C:
			if encoder.Encode(event{N: last, Type: "keep_alive", AtMS: now.UnixMilli()}) != nil {
				return nil
			}
		}
	}
}

// files serves the calls on files; all of them name a user whose home relative paths start from.
func (a *agent) files(w http.ResponseWriter, r *http.Request, id *identity, call string) error {
	query := r.URL.Query()
	var body struct {
		Path    string `json:"path"`
		OldPath string `json:"old_path"`
		NewPath string `json:"new_path"`
		User    string `json:"user"`
	}
	if r.Method == http.MethodPost {
		if err := readJSON(w, r, &body); err != nil {
			return err
		}
	} else {
		body.Path, body.User = query.Get("path"), query.Get("user")
	}
	if body.User == "" {
		body.User = id.defaultUser
	}
	acc, err := a.accounts.find(body.User)
	if err != nil {
		return err
	}
	if call == "POST /v1/files/rename" {
		oldPath, err := cleanPath(body.OldPath, acc)
		if err != nil {
			return err
		}
		newPath, err := cleanPath(body.NewPath, acc)
		if err != nil {
			return err
		}
		if err := renameFile(oldPath, newPath, acc); err != nil {
			return err
		}
		info, err := fileInfo(newPath)
		return answer(w, 200, info, err)
	}
	path, err := cleanPath(body.Path, acc)
	if err != nil {
		return err
	}
	switch call {
	case "GET /v1/files":
		return sendFile(w, r, path)
	case "PUT /v1/files":
		mode, err := parseMode(query.Get("mode"))
		if err != nil {
			return err
		}
		size, err := writeFile(path, acc, mode, uploadReader{r.Body})
		return answer(w, 200, map[string]any{"path": path, "size": size}, err)
	case "DELETE /v1/files":
		removed, err := removeAll(path)
		return answer(w, 200, map[string]bool{"removed": removed}, err)
	case "GET /v1/files/list":
		depth := 1
		if text := query.Get("depth"); text != "" {
			if depth, err = strconv.Atoi(text); err != nil || depth < 0 || depth > maxDepth {
				return fail("bad_request", "depth must be between 0 and %d", maxDepth)
			}
		}
		entries, truncated, err := listFiles(path, depth)
		if entries == nil {
			entries = []fileEntry{}
		}
		return answer(w, 200, map[string]any{"entries": entries, "truncated": truncated}, err)
	case "GET /v1/files/archive":
		return packTree(w, path)
	case "PUT /v1/files/archive":
		files, size, err := unpackTree(path, acc, uploadReader{r.Body})
		return answer(w, 200, map[string]any{"files": files, "bytes": size}, err)
	case "GET /v1/files/info":
		info, err := fileInfo(path)
		return answer(w, 200, info, err)
	default: // POST /v1/files/mkdir
		made, err := makeDirs(path, acc)
		return answer(w, 200, map[string]bool{"created": len(made) > 0}, err)
	}
}

// uploadReader names the cause when a client goes away in the middle.
type uploadReader struct{ io.Reader }

func (u uploadReader) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = fail("bad_request", "the upload broke off: %v", err)
	}
	return n, err
}

func parseMode(text string) (*uint32, error) {
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o7777 {
		return nil, fail("bad_request", "mode must be an octal number up to 7777")
	}
	mode := uint32(n)
	return &mode, nil
}

// sendFile answers with a file, or one range of it.
func sendFile(w http.ResponseWriter, r *http.Request, path string) error {
	f, fi, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	size := fi.Size()
	if size == 0 {
		// Files of /proc have no size and yet a content.
		content, err := io.ReadAll(io.LimitReader(f, 4<<20))
		if err != nil && !errors.Is(err, syscall.EINVAL) {
			return err
		}
		header.Set("Content-Length", strconv.Itoa(len(content)))
		w.Write(content)
		return nil
	}
	header.Set("Accept-Ranges", "bytes")
	part, err := parseRange(r.Header.Get("Range"), size)
	if err != nil {
		header.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		return err
	}
	status, length := http.StatusOK, size
	if part != nil {
		if _, err := f.Seek(part.first, io.SeekStart); err != nil {
			return err
		}
		status, length = http.StatusPartialContent, part.last-part.first+1
		header.Set("Content-Range", "bytes "+strconv.FormatInt(part.first, 10)+"-"+strconv.FormatInt(part.last, 10)+"/"+strconv.FormatInt(size, 10))
	}
	header.Set("Content-Length", strconv.FormatInt(length, 10))
	w.WriteHeader(status)
	// A file that shrinks meanwhile ends the answer early; the client sees that the length is wrong.
	copyAll(w, io.LimitReader(f, length))
	return nil
}
