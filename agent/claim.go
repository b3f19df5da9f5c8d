package main

import (
	"encoding/base64"
	"regexp"
)

// claimRequest is the body of POST /v1/claim and POST /v1/identity.
type claimRequest struct {
	SandboxID   string            `json:"sandbox_id"`
	Token       string            `json:"token"`
	Hostname    string            `json:"hostname"`
	MachineID   string            `json:"machine_id"`
	Entropy     string            `json:"entropy"`
	DefaultUser string            `json:"default_user"`
	Sudo        bool              `json:"sudo"`
	Env         map[string]string `json:"env"`
	Nameservers []string          `json:"nameservers"`
	CACert      string            `json:"ca_certificate"`
	Limits      struct {
		Pids        int   `json:"pids"`
		MemoryBytes int64 `json:"memory_bytes"`
	} `json:"limits"`
}

type claimAnswer struct {
	Protocol int     `json:"protocol"`
	User     account `json:"user"`
	Enforced struct {
		Pids   bool `json:"pids"`
		Memory bool `json:"memory"`
	} `json:"enforced"`
}

const maxNameservers = 8

var (
	hostnameShape  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)
	machineIDShape = regexp.MustCompile(`^[0-9a-f]{32}$`)
	addressShape   = regexp.MustCompile(`^[0-9A-Fa-f:.]{2,45}$`)
)

func (r *claimRequest) check() error {
	switch {
	case r.SandboxID == "" || len(r.SandboxID) > 256:
		return fail("bad_request", "sandbox_id is missing or longer than 256 bytes")
	case len(r.Token) < 16 || len(r.Token) > 1024:
		return fail("bad_request", "token must have 16 to 1024 characters")
	case r.Hostname != "" && !hostnameShape.MatchString(r.Hostname):
		return fail("bad_request", "hostname %q is no host name", r.Hostname)
	case r.MachineID != "" && !machineIDShape.MatchString(r.MachineID):
		return fail("bad_request", "machine_id must be 32 hexadecimal digits")
	case len(r.Nameservers) > maxNameservers:
		return fail("bad_request", "nameservers has more than %d addresses", maxNameservers)
	case r.CACert != "" && (len(r.CACert) > maxAuthority || !authorityShape.MatchString(r.CACert)):
		return fail("bad_request", "ca_certificate is not one certificate in PEM of at most %d bytes", maxAuthority)
	case r.Limits.Pids < 0 || r.Limits.Pids > 1<<20:
		return fail("bad_request", "limits.pids must be between 0 and 1048576")
	case r.Limits.MemoryBytes < 0:
		return fail("bad_request", "limits.memory_bytes must not be negative")
	}
	if _, err := base64.StdEncoding.DecodeString(r.Entropy); err != nil {
		return fail("bad_request", "entropy is not base64")
	}
	for _, ns := range r.Nameservers {
		if !addressShape.MatchString(ns) {
			return fail("bad_request", "nameservers: %q is no address", ns)
		}
	}
	return checkEnv(r.Env)
}
