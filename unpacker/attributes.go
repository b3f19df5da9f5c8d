package main

import (
	"archive/tar"
	"errors"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	xattrRecord       = "SCHILY.xattr."
	capabilityXattr   = "security.capability"
	userXattrs        = "user."
	mostXattrs        = 64
	highestOwner      = 1<<32 - 2
	permissionBits    = 0o7777
	atSymlinkNofollow = 0x100
	atFdcwd           = -100
)

// describe gives a new file its owner, its attributes, its mode and its times: in this order, because a change of owner
// takes set-uid and capabilities away, and a change of anything the times.
func describe(place string, header *tar.Header) error {
	if header.Uid < 0 || header.Uid > highestOwner || header.Gid < 0 || header.Gid > highestOwner {
		return refused(header.Name, "has an owner that cannot be: %d:%d", header.Uid, header.Gid)
	}
	if err := syscall.Lchown(place, header.Uid, header.Gid); err != nil {
		return atFault(header.Name, err)
	}
	if header.Typeflag != tar.TypeSymlink {
		if err := syscall.Chmod(place, uint32(header.Mode&permissionBits)); err != nil {
			return atFault(header.Name, err)
		}
		if err := setXattrs(place, header); err != nil {
			return err
		}
	}
	return setTimes(place, header.ModTime)
}

// setXattrs keeps what a program in a sandbox can have set itself. Labels of the builder's security modules, and what
// overlay file systems note for themselves, are left out.
func setXattrs(place string, header *tar.Header) error {
	count := 0
	for record, value := range header.PAXRecords {
		if !strings.HasPrefix(record, xattrRecord) {
			continue
		}
		name := strings.TrimPrefix(record, xattrRecord)
		isUser := strings.HasPrefix(name, userXattrs) && (header.Typeflag != tar.TypeFifo)
		if !isUser && name != capabilityXattr {
			continue
		}
		if count++; count > mostXattrs {
			return refused(header.Name, "has more than %d extended attributes", mostXattrs)
		}
		err := syscall.Setxattr(place, name, []byte(value), 0)
		for _, errno := range []syscall.Errno{syscall.EINVAL, syscall.ERANGE, syscall.E2BIG, syscall.ENOSPC, syscall.ENOTSUP} {
			if errors.Is(err, errno) {
				return refused(header.Name, "has the extended attribute %s, which cannot be kept here: %v", quote(name), errno)
			}
		}
		if err != nil {
			return &os.PathError{Op: "setxattr", Path: place, Err: err}
		}
	}
	return nil
}

// xattrsSize is what they take where they do not fit into an inode.
func xattrsSize(header *tar.Header) int64 {
	var size int64
	for record, value := range header.PAXRecords {
		if strings.HasPrefix(record, xattrRecord) {
			size += int64(len(value))
		}
	}
	return size
}

// setTimes never follows a link. The time of access is not kept by layers: equal trees are to be equal.
func setTimes(place string, modified time.Time) error {
	path, err := syscall.BytePtrFromString(place)
	if err != nil {
		return err
	}
	at := syscall.Timespec{Sec: modified.Unix(), Nsec: int64(modified.Nanosecond())}
	both := [2]syscall.Timespec{at, at}
	directory := atFdcwd
	_, _, errno := syscall.Syscall6(syscall.SYS_UTIMENSAT, uintptr(directory), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&both)), atSymlinkNofollow, 0, 0)
	if errno != 0 {
		return &os.PathError{Op: "utimensat", Path: place, Err: errno}
	}
	return nil
}
