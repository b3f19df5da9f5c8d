package main

import (
	"errors"
	"fmt"
	"net/http"
	"syscall"
)

// statusOf is the closed set of codes of the protocol and the HTTP status of each.
var statusOf = map[string]int{
	"bad_request":        http.StatusBadRequest,
	"unauthorized":       http.StatusUnauthorized,
	"not_claimed":        http.StatusConflict,
	"already_claimed":    http.StatusConflict,
	"not_found":          http.StatusNotFound,
	"user_not_found":     http.StatusBadRequest,
	"cwd_not_found":      http.StatusBadRequest,
	"is_directory":       http.StatusBadRequest,
	"not_directory":      http.StatusBadRequest,
	"not_regular":        http.StatusBadRequest,
	"link_loop":          http.StatusBadRequest,
	"bad_range":          http.StatusRequestedRangeNotSatisfiable,
	"exists":             http.StatusConflict,
	"forbidden":          http.StatusForbidden,
	"no_space":           http.StatusInsufficientStorage,
	"stdin_closed":       http.StatusConflict,
	"stdin_full":         http.StatusTooManyRequests,
	"too_many":           http.StatusTooManyRequests,
	"spawn_failed":       http.StatusUnprocessableEntity,
	"connection_refused": http.StatusBadGateway,
	"internal":           http.StatusInternalServerError,
}

// protocolError is an error with a code of the protocol; everything a handler returns ends up as one.
type protocolError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *protocolError) Error() string { return e.Code + ": " + e.Message }

func fail(code, format string, args ...any) error {
	return &protocolError{code, fmt.Sprintf(format, args...)}
}

// asProtocolError gives every error a code. Errors of the kernel keep their meaning; what is unknown is internal.
func asProtocolError(err error) *protocolError {
	var known *protocolError
	if errors.As(err, &known) {
		return known
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &protocolError{"bad_request", fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return &protocolError{codeOfErrno(errno), err.Error()}
	}
	return &protocolError{"internal", err.Error()}
}

func codeOfErrno(errno syscall.Errno) string {
	switch errno {
	case syscall.ENOENT:
		return "not_found"
	case syscall.EISDIR:
		return "is_directory"
	case syscall.ENOTDIR:
		return "not_directory"
	case syscall.EEXIST, syscall.ENOTEMPTY:
		return "exists"
	case syscall.EPERM, syscall.EACCES, syscall.EROFS, syscall.EBUSY, syscall.ETXTBSY:
		return "forbidden"
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return "no_space"
	case syscall.ELOOP:
		return "link_loop"
	case syscall.ENAMETOOLONG, syscall.EINVAL:
		return "bad_request"
	case syscall.ENXIO, syscall.ENODEV:
		return "not_regular"
	case syscall.EMFILE, syscall.ENFILE:
		return "too_many"
	}
	return "internal"
}
