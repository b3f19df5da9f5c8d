package main

import (
	"sort"
	"strings"
)

const (
	defaultPath       = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	caBundle          = "/etc/ssl/certs/ca-certificates.crt"
	templateEnvPrefix = "PADDOCK_TEMPLATE_ENV_"
)

// templateEnv takes the template's variables out of the agent's own environment.
func templateEnv(environ []string) map[string]string {
	env := map[string]string{}
	for _, kv := range environ {
		if !strings.HasPrefix(kv, templateEnvPrefix) {
			continue
		}
		if k, v, ok := strings.Cut(kv[len(templateEnvPrefix):], "="); ok && k != "" {
			env[k] = v
		}
	}
	return env
}

// checkEnv refuses what execve cannot carry.
func checkEnv(env map[string]string) error {
	for k, v := range env {
		if k == "" || strings.ContainsAny(k, "=\x00") {
			return fail("bad_request", "%q is no name of an environment variable", k)
		}
		if strings.IndexByte(v, 0) >= 0 {
			return fail("bad_request", "the value of the environment variable %q contains a NUL byte", k)
		}
	}
	return nil
}

// buildEnv lays the environments over one another: what every process has, then each layer in turn.
func buildEnv(acc account, shell, term string, layers ...map[string]string) []string {
	env := map[string]string{
		"PATH": defaultPath, "LANG": "C.UTF-8", "TMPDIR": "/tmp",
		"HOME": acc.Home, "USER": acc.Name, "LOGNAME": acc.Name, "SHELL": shell,
	}
	if term != "" {
		env["TERM"] = term
	}
	caEnv(env)
	for _, layer := range layers {
		for k, v := range layer {
			env[k] = v
		}
	}
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	sort.Strings(list)
	return list
}

// valueOf finds a variable in an environment as execve takes it.
func valueOf(env []string, name string) string {
	for _, kv := range env {
		if value, ok := cutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}
