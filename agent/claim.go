package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

// claimRequest is the body of POST /v1/claim.
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

// identity is what a claim gave; it never changes afterwards.
type identity struct {
	sandboxID   string
	tokenHash   [sha256.Size]byte
	defaultUser string
	env         map[string]string
	templateEnv map[string]string
	answer      claimAnswer
}

// accepts compares a token in constant time.
func (id *identity) accepts(token string) bool {
	hash := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(hash[:], id.tokenHash[:]) == 1
}

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
	case r.Limits.Pids < 0 || r.Limits.Pids > 1<<20:
		return fail("bad_request", "limits.pids must be between 0 and 1048576")
	}
	if _, err := base64.StdEncoding.DecodeString(r.Entropy); err != nil {
		return fail("bad_request", "entropy is not base64")
	}
	for _, ns := range r.Nameservers {
		if !addressShape.MatchString(ns) {
			return fail("bad_request", "nameserver %q is no address", ns)
		}
	}
	return checkEnv(r.Env)
}

// claimer gives an agent its identity, once.
type claimer struct {
	root        string
	executable  string
	accounts    *accounts
	templateEnv map[string]string
	setHostname func(string) error
	addEntropy  func([]byte) error
	limitPids   func(int) bool
	openSudo    func(account) error
	memoryWatch bool

	mu sync.Mutex // held by the caller over claim and the keeping of its result
}

// claim does the work of POST /v1/claim. What fails halfway is reported in the log, not to the caller, except what
// the caller must know: a sandbox whose hostname cannot be written is still a sandbox.
func (c *claimer) claim(current *identity, r claimRequest) (*identity, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if current != nil {
		if current.sandboxID == r.SandboxID && current.accepts(r.Token) {
			return current, nil // the answer was lost
		}
		return nil, fail("already_claimed", "this sandbox already has an identity")
	}
	if r.DefaultUser == "" {
		r.DefaultUser = sandboxUser
	}
	acc, err := c.accounts.find(r.DefaultUser)
	if err != nil {
		return nil, err
	}
	report := func(what string, err error) {
		if err != nil {
			logf("claim: %s: %v", what, err)
		}
	}
	if entropy, _ := base64.StdEncoding.DecodeString(r.Entropy); len(entropy) > 0 {
		report("entropy", c.addEntropy(entropy))
	}
	if r.Hostname != "" {
		report("hostname", c.setHostname(r.Hostname))
		report("hostname", writeInPlaceOrReplace(c.root+"/etc/hostname", []byte(r.Hostname+"\n")))
		report("hosts", ensureHosts(c.root, r.Hostname))
	}
	if r.MachineID != "" {
		report("machine id", writeInPlaceOrReplace(c.root+"/etc/machine-id", []byte(r.MachineID+"\n")))
		dbus := c.root + "/var/lib/dbus/machine-id"
		if fi, err := os.Lstat(dbus); err == nil && fi.Mode().IsRegular() {
			report("machine id", writeInPlaceOrReplace(dbus, []byte(r.MachineID+"\n")))
		}
	}
	if len(r.Nameservers) > 0 {
		text := "nameserver " + strings.Join(r.Nameservers, "\nnameserver ") + "\n"
		report("resolv.conf", writeInPlaceOrReplace(c.root+"/etc/resolv.conf", []byte(text)))
	}
	if r.Sudo {
		report("sudo", c.openSudo(acc))
	} else {
		unlinkSudo(c.root, c.executable)
	}
	id := &identity{
		sandboxID: r.SandboxID, tokenHash: sha256.Sum256([]byte(r.Token)), defaultUser: acc.Name,
		env: r.Env, templateEnv: c.templateEnv,
	}
	id.answer.Protocol = protocolVersion
	id.answer.User = acc
	id.answer.Enforced.Pids = c.limitPids(r.Limits.Pids)
	id.answer.Enforced.Memory = c.memoryWatch
	return id, nil
}

// writeEntropy mixes bytes into the kernel's pool.
func writeEntropy(entropy []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(entropy)
	return err
}

func setKernelHostname(name string) error { return syscall.Sethostname([]byte(name)) }
