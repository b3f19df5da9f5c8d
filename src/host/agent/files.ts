import type { Readable } from 'node:stream';
import { PaddockError } from '../../core/errors.ts';
import type { FileContent, FileEntry, GuestFiles } from '../../core/host.ts';
import type { AgentConnection, AgentRequest } from './connection.ts';
import { AgentProtocolError, type Json, numberField, stringField } from './frames.ts';

const listingLimit = 64 * 1024 * 1024;
const types: ReadonlySet<string> = new Set(['file', 'dir', 'symlink', 'other']);

/** Files of a guest through its agent. */
export class AgentFiles implements GuestFiles {
  readonly #connection: AgentConnection;

  constructor(connection: AgentConnection) {
    this.#connection = connection;
  }

  async read(path: string, user: string | undefined, signal: AbortSignal, range?: string): Promise<FileContent> {
    const wanted = range === undefined ? {} : { headers: { range } };
    const { status, headers, body } = await this.#connection.request({ method: 'GET', path: `/v1/files?${query({ path, user })}`, ...wanted, signal, kind: 'transfer' });
    const size = Number(headers['content-length']);
    const part = status === 206 ? partOf(String(headers['content-range']), size) : undefined;
    if (!Number.isSafeInteger(size) || size < 0 || part === null) {
      body.on('error', () => {}).destroy(); // undici says that it was broken off, and nobody else listens
      throw new AgentProtocolError(part === null ? 'a part of a file that says wrongly which' : 'a file without its size');
    }
    return { size, body, ...(part === undefined ? {} : { part }) };
  }

  async write(path: string, user: string | undefined, body: Readable | Uint8Array, signal: AbortSignal, mode?: number): Promise<{ path: string; size: number }> {
    // No deadline of its own: the upload takes what its sender takes; the signal ends it.
    const json = await this.#json({ method: 'PUT', path: `/v1/files?${query({ path, user, mode: mode?.toString(8) })}`, body, signal, deadlineMs: 0, kind: 'transfer' });
    return { path: stringField(json, 'path'), size: numberField(json, 'size') };
  }

  async list(path: string, user: string | undefined, depth: number, signal: AbortSignal): Promise<{ entries: readonly FileEntry[]; truncated: boolean }> {
    const json = await this.#json({ method: 'GET', path: `/v1/files/list?${query({ path, user, depth: String(depth) })}`, signal, deadlineMs: 60_000 });
    const { entries } = json;
    if (!Array.isArray(entries)) throw new AgentProtocolError('no list of files');
    return { entries: entries.map((entry) => parseEntry(entry as Json)), truncated: json['truncated'] === true };
  }

  async info(path: string, user: string | undefined, signal: AbortSignal): Promise<FileEntry> {
    return parseEntry(await this.#json({ method: 'GET', path: `/v1/files/info?${query({ path, user })}`, signal }));
  }

  async remove(path: string, user: string | undefined, signal: AbortSignal): Promise<boolean> {
    return (await this.#json({ method: 'DELETE', path: `/v1/files?${query({ path, user })}`, signal, deadlineMs: 120_000 }))['removed'] === true;
  }

  async rename(from: string, to: string, user: string | undefined, signal: AbortSignal): Promise<FileEntry> {
    return parseEntry(await this.#json({ method: 'POST', path: '/v1/files/rename', json: { old_path: from, new_path: to, user }, signal }));
  }

  async makeDir(path: string, user: string | undefined, signal: AbortSignal): Promise<boolean> {
    return (await this.#json({ method: 'POST', path: '/v1/files/mkdir', json: { path, user }, signal }))['created'] === true;
  }

  async unpack(path: string, user: string | undefined, tree: Readable, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#json({ method: 'PUT', path: `/v1/files/archive?${query({ path, user })}`, body: tree, signal, deadlineMs: 0, kind: 'transfer' });
      return true;
    } catch (error) {
      if (isUnknownCall(error)) return false;
      throw tree.errored instanceof PaddockError ? tree.errored : error;
    }
  }

  async pack(path: string, signal: AbortSignal): Promise<Readable | null> {
    try {
      const { body } = await this.#connection.request({ method: 'GET', path: `/v1/files/archive?${query({ path, user: 'root' })}`, signal, kind: 'transfer' });
      return body;
    } catch (error) {
      if (isUnknownCall(error)) return null;
      throw error;
    }
  }

  #json(request: AgentRequest): Promise<Json> {
    return this.#connection.json(request, listingLimit);
  }
}

/** An agent of before archives has no such call. */
function isUnknownCall(error: unknown): boolean {
  return error instanceof PaddockError && error.code === 'not_found' && error.message.startsWith('there is no call');
}

/** Null when it does not fit the size of the body. */
function partOf(contentRange: string, size: number): NonNullable<FileContent['part']> | null {
  const [first = -1, last = -1, total = -1] = (/^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(contentRange) ?? []).slice(1).map(Number);
  return last - first + 1 === size && size > 0 && last < total ? { first, last, total } : null;
}

function query(parameters: Readonly<Record<string, string | undefined>>): string {
  return Object.entries(parameters)
    .filter((pair): pair is [string, string] => pair[1] !== undefined)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&');
}

function parseEntry(json: Json): FileEntry {
  const type = stringField(json, 'type');
  const { target, target_type: targetType } = json;
  return {
    name: stringField(json, 'name'),
    path: stringField(json, 'path'),
    type: (types.has(type) ? type : 'other') as FileEntry['type'],
    size: numberField(json, 'size'),
    mode: numberField(json, 'mode'),
    uid: numberField(json, 'uid'),
    gid: numberField(json, 'gid'),
    modifiedAt: numberField(json, 'mtime_ms'),
    ...(typeof target === 'string' ? { target } : {}),
    ...(typeof targetType === 'string' ? { targetType: targetType as NonNullable<FileEntry['targetType']> } : {}),
  };
}
