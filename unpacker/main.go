// The unpacker applies one layer of a container image, a tar on standard input, to a directory. A layer is written by a
// stranger, so the process that reads it has no power over the machine: the directory is all of the file system that it
// has, it sees no other process and no network, and of root's capabilities it keeps those about owners and modes.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
)

// What the three stages are called by: each is this program again.
const (
	enteringName = "unpacker-entering"
	confinedName = "unpacker-confined"
)

func main() {
	runtime.LockOSThread() // what dies with its parent dies with the thread that started it
	switch os.Args[0] {
	case enteringName:
		exitWith(enter(os.Args[1], os.Args[2:]))
	case confinedName:
		if err := assertConfined(); err != nil {
			exitWith(err)
		}
		report(unpack(os.Args[1:]))
	default:
		if len(os.Args) < 2 {
			exitWith(fmt.Errorf("usage: unpacker DIRECTORY -max-bytes N -max-entries N -max-stream N [-bytes N]"))
		}
		os.Exit(start(os.Args[1], os.Args[2:]))
	}
}

// exitWith ends the program over something that the layer is not to blame for.
func exitWith(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// answer is the one line of JSON on standard output.
type answer struct {
	DiffID  string `json:"diff_id,omitempty"` // SHA-256 of the whole tar, in hexadecimal
	Bytes   int64  `json:"bytes"`             // what the directory takes now
	Entries int64  `json:"entries"`           // of this layer, with directories that it left out
	Stream  int64  `json:"stream"`            // length of the tar
	Skipped int64  `json:"skipped"`           // device nodes

	Problem string `json:"problem,omitempty"` // unsafe, too_large or broken
	Detail  string `json:"detail,omitempty"`
}

func report(result answer, err error) {
	if problem, ok := err.(*problem); ok {
		result = answer{Problem: problem.kind, Detail: problem.detail}
	} else if err != nil {
		exitWith(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		exitWith(err)
	}
}

func unpack(args []string) (answer, error) {
	var limits limits
	flags := flag.NewFlagSet("unpacker", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Int64Var(&limits.bytes, "max-bytes", 0, "")
	flags.Int64Var(&limits.entries, "max-entries", 0, "")
	flags.Int64Var(&limits.stream, "max-stream", 0, "")
	used := flags.Int64("bytes", 0, "")
	if err := flags.Parse(args); err != nil {
		return answer{}, err
	}
	return newTree("/", limits, *used).apply(os.Stdin)
}
