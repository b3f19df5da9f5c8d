import type { VolumeEntry, VolumePath } from '../../../core/volume.ts';
import type { VolumeUsage } from '../../../core/volume-storage.ts';

/** An object with a part of a file. */
export interface Chunk {
  readonly id: string;
  readonly bytes: number;
  /** Of its bytes, in base64. */
  readonly sha256: string;
}

export interface FileNode {
  readonly type: 'file';
  readonly chunks: readonly Chunk[];
  readonly size: number;
  readonly mode: number;
  readonly modifiedAt: number;
  readonly version: string;
}

export interface DirNode {
  readonly type: 'dir';
  readonly children: ReadonlyMap<string, TreeNode>;
  readonly mode: number;
  readonly modifiedAt: number;
  readonly version: string;
}

export type TreeNode = FileNode | DirNode;

type OpenDir = { -readonly [K in keyof DirNode]: DirNode[K] } & { children: Map<string, TreeNode> };

export function emptyDir(stamp: Stamp): DirNode {
  return { type: 'dir', children: new Map(), mode: 0o755, ...stamp };
}

export interface Stamp {
  readonly modifiedAt: number;
  readonly version: string;
}

/** Throws ENOENT and ENOTDIR, as a file system does. */
export function nodeAt(root: DirNode, path: VolumePath): TreeNode {
  let node: TreeNode = root;
  for (const name of path) {
    if (node.type !== 'dir') throw fault('ENOTDIR');
    const next: TreeNode | undefined = node.children.get(name);
    if (next === undefined) throw fault('ENOENT');
    node = next;
  }
  return node;
}

export function dirAt(root: DirNode, path: VolumePath): DirNode {
  const node = nodeAt(root, path);
  if (node.type !== 'dir') throw fault('ENOTDIR');
  return node;
}

export function entryOf(name: string, node: TreeNode): VolumeEntry {
  return { name, type: node.type, size: node.type === 'file' ? node.size : 0, mode: node.mode, modifiedAt: node.modifiedAt, version: node.version };
}

/** Everything below, by name, directories before what is in them. */
export function* below(dir: DirNode, path: VolumePath = []): Generator<{ readonly path: VolumePath; readonly node: TreeNode }> {
  for (const name of [...dir.children.keys()].sort()) {
    const node = dir.children.get(name)!;
    const at = [...path, name];
    yield { path: at, node };
    if (node.type === 'dir') yield* below(node, at);
  }
}

/**
 * A change of a tree that leaves the tree it began with as it was: directories are copied when they are changed first. So readers go on with what they
 * have, and a change that cannot be kept has not happened.
 */
export class TreeEdit {
  #root: DirNode;
  readonly #own = new WeakSet<DirNode>();
  readonly #stamp: () => Stamp;
  #bytes = 0;
  #entries = 0;
  /** What no file of the new tree needs any more. */
  readonly freed: Chunk[] = [];

  constructor(root: DirNode, stamp: () => Stamp) {
    this.#root = root;
    this.#stamp = stamp;
  }

  get root(): DirNode {
    return this.#root;
  }

  get grown(): VolumeUsage {
    return { bytes: this.#bytes, entries: this.#entries };
  }

  /** Missing parents are made, and `made` hears of each. Throws EISDIR where a directory is. */
  put(path: VolumePath, file: FileNode, made: () => void = () => {}): void {
    const parent = this.#parent(path, made);
    const name = path.at(-1)!;
    const old = parent.children.get(name);
    if (old?.type === 'dir') throw fault('EISDIR');
    if (old === undefined) this.#entries++;
    else this.#free(old);
    parent.children.set(name, file);
    this.#bytes += file.size;
  }

  makeDir(path: VolumePath, made: () => void = () => {}): void {
    this.#open(path, made);
  }

  /** Throws ENOTEMPTY for a directory with something in it, unless `recursive`. */
  remove(path: VolumePath, recursive: boolean): void {
    const node = nodeAt(this.#root, path);
    if (node.type === 'dir' && node.children.size > 0 && !recursive) throw fault('ENOTEMPTY');
    this.#parent(path, null).children.delete(path.at(-1)!);
    this.#entries--;
    if (node.type === 'file') return this.#free(node);
    for (const { node: each } of below(node)) {
      this.#entries--;
      if (each.type === 'file') this.#free(each);
    }
  }

  /** As rename(2) does it, with missing parents of the target made. */
  rename(from: VolumePath, to: VolumePath): void {
    const node = nodeAt(this.#root, from);
    if (from.length === to.length && from.every((name, i) => name === to[i])) return;
    if (from.every((name, i) => name === to[i])) throw fault('EINVAL');
    const target = this.#parent(to, () => {});
    const name = to.at(-1)!;
    const old = target.children.get(name);
    if (old !== undefined) {
      if (node.type === 'file' && old.type === 'dir') throw fault('EISDIR');
      if (node.type === 'dir' && old.type === 'file') throw fault('ENOTDIR');
      if (old.type === 'dir' && old.children.size > 0) throw fault('ENOTEMPTY');
      this.#entries--;
      if (old.type === 'file') this.#free(old);
    }
    target.children.set(name, node);
    this.#parent(from, null).children.delete(from.at(-1)!);
  }

  #free(file: FileNode): void {
    this.#bytes -= file.size;
    this.freed.push(...file.chunks);
  }

  #parent(path: VolumePath, made: (() => void) | null): OpenDir {
    return this.#open(path.slice(0, -1), made);
  }

  /** The directory at a path, to be changed; without `made` it must be there. */
  #open(path: VolumePath, made: (() => void) | null): OpenDir {
    let dir = this.#mine(this.#root);
    this.#root = dir;
    for (const name of path) {
      let next = dir.children.get(name);
      if (next?.type === 'file') throw fault('ENOTDIR');
      if (next === undefined) {
        if (made === null) throw fault('ENOENT');
        next = emptyDir(this.#stamp());
        this.#entries++;
        made();
      }
      const open = this.#mine(next);
      dir.children.set(name, open);
      dir = open;
    }
    return dir;
  }

  #mine(dir: DirNode): OpenDir {
    if (this.#own.has(dir)) return dir as OpenDir;
    const copy: OpenDir = { ...dir, ...this.#stamp(), children: new Map(dir.children) };
    this.#own.add(copy);
    return copy;
  }
}

function fault(code: string): Error {
  return Object.assign(new Error(code), { code });
}
