package main

import (
	"net"
	"net/http"
	"time"
)

const maxHoldSeconds = 300

// authorize returns the identity under which a request is served.
func (a *agent) authorize(r *http.Request) (*identity, error) {
	id := a.identity.Load()
	if id == nil {
		return nil, fail("not_claimed", "the sandbox has no identity yet")
	}
	token, ok := cutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || !id.accepts(token) {
		return nil, fail("unauthorized", "the token is missing or wrong")
	}
	return id, nil
}

func (a *agent) claim(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, a.claimer.claim)
}

// replaceIdentity makes the sandbox somebody new: a checkpoint carries the identity of the sandbox it was taken from.
func (a *agent) replaceIdentity(w http.ResponseWriter, r *http.Request) error {
	return a.change(w, r, func(_ *identity, req claimRequest) (*identity, error) {
		// Again: another such call may have come first.
		current, err := a.authorize(r)
		if err != nil {
			return nil, err
		}
		id, err := a.claimer.assume(current, req)
		if err == nil {
			// Those who followed before the checkpoint do not come back to a restored sandbox.
			for _, p := range a.processes.all() {
				p.out.unreserve()
			}
		}
		return id, err
	})
}

func (a *agent) change(w http.ResponseWriter, r *http.Request, next func(*identity, claimRequest) (*identity, error)) error {
	var req claimRequest
	if err := readJSON(w, r, &req); err != nil {
		return err
	}
	a.changing.Lock()
	id, err := next(a.identity.Load(), req)
	if err == nil {
		a.identity.Store(id)
	}
	a.changing.Unlock()
	if err != nil {
		return err
	}
	return answer(w, 200, id.answer, nil)
}

// hold prepares for a checkpoint. A connection that a restore cuts can leave the whole poller deaf, so none may be open
// then; followers who lose theirs find everything when they come back.
func (a *agent) hold(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		OutputSeconds int `json:"output_seconds"`
	}
	if err := readJSON(w, r, &req); err != nil {
		return err
	}
	if req.OutputSeconds < 0 || req.OutputSeconds > maxHoldSeconds {
		return fail("bad_request", "output_seconds must be between 0 and %d", maxHoldSeconds)
	}
	if req.OutputSeconds > 0 {
		for _, p := range a.processes.all() {
			p.out.reserve(time.Duration(req.OutputSeconds) * time.Second)
		}
	}
	own, _ := r.Context().Value(connectionKey{}).(net.Conn)
	a.connections.resetOthers(own)
	w.Header().Set("Connection", "close")
	return answer(w, 200, struct{}{}, nil)
}

// launch starts a process under one identity: before or after a change, with its hostname, limits and all.
func (a *agent) launch(w http.ResponseWriter, r *http.Request) (*process, error) {
	var req startRequest
	if err := readJSON(w, r, &req); err != nil {
		return nil, err
	}
	a.changing.RLock()
	defer a.changing.RUnlock()
	id, err := a.authorize(r) // again: it may have changed while the body came
	if err != nil {
		return nil, err
	}
	return a.processes.start(id, req)
}
