import { createHash, type Hash } from 'node:crypto';
import { type BigIntStats, closeSync, constants, fstatSync, lstatSync, lutimesSync, openSync, readSync, readdirSync, readlinkSync, rmdirSync, unlinkSync } from 'node:fs';
import { getXattr, listXattrs, removeXattr } from './xattrs.ts';

/** An image's whole tree, or what a step wrote: the upper directory of an overlay, with its marks for what was deleted. */
export type LayerKind = 'image' | 'step';

export interface LayerFacts {
  /** SHA-256, hex. */
  readonly id: string;
  /** What the files take on the disk. */
  readonly bytes: number;
  readonly entries: number;
}

/** Longer paths could not be copied or removed by name on the host. */
export const longestPath = 3_000;
/** Changes with what the hash is over. */
const format = 'paddock layer 1';
const opaque = 'trusted.overlay.opaque';

/** A tree that no layer can hold. The message is for the build's owner. */
export class UnfitTree extends Error {}

/**
 * gVisor mounts a RAM file system over an empty /tmp, and starts no guest whose /tmp is a link. So a step can write there, and delete what it or
 * another step has written, but the directory itself and this one in it stay.
 */
const tmp = 'tmp';
export const keptOpen = 'tmp/.X11-unix';

/**
 * What the agent and the runtime put into each guest by themselves. It is of that guest only, and the next one gets its own.
 * What is below one of these is left out with it.
 */
const ownPaths = new Set(['.paddock', 'proc', 'sys', 'dev', 'run/paddock', 'etc/hostname', 'etc/hosts', 'etc/machine-id', 'etc/resolv.conf', 'var/lib/dbus/machine-id', keptOpen]);
/** The agent takes the place of the real one in every guest. */
const sudoPath = 'usr/bin/sudo';
const agentPath = '/.paddock/agent';

const pieceBytes = 1024 * 1024;
/** The kernel's clock for files stands still between two ticks: a file may seem older than it is. */
const tickMs = 20;

/**
 * Makes a tree fit to be a layer, in place, and says which one it is. Removed are devices, sockets, attributes that are not the files' own
 * (what an overlay notes for itself, access lists), and of a step what the guest's agent and runtime wrote.
 *
 * Nobody else may write to the tree meanwhile. Links are never followed, so it does not matter what they are called or where they lead.
 *
 * @param since Milliseconds since the epoch. Times of change from then on say only when the tree was made, so they are not part of its identity.
 */
export function fitLayer(root: string, kind: LayerKind, since: number): LayerFacts {
  return new Fitting(Buffer.from(root), kind, since).run();
}

class Fitting {
  readonly #root: Buffer;
  readonly #kind: LayerKind;
  readonly #since: bigint;
  readonly #hash: Hash = createHash('sha256').update(format);
  /** First path of each file that has several names. */
  readonly #linked = new Map<bigint, Buffer>();
  readonly #piece = Buffer.allocUnsafe(pieceBytes);
  #bytes = 0;
  #entries = 0;

  constructor(root: Buffer, kind: LayerKind, since: number) {
    this.#root = root;
    this.#kind = kind;
    this.#since = BigInt(Math.floor(since - tickMs)) * 1_000_000n;
  }

  run(): LayerFacts {
    const stat = lstatSync(this.#root, { bigint: true });
    if (!stat.isDirectory()) throw new UnfitTree('the root of the tree is no directory');
    this.#directory(Buffer.alloc(0), stat);
    return { id: this.#hash.digest('hex'), bytes: this.#bytes, entries: this.#entries };
  }

  #at(path: Buffer): Buffer {
    return path.length === 0 ? this.#root : Buffer.concat([this.#root, slash, path]);
  }

  #directory(path: Buffer, stat: BigIntStats): void {
    const at = this.#at(path);
    this.#note('directory', path, stat);
    this.#count(stat);
    let changed = false;
    for (const name of readdirSync(at, { encoding: 'buffer' }).sort(Buffer.compare)) {
      const below = path.length === 0 ? name : Buffer.concat([path, slash, name]);
      if (below.length > longestPath) throw new UnfitTree(`the path ${JSON.stringify(`${below.toString('utf8', 0, 100)}…`)} has ${below.length} bytes, and ${longestPath} are the most that a layer takes`);
      changed = this.#entry(below) || changed;
    }
    if (changed) lutimesSync(at, Number(stat.atimeNs) / 1e9, Number(stat.mtimeNs) / 1e9);
  }

  /** True when it was left out, and removed. */
  #entry(path: Buffer): boolean {
    const at = this.#at(path);
    const stat = lstatSync(at, { bigint: true });
    if (this.#isOwn(path, at, stat) || !this.#isKept(stat)) {
      remove(at, stat);
      return true;
    }
    if (stat.isDirectory()) {
      this.#directory(path, stat);
      return false;
    }
    if (stat.isCharacterDevice()) {
      // An overlay makes one inode of many of these; nothing about it means anything but its kind.
      this.#entries++;
      this.#field('deleted');
      this.#field(path);
      return false;
    }
    const first = stat.nlink > 1n ? this.#linked.get(stat.ino) : undefined;
    if (first !== undefined) {
      this.#entries++;
      this.#field('same as');
      this.#field(path);
      this.#field(first);
      return false;
    }
    if (stat.nlink > 1n) this.#linked.set(stat.ino, path);
    this.#count(stat);
    this.#note(stat.isFile() ? 'file' : stat.isSymbolicLink() ? 'link' : 'fifo', path, stat);
    if (stat.isSymbolicLink()) this.#field(readlinkSync(at, { encoding: 'buffer' }));
    else if (stat.isFile()) this.#field(this.#content(at, stat));
    return false;
  }

  #isOwn(path: Buffer, at: Buffer, stat: BigIntStats): boolean {
    if (this.#kind === 'image') return false;
    const text = path.toString('latin1');
    return ownPaths.has(text) || (text === tmp && !stat.isDirectory()) || (text === sudoPath && stat.isSymbolicLink() && readlinkSync(at, 'latin1') === agentPath);
  }

  #isKept(stat: BigIntStats): boolean {
    if (stat.isFile() || stat.isDirectory() || stat.isSymbolicLink() || stat.isFIFO()) return true;
    return this.#kind === 'step' && stat.isCharacterDevice() && stat.rdev === 0n; // an overlay's mark for what was deleted
  }

  #note(type: string, path: Buffer, stat: BigIntStats): void {
    this.#field(type);
    this.#field(path);
    const time = stat.mtimeNs < this.#since ? String(stat.mtimeNs) : '';
    this.#field(`${(stat.mode & 0o7777n).toString(8)} ${stat.uid} ${stat.gid} ${time}`);
    const at = this.#at(path);
    const kept: string[] = [];
    for (const name of listXattrs(at)) {
      if (this.#isKeptAttribute(name, at, path)) kept.push(name);
      else removeXattr(at, name);
    }
    for (const name of kept.sort()) {
      this.#field(name);
      this.#field(getXattr(at, name));
    }
    this.#field('');
  }

  #isKeptAttribute(name: string, at: Buffer, path: Buffer): boolean {
    if (name === 'security.capability') return true;
    if (name.startsWith('user.')) return !name.startsWith('user.overlay.');
    return this.#kind === 'step' && name === opaque && path.toString('latin1') !== tmp && getXattr(at, name).toString() === 'y';
  }

  #content(at: Buffer, expected: BigIntStats): Buffer {
    const fd = openSync(at, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd, { bigint: true });
      if (!stat.isFile() || stat.ino !== expected.ino) throw new Error(`${at.toString()} changed while it was read`);
      const hash = createHash('sha256');
      for (let size = readSync(fd, this.#piece); size > 0; size = readSync(fd, this.#piece)) hash.update(this.#piece.subarray(0, size));
      return hash.digest();
    } finally {
      closeSync(fd);
    }
  }

  #count(stat: BigIntStats): void {
    this.#entries++;
    this.#bytes += Number(stat.blocks) * 512;
  }

  /** With its length before it, so that no two trees read the same. */
  #field(value: string | Buffer): void {
    const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    this.#hash.update(length).update(bytes);
  }
}

const slash = Buffer.from('/');

function remove(at: Buffer, stat: BigIntStats): void {
  if (!stat.isDirectory()) return unlinkSync(at);
  for (const name of readdirSync(at, { encoding: 'buffer' })) {
    const below = Buffer.concat([at, slash, name]);
    remove(below, lstatSync(below, { bigint: true }));
  }
  rmdirSync(at);
}
