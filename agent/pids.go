package main

import "os"

// findPidsController looks for the kernel's pids controller (cgroup v1, which is what gVisor has).
func findPidsController() string {
	for _, dir := range []string{"/sys/fs/cgroup/pids"} {
		if _, err := os.Stat(dir + "/tasks"); err == nil {
			return dir
		}
	}
	logf("no pids controller is mounted: there is no limit of processes")
	return ""
}
