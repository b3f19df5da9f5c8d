import { randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PaddockError } from '../../core/errors.ts';
import type { ImageConfig, LayerId, LayerRef } from '../../core/templates/build-host.ts';
import type { HostLog } from '../log.ts';
import { assertDiskRoom } from '../room.ts';
import { ToolError, runTool } from '../tool.ts';
import { flush, readJson, removeTree, unfinished, writeDurably } from './durable.ts';
import { fitted } from './fitting.ts';
import type { LayerFacts } from './layer-tree.ts';

const idShape = /^[0-9a-f]{64}$/;
const digestShape = /^sha256:([0-9a-f]{64})$/;
const factsName = 'layer.json';
const withinMs = 30 * 60_000;

/** What an image turned out to be when it was unpacked here. */
export interface KnownImage {
  readonly layer: LayerRef;
  readonly config: ImageConfig;
}

/**
 * The layers of this host, `<dir>/<id>/tree` with its facts beside it, and `<dir>/images/<digest>.json` for which of them were images. A
 * layer has its name only when everything in it is on the disk. Nothing ever writes to one again.
 */
export class Layers {
  readonly #dir: string;
  readonly #log: HostLog;
  /** Bytes of copies under way. */
  #promised = 0;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(dir: string, log: HostLog) {
    this.#dir = dir;
    this.#log = log;
    mkdirSync(join(dir, 'images'), { recursive: true, mode: 0o700 });
  }

  /** Removes what was not finished when the server ended. */
  async recover(): Promise<void> {
    for (const dir of [this.#dir, join(this.#dir, 'images')]) {
      for (const name of await readdir(dir)) if (name.endsWith(unfinished)) await removeTree(join(dir, name));
    }
  }

  tree(id: LayerId): string {
    return join(this.#dir, id, 'tree');
  }

  async find(id: LayerId): Promise<LayerRef | null> {
    if (!idShape.test(id)) return null;
    const facts = await readJson<LayerRef>(join(this.#dir, id, factsName));
    return facts === null ? null : { id, bytes: facts.bytes };
  }

  /** The same, for one that must be there. Throws `not_found`. */
  async get(id: LayerId): Promise<LayerRef> {
    const layer = await this.find(id);
    if (layer === null) throw new PaddockError('not_found', `layer ${id.slice(0, 64)} is not on this machine; build the template again`, { reason: 'layer_gone' });
    return layer;
  }

  /** Runs what looks at layers and relies on them, while none is removed. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  /**
   * Makes a layer of what a step wrote, and leaves `upper` to be destroyed.
   *
   * @param since when the step began, milliseconds since the epoch
   */
  async keepStep(upper: string, since: number, signal: AbortSignal): Promise<LayerRef> {
    const facts = await fitted({ root: upper, kind: 'step', since }, signal);
    const known = await this.find(facts.id);
    if (known !== null) return known;
    await assertDiskRoom(this.#dir, facts.bytes + this.#promised, 'What the step wrote');
    this.#promised += facts.bytes;
    using _promise = { [Symbol.dispose]: () => void (this.#promised -= facts.bytes) };
    await using work = await this.#begin();
    // Ends with this process: the next start removes what it wrote.
    const copy = ['--pdeathsig', 'KILL', 'cp', '--recursive', '--no-dereference', '--preserve=mode,ownership,timestamps,links,xattr', '--sparse=auto', '--one-file-system', '--no-target-directory', '--'];
    await runTool('setpriv', [...copy, upper, work.tree], { timeoutMs: withinMs, signal }).catch((reason: unknown) => {
      throw reason instanceof ToolError && /No space left/.test(reason.stderr) ? new PaddockError('no_space', 'the disk of the server is full: what the step wrote could not be kept', {}, { cause: reason }) : reason;
    });
    return await this.#finish(work, facts, signal);
  }

  /** Makes a layer of a tree that `fill` puts into an empty directory. */
  async keepImage(fill: (tree: string) => Promise<void>, signal: AbortSignal): Promise<LayerRef> {
    await assertDiskRoom(this.#dir, 0, 'The image');
    const since = Date.now();
    await using work = await this.#begin();
    await mkdir(work.tree, { mode: 0o755 });
    await fill(work.tree);
    return await this.#finish(work, await fitted({ root: work.tree, kind: 'image', since }, signal), signal);
  }

  async #begin(): Promise<{ readonly dir: string; readonly tree: string } & AsyncDisposable> {
    const dir = join(this.#dir, `${randomUUID()}${unfinished}`);
    await mkdir(dir, { mode: 0o700 });
    return {
      dir,
      tree: join(dir, 'tree'),
      [Symbol.asyncDispose]: () => removeTree(dir).catch((reason: unknown) => this.#log.error({ err: reason, dir }, 'an unfinished layer could not be removed; the next start does')),
    };
  }

  async #finish({ dir }: { readonly dir: string }, { id, bytes }: LayerFacts, signal: AbortSignal): Promise<LayerRef> {
    const layer: LayerRef = { id, bytes };
    await writeFile(join(dir, factsName), JSON.stringify(layer), { mode: 0o600 });
    await runTool('sync', ['-f', dir], { timeoutMs: withinMs, signal });
    return this.inTurn(async () => {
      const known = await this.find(id);
      if (known !== null) return known;
      signal.throwIfAborted();
      await rename(dir, join(this.#dir, id));
      await flush(this.#dir);
      return layer;
    });
  }

  async findImage(digest: string): Promise<KnownImage | null> {
    const known = await readJson<{ layer: LayerId; config: ImageConfig }>(this.#imageFile(digest));
    const layer = known === null ? null : await this.find(known.layer);
    return known === null || layer === null ? null : { layer, config: known.config };
  }

  async recordImage(digest: string, { layer, config }: KnownImage): Promise<void> {
    await writeDurably(this.#imageFile(digest), JSON.stringify({ layer: layer.id, config }));
  }

  /** Removes all but those that `kept` names when it is this call's turn. Resolves to the bytes freed. */
  async removeAllBut(kept: () => Promise<ReadonlySet<LayerId>>): Promise<number> {
    const doomed = await this.inTurn(async () => {
      const needed = await kept();
      const found: { dir: string; bytes: number }[] = [];
      for (const name of await readdir(this.#dir)) {
        if (!idShape.test(name) || needed.has(name)) continue;
        const { bytes } = (await this.find(name)) ?? { bytes: 0 };
        // First its name, so that half of one is never taken for a whole.
        const dir = join(this.#dir, `${randomUUID()}${unfinished}`);
        await rename(join(this.#dir, name), dir);
        found.push({ dir, bytes });
      }
      await flush(this.#dir);
      return found;
    });
    for (const { dir } of doomed) await removeTree(dir);
    await this.#forgetImages();
    return doomed.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  async #forgetImages(): Promise<void> {
    for (const name of await readdir(join(this.#dir, 'images'))) {
      if (name.endsWith('.json') && (await this.findImage(`sha256:${name.slice(0, -5)}`)) === null) await rm(join(this.#dir, 'images', name), { force: true });
    }
  }

  #imageFile(digest: string): string {
    const hex = digestShape.exec(digest)?.[1];
    if (hex === undefined) throw new Error(`"${digest.slice(0, 100)}" is no digest of an image`);
    return join(this.#dir, 'images', `${hex}.json`);
  }
}
