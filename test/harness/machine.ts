import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { sleep } from './wait.ts';

const run = promisify(execFile);
const cgroupRoot = '/sys/fs/cgroup';

/** The id that every name of a server's things on this machine carries. `dataDir` must be a real path. */
export function instanceId(dataDir: string): string {
  return createHash('sha256').update(dataDir).digest('hex').slice(0, 8);
}

/**
 * Everything on this machine that belongs to the server of one data directory, as sentences: namespaces, links, packet filter
 * tables, cgroups, mounts, loop devices, processes. Found by what the kernel lists, not by what the server says.
 */
export async function tracesOf(dataDir: string): Promise<string[]> {
  const id = instanceId(dataDir);
  const tables = JSON.parse((await run('nft', ['-j', 'list', 'tables'])).stdout) as { nftables: { table?: { name: string } }[] };
  return [
    ...namespacesOf(dataDir).map((name) => `network namespace ${name}`),
    ...names('/sys/class/net').filter((name) => name.startsWith(`pd${id}`)).map((name) => `link ${name}`),
    ...tables.nftables.filter(({ table }) => table?.name === `paddock_${id}`).map(({ table }) => `nft table ${table?.name}`),
    ...cgroupsOf(dataDir).map((path) => `cgroup ${path}`),
    ...mountsBelow(dataDir).map((point) => `mount ${point}`),
    ...loopsBelow(dataDir).map((loop) => `loop device ${loop}`),
    ...processesOf(dataDir).map(({ pid, command }) => `process ${pid}: ${command}`),
  ];
}

export function namespacesOf(dataDir: string): string[] {
  return names('/run/netns').filter((name) => name.startsWith(`paddock-${instanceId(dataDir)}-`));
}

/** Container names of the guests that have a cgroup. */
export function guestGroupsOf(dataDir: string): string[] {
  return [...new Set(cgroupsOf(dataDir).flatMap((path) => directories(path)))];
}

/** Host processes that run a guest: the runtime's, by the cgroup they are in. */
export function guestProcessesOf(dataDir: string, container: string): number[] {
  return [...new Set(cgroupsOf(dataDir).flatMap((path) => pidsBelow(join(path, container))))];
}

export function mountsBelow(directory: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((point) => point.startsWith(`${directory}/`));
}

export function loopsBelow(directory: string): string[] {
  return names('/sys/block').filter((name) => name.startsWith('loop') && readIfPresent(`/sys/block/${name}/loop/backing_file`).startsWith(`${directory}/`));
}

/** Processes that name the data directory in their arguments, and all in the guests' cgroups. Zombies are dead. */
export function processesOf(dataDir: string): { pid: number; command: string }[] {
  const inGroups = new Set(cgroupsOf(dataDir).flatMap(pidsBelow));
  return names('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .map((pid) => ({ pid, command: readIfPresent(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim() }))
    .filter(({ pid, command }) => (command.includes(dataDir) || inGroups.has(pid)) && !isZombie(pid));
}

export function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !isZombie(pid);
}

/** Files below a directory that hold a text. The sandboxes' disks are left out: they are theirs, and large. */
export function filesWith(directory: string, text: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.img') && !entry.parentPath.endsWith('/disk'))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => readFileSync(file).includes(text));
}

/** Resident memory of a process in bytes. */
export function residentBytes(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  if (kib === undefined) throw new Error(`process ${pid} has no resident memory: it has ended`);
  return Number(kib) * 1024;
}

/**
 * Takes everything of a data directory off this machine by force, whatever state it is in: for servers that a failed or aborted
 * test left behind. Never part of what a test asserts.
 */
export async function wipe(dataDir: string): Promise<void> {
  for (let attempt = 0; attempt < 20 && processesOf(dataDir).length > 0; attempt++) {
    for (const path of cgroupsOf(dataDir)) for (const name of directories(path)) thaw(join(path, name));
    for (const { pid } of processesOf(dataDir)) killIfAlive(pid);
    await sleep(100);
  }
  const id = instanceId(dataDir);
  for (const point of mountsBelow(dataDir).reverse()) await run('umount', ['--lazy', point]);
  for (const name of namespacesOf(dataDir)) await run('ip', ['netns', 'delete', name]);
  if (existsSync(`/sys/class/net/pd${id}`)) await run('ip', ['link', 'delete', `pd${id}`]);
  await run('nft', [`table inet paddock_${id}; delete table inet paddock_${id}`]);
  for (const path of cgroupsOf(dataDir)) removeGroup(path);
}

/** `paddock-<id>` in every hierarchy: each v1 controller has its own tree, v2 has one. */
function cgroupsOf(dataDir: string): string[] {
  const name = `paddock-${instanceId(dataDir)}`;
  return [join(cgroupRoot, name), ...directories(cgroupRoot).map((controller) => join(cgroupRoot, controller, name))].filter((path) => existsSync(path));
}

function pidsBelow(group: string): number[] {
  const own = readIfPresent(join(group, 'cgroup.procs')).split('\n').filter(Boolean).map(Number).filter((pid) => pid > 0);
  return [...own, ...directories(group).flatMap((name) => pidsBelow(join(group, name)))];
}

function removeGroup(path: string): void {
  for (const name of directories(path)) removeGroup(join(path, name));
  rmdirSync(path);
}

function thaw(group: string): void {
  for (const [file, value] of [['freezer.state', 'THAWED'], ['cgroup.freeze', '0']] as const) {
    if (existsSync(join(group, file))) writeFileSync(join(group, file), value);
  }
}

function killIfAlive(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code !== 'ESRCH') throw reason;
  }
}

function isZombie(pid: number): boolean {
  return /^\d+ \(.*\) [ZX]/s.test(readIfPresent(`/proc/${pid}/stat`));
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (reason) {
    if (isMissing(reason)) return [];
    throw reason;
  }
}

/** Symbolic links left out: v1 names some controllers twice. */
function directories(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (reason) {
    if (isMissing(reason)) return [];
    throw reason;
  }
}

function readIfPresent(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (reason) {
    if (isMissing(reason)) return '';
    throw reason;
  }
}

/** Processes and groups may end while they are looked at. */
function isMissing(reason: unknown): boolean {
  return ['ENOENT', 'ESRCH', 'ENODEV', 'ENOTDIR'].includes((reason as NodeJS.ErrnoException).code ?? '');
}
