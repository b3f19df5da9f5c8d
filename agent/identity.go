package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"os"
	"strings"
	"syscall"
)

// identity is what a claim gave. It never changes: another one takes its place.
type identity struct {
	sandboxID   string
	tokenHash   [sha256.Size]byte
	hostname    string // "" if it was given none
	sudo        bool
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

// claimer gives an agent its identity: once by a claim, and another one each time the sandbox was restored from a
// checkpoint. One call at a time.
type claimer struct {
	root        string
	executable  string
	accounts    *accounts
	templateEnv map[string]string
	setHostname func(string) error
	addEntropy  func([]byte) error
	limitPids   func(int) bool
	openSudo    func(account) error
	closeSudo   func()
	memoryWatch bool
	trust       *trustStore
}

// claim does the work of POST /v1/claim.
func (c *claimer) claim(current *identity, r claimRequest) (*identity, error) {
	if current == nil {
		return c.assume(&identity{sudo: true}, r) // boot has put sudo in its place
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if current.sandboxID == r.SandboxID && current.accepts(r.Token) {
		return current, nil // the answer was lost
	}
	return nil, fail("already_claimed", "this sandbox already has an identity")
}

// assume puts the identity of a request in the place of the old one. A request that is refused has changed nothing. What
// fails halfway is reported in the log, not to the caller, except what the caller must know: a sandbox whose hostname
// cannot be written is still a sandbox.
func (c *claimer) assume(old *identity, r claimRequest) (*identity, error) {
	if err := r.check(); err != nil {
		return nil, err
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
			logf("identity: %s: %v", what, err)
		}
	}
	if entropy, _ := base64.StdEncoding.DecodeString(r.Entropy); len(entropy) > 0 {
		report("entropy", c.addEntropy(entropy))
	}
	hostname := old.hostname
	if r.Hostname != "" {
		hostname = r.Hostname
		report("hostname", c.setHostname(hostname))
		report("hostname", writeInPlaceOrReplace(c.root+"/etc/hostname", []byte(hostname+"\n")))
		report("hosts", renameHost(c.root, old.hostname, hostname))
	}
	if r.MachineID != "" {
		report("machine id", c.writeMachineID(r.MachineID))
	}
	if len(r.Nameservers) > 0 {
		text := "nameserver " + strings.Join(r.Nameservers, "\nnameserver ") + "\n"
		report("resolv.conf", writeInPlaceOrReplace(c.root+"/etc/resolv.conf", []byte(text)))
	}
	report("trust", c.trust.install(r.CACert))
	if r.Sudo {
		if !old.sudo { // else it is where it was, or the owner has put another in its place
			report("sudo", linkSudo(c.root, c.executable))
		}
		report("sudo", c.openSudo(acc))
	} else {
		c.closeSudo()
		unlinkSudo(c.root, c.executable)
	}
	id := &identity{
		sandboxID: r.SandboxID, tokenHash: sha256.Sum256([]byte(r.Token)), hostname: hostname, sudo: r.Sudo,
		defaultUser: acc.Name, env: r.Env, templateEnv: c.templateEnv,
	}
	id.answer.Protocol = protocolVersion
	id.answer.User = acc
	id.answer.Enforced.Pids = c.limitPids(r.Limits.Pids)
	id.answer.Enforced.Memory = c.memoryWatch
	return id, nil
}

// writeMachineID also replaces the copy of D-Bus, where it is one and no link.
func (c *claimer) writeMachineID(id string) error {
	err := writeInPlaceOrReplace(c.root+"/etc/machine-id", []byte(id+"\n"))
	dbus := c.root + "/var/lib/dbus/machine-id"
	if fi, statErr := os.Lstat(dbus); statErr == nil && fi.Mode().IsRegular() {
		if dbusErr := writeInPlaceOrReplace(dbus, []byte(id+"\n")); err == nil {
			err = dbusErr
		}
	}
	return err
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
