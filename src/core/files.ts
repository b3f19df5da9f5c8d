import type { Readable } from 'node:stream';
import { boundedTo } from './bounded.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { FileContent, FileEntry, GuestFiles } from './host.ts';
import type { SandboxRef } from './ids.ts';
import type { Principal } from './principal.ts';
import type { Sandbox } from './sandbox.ts';
import type { Sandboxes } from './sandboxes.ts';
import type { CoreSettings } from './settings.ts';

/** Linux takes no longer path. */
const longestPath = 4095;
const deepestList = 64;
const mebibyte = 1024 * 1024;

/** Files inside a sandbox. Errors of the guest keep their meaning: `not_found`, `no_space`, `invalid_argument`. */
export class Files {
  readonly #sandboxes: Sandboxes;
  readonly #settings: CoreSettings;
  readonly #events: EventLog;

  constructor(deps: { readonly sandboxes: Sandboxes; readonly settings: CoreSettings; readonly events: EventLog }) {
    this.#sandboxes = deps.sandboxes;
    this.#settings = deps.settings;
    this.#events = deps.events;
  }

  /** @param range as a guest takes it. */
  async read(principal: Principal, ref: SandboxRef, path: string, user: string | undefined, signal: AbortSignal, range?: string): Promise<FileContent> {
    return this.#files(principal, ref, [path], (files) => files.read(path, user, signal, range));
  }

  /** Replaces the file whole or not at all. Throws `too_large` above the limit in bytes, however the size becomes known. */
  async write(
    principal: Principal,
    ref: SandboxRef,
    path: string,
    user: string | undefined,
    body: Readable | Uint8Array,
    signal: AbortSignal,
    limit = this.#settings.maxFileBytes,
  ): Promise<{ readonly path: string; readonly size: number }> {
    return this.#files(principal, ref, [path], async (files, sandbox) => {
      const written = await this.#writeBounded(files, path, user, body, limit, signal);
      this.#record(sandbox, 'file_written', { path: written.path, size: written.size });
      return written;
    });
  }

  /** Depth 1 is the directory itself. */
  async list(
    principal: Principal,
    ref: SandboxRef,
    path: string,
    user: string | undefined,
    depth: number,
    signal: AbortSignal,
  ): Promise<{ readonly entries: readonly FileEntry[]; readonly truncated: boolean }> {
    if (!Number.isInteger(depth) || depth < 1 || depth > deepestList) {
      throw new PaddockError('invalid_argument', `depth must be from 1 to ${deepestList}, not ${depth}`, { field: 'depth' });
    }
    return this.#files(principal, ref, [path], (files) => files.list(path, user, depth, signal));
  }

  async exists(principal: Principal, ref: SandboxRef, path: string, user: string | undefined, signal: AbortSignal): Promise<boolean> {
    return this.#files(principal, ref, [path], async (files) => {
      try {
        await files.info(path, user, signal);
        return true;
      } catch (error) {
        if (error instanceof PaddockError && error.code === 'not_found') return false;
        throw error;
      }
    });
  }

  async info(principal: Principal, ref: SandboxRef, path: string, user: string | undefined, signal: AbortSignal): Promise<FileEntry> {
    return this.#files(principal, ref, [path], (files) => files.info(path, user, signal));
  }

  /** With everything below it; false when there was nothing. */
  async remove(principal: Principal, ref: SandboxRef, path: string, user: string | undefined, signal: AbortSignal): Promise<boolean> {
    return this.#files(principal, ref, [path], async (files, sandbox) => {
      const removed = await files.remove(path, user, signal);
      if (removed) this.#record(sandbox, 'file_removed', { path });
      return removed;
    });
  }

  async rename(principal: Principal, ref: SandboxRef, from: string, to: string, user: string | undefined, signal: AbortSignal): Promise<FileEntry> {
    return this.#files(principal, ref, [from, to], async (files, sandbox) => {
      const entry = await files.rename(from, to, user, signal);
      this.#record(sandbox, 'file_renamed', { from, to });
      return entry;
    });
  }

  /** With its parents; false when it was there. */
  async makeDir(principal: Principal, ref: SandboxRef, path: string, user: string | undefined, signal: AbortSignal): Promise<boolean> {
    return this.#files(principal, ref, [path], async (files, sandbox) => {
      const made = await files.makeDir(path, user, signal);
      if (made) this.#record(sandbox, 'directory_made', { path });
      return made;
    });
  }

  async #files<T>(principal: Principal, ref: SandboxRef, paths: readonly string[], work: (files: GuestFiles, sandbox: Sandbox) => Promise<T>): Promise<T> {
    for (const path of paths) assertPath(path);
    return this.#sandboxes.inside(principal, ref, (guest, sandbox) => work(guest.files, sandbox));
  }

  async #writeBounded(files: GuestFiles, path: string, user: string | undefined, body: Readable | Uint8Array, limit: number, signal: AbortSignal): Promise<{ path: string; size: number }> {
    if (body instanceof Uint8Array) {
      if (body.byteLength > limit) throw tooLarge(limit);
      return files.write(path, user, body, signal);
    }
    const bounded = boundedTo(limit, body, { tooLarge: () => tooLarge(limit) });
    try {
      return await files.write(path, user, bounded, signal);
    } catch (error) {
      // The guest only sees a body that broke off; this says why.
      throw bounded.errored instanceof PaddockError ? bounded.errored : error;
    } finally {
      bounded.destroy();
    }
  }

  #record(sandbox: Sandbox, name: string, detail: Readonly<Record<string, string | number>>): void {
    this.#events.ofSandbox(sandbox, 'filesystem', name, detail);
  }
}

function assertPath(path: string): void {
  if (path === '') throw new PaddockError('invalid_argument', 'path must not be empty', { field: 'path' });
  if (path.includes('\0')) throw new PaddockError('invalid_argument', 'path holds a NUL character', { field: 'path' });
  if (Buffer.byteLength(path) > longestPath) throw new PaddockError('invalid_argument', `path is longer than ${longestPath} bytes`, { field: 'path' });
}

function tooLarge(limit: number): PaddockError {
  return new PaddockError('too_large', `the file is larger than the limit of ${limit >= mebibyte ? `${limit / mebibyte} MiB` : `${limit} bytes`}; write it in parts`);
}
