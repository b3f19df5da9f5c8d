# Run inside a new root file system, last: removes what only the build needed and puts in what every sandbox relies on.
set -eu

# Package lists and caches are fetched again when needed; logs and old copies are of this build only.
rm -rf /var/lib/apt/lists /var/cache/apt /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache /var/lib/dpkg/*-old /var/log/* /root/.cache
install -d -m 755 /var/lib/apt/lists /var/cache/apt/archives /var/log/apt
install -d -m 700 -o _apt -g root /var/lib/apt/lists/partial /var/cache/apt/archives/partial
# The build's own apt settings: the machine's proxy, for one.
rm -f /etc/apt/apt.conf.d/99mmdebstrap /usr/sbin/policy-rc.d

# Kept out on later installs too by the dpkg settings below; this catches what came before them.
find /usr/share/locale -mindepth 1 -maxdepth 1 ! -name locale.alias -exec rm -rf {} + 2>/dev/null || true
find /usr/share/doc -type f ! -name copyright -delete
find /usr/share/doc -xtype l -delete
find /usr/share/doc -mindepth 1 -type d -empty -delete
rm -rf /usr/share/info /usr/share/lintian /usr/share/linda /usr/share/man
# Packages with alternatives (java, editors) fail to install when the manual's directories are missing.
for section in 1 2 3 4 5 6 7 8; do install -d "/usr/share/man/man$section"; done
cat > /etc/dpkg/dpkg.cfg.d/paddock <<'END'
path-exclude=/usr/share/man/*/*
path-exclude=/usr/share/locale/*/LC_MESSAGES/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
# A sandbox's disk does not outlive a crash of the machine, so waiting for it buys nothing.
force-unsafe-io
END
rm -f /etc/dpkg/dpkg.cfg.d/99mmdebstrap
echo 'Acquire::Languages "none";' > /etc/apt/apt.conf.d/90paddock
# Nobody is there to answer a package's questions.
echo 'debconf debconf/frontend select Noninteractive' | debconf-set-selections
rm -f /var/cache/debconf/*-old

# Nothing of the machine that built it; the agent writes a sandbox's own.
rm -f /etc/resolv.conf /etc/hostname /var/lib/dbus/machine-id
: > /etc/machine-id
printf '127.0.0.1\tlocalhost\n' > /etc/hosts

# gVisor mounts a RAM file system over an empty /tmp; this keeps it on the sandbox's disk.
rm -rf /tmp/* /run/*
install -d -m 1777 /tmp /tmp/.X11-unix /var/tmp
install -d -m 755 /run/lock

# The agent's binary is bind-mounted over this file.
install -d -m 755 /.paddock
: > /.paddock/agent
chmod 755 /.paddock/agent

if ! id user >/dev/null 2>&1; then
  groupadd --gid 1000 user
  useradd --uid 1000 --gid 1000 --groups sudo,staff --create-home --shell /bin/bash user
fi
echo 'user ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/user
chmod 440 /etc/sudoers.d/user

# Debian's own convention for letting members of staff install into /usr/local, so that pip and npm work without sudo.
chgrp -R staff /usr/local
chmod -R g+w /usr/local
find /usr/local -type d -exec chmod g+s {} +
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
