import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';

/*
 * Sockets that belong to the gateway's network namespace, made and used by a process that lives in the host's. A socket stays in the
 * namespace in which it was made, so the calling thread visits the gateway for the few system calls that make one. Everything between
 * the two `setns` is synchronous: nothing else can run on this thread meanwhile, and other threads never leave the host.
 */

const libc = koffi.load('libc.so.6');
const setns = libc.func('int setns(int fd, int kind)');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const int *value, uint size)');
const bind = libc.func('int bind(int fd, const uint8_t *address, uint size)');
const listen = libc.func('int listen(int fd, int backlog)');
const sendCall = libc.func('long send(int fd, const uint8_t *bytes, ulong size, int flags)');
const recvCall = libc.func('long recv(int fd, _Out_ uint8_t *bytes, ulong size, int flags)');
const prctl = libc.func('int prctl(int option, ulong argument, ulong, ulong, ulong)');
const setrlimit = libc.func('int setrlimit(int resource, const uint64_t *limits)');
const getrlimit = libc.func('int getrlimit(int resource, _Out_ uint64_t *limits)');

const newNet = 0x4000_0000;
const inet = 2;
const netlink = 16;
const [stream, datagram, raw] = [1, 2, 3];
const nonblockCloexec = 0o4000 | 0o2000000;
const [solSocket, reuseAddress, sendBufferForce, receiveBufferForce] = [1, 2, 32, 33];
const [solIp, ipTransparent] = [0, 19];
const netfilter = 12;
const [coreSize, openFiles] = [4, 7];
const setDumpable = 4;
const dontWait = 0x40;

/** A system call that failed. `errno` is the kernel's number. */
export class SystemCallError extends Error {
  readonly errno: number;

  constructor(call: string, errno: number, hint = '') {
    super(`${call} failed: ${errnoName(errno)}${hint}`);
    this.name = 'SystemCallError';
    this.errno = errno;
  }
}

export const errno = Object.freeze({ ENOENT: koffi.os.errno['ENOENT'] ?? 2, EAGAIN: koffi.os.errno['EAGAIN'] ?? 11, EEXIST: koffi.os.errno['EEXIST'] ?? 17, ENOBUFS: koffi.os.errno['ENOBUFS'] ?? 105 });

/**
 * A TCP socket that listens in the namespace for connections to every address there is, when a rule of the packet filter leads them to
 * `port`. What it accepts has the guest's destination as its local address.
 *
 * @returns A descriptor, for `server.listen({ fd })`.
 * @throws Error with what to do, when the kernel has no transparent proxying.
 */
export function listenTransparent(netns: string, port: number, backlog = 4096): number {
  return inNamespace(netns, () => {
    const fd = check('socket', socket(inet, stream | nonblockCloexec, 0));
    return closedOnFailure(fd, () => {
      check('setsockopt(IP_TRANSPARENT)', setsockopt(fd, solIp, ipTransparent, [1], 4), ': the egress proxy needs a kernel with transparent proxying (CONFIG_NETFILTER_XT_TARGET_TPROXY or NFT_TPROXY) and the capability CAP_NET_ADMIN');
      setsockopt(fd, solSocket, reuseAddress, [1], 4);
      check(`bind(port ${port})`, bind(fd, anyAddress(port), 16), ': is another egress proxy running for this gateway?');
      check('listen', listen(fd, backlog));
      return fd;
    });
  });
}

/** A UDP socket bound to `port` on every address of the namespace. @returns A descriptor, for `socket.bind({ fd })`. */
export function bindDatagram(netns: string, port: number): number {
  return inNamespace(netns, () => {
    const fd = check('socket', socket(inet, datagram | nonblockCloexec, 0));
    return closedOnFailure(fd, () => {
      setsockopt(fd, solSocket, receiveBufferForce, [4 << 20], 4);
      check(`bind(port ${port})`, bind(fd, anyAddress(port), 16), ': is another egress proxy running for this gateway?');
      return fd;
    });
  });
}

/** A netlink socket that speaks to the namespace's nftables. Its buffers hold changes of tens of thousands of elements. */
export function openNetfilter(netns: string): number {
  return inNamespace(netns, () => {
    const fd = check('socket(netfilter)', socket(netlink, raw | nonblockCloexec, netfilter));
    setsockopt(fd, solSocket, sendBufferForce, [16 << 20], 4);
    setsockopt(fd, solSocket, receiveBufferForce, [4 << 20], 4);
    return fd;
  });
}

/** Sends one datagram whole. @throws SystemCallError */
export function send(fd: number, bytes: Uint8Array): void {
  if (sendCall(fd, bytes, bytes.length, 0) < 0) throw new SystemCallError('send', koffi.errno());
}

/** What has already arrived, without waiting: the number of bytes in `into`; null when nothing has. @throws SystemCallError */
export function receive(fd: number, into: Uint8Array): number | null {
  const size = Number(recvCall(fd, into, into.length, dontWait));
  if (size >= 0) return size;
  const code = koffi.errno();
  if (code === errno.EAGAIN) return null;
  throw new SystemCallError('recv', code);
}

/** Lets the process have this many descriptors, or as many as the system allows. @returns How many it has. */
export function raiseOpenFiles(wanted: number): number {
  const now = [0n, 0n] as unknown as bigint[];
  if (getrlimit(openFiles, now) !== 0) return 1024;
  const [soft, hard] = now.map(Number) as [number, number];
  if (setrlimit(openFiles, [Math.max(soft, wanted), Math.max(hard, wanted)]) === 0) return Math.max(soft, wanted);
  const most = Math.min(hard, Math.max(soft, wanted));
  return setrlimit(openFiles, [most, hard]) === 0 ? most : soft;
}

/** The memory of this process is on no disk, also when it crashes, and open to nobody but root. */
export function forbidDumps(): void {
  check('setrlimit(RLIMIT_CORE)', setrlimit(coreSize, [0, 0]));
  check('prctl(PR_SET_DUMPABLE)', prctl(setDumpable, 0, 0, 0, 0));
}

function inNamespace<T>(netns: string, work: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  try {
    const there = openSync(`/run/netns/${netns}`, 'r');
    try {
      check(`setns(${netns})`, setns(there, newNet), ': the egress proxy needs to run as root');
      try {
        return work();
      } finally {
        // Staying in a namespace without an uplink would turn every dial into a refusal that nobody understands.
        if (setns(home, newNet) !== 0) process.abort();
      }
    } finally {
      closeSync(there);
    }
  } finally {
    closeSync(home);
  }
}

function closedOnFailure(fd: number, work: () => number): number {
  try {
    return work();
  } catch (reason) {
    closeSync(fd);
    throw reason;
  }
}

function check(call: string, result: number, hint = ''): number {
  if (result < 0) throw new SystemCallError(call, koffi.errno(), hint);
  return result;
}

/** `struct sockaddr_in` of 0.0.0.0. */
function anyAddress(port: number): Buffer {
  const address = Buffer.alloc(16);
  address.writeUInt16LE(inet, 0);
  address.writeUInt16BE(port, 2);
  return address;
}

function errnoName(code: number): string {
  return Object.entries(koffi.os.errno).find(([, value]) => value === code)?.[0] ?? `error ${code}`;
}
