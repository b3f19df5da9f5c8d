package main

import "fmt"

// problem is the layer's own fault; every other error is the machine's.
type problem struct {
	kind   string
	detail string
}

func (p *problem) Error() string { return p.detail }

// refused is about an entry that wants what no image needs.
func refused(name string, format string, args ...any) error {
	return &problem{"unsafe", fmt.Sprintf("%s %s", quote(name), fmt.Sprintf(format, args...))}
}

func tooLarge(format string, args ...any) error {
	return &problem{"too_large", fmt.Sprintf(format, args...)}
}

// broken is about bytes that are no layer.
func broken(format string, args ...any) error {
	return &problem{"broken", fmt.Sprintf(format, args...)}
}

const longestQuoted = 200

// quote makes a name of the layer fit for a message.
func quote(name string) string {
	if len(name) > longestQuoted {
		name = name[:longestQuoted] + "..."
	}
	return fmt.Sprintf("%q", name)
}
