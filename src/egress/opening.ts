import type { Socket } from 'node:net';
import { readClientHello } from './client-hello.ts';

/** What a client's first bytes are. `whole`: it closed its side, and these bytes are all that it says. `broken`: they cannot be judged, so they must not be passed on. */
export type Opening =
  | { readonly kind: 'tls'; readonly serverName: string | null; readonly protocols: readonly string[] | null }
  | { readonly kind: 'http' }
  | { readonly kind: 'opaque' }
  | { readonly kind: 'whole'; readonly bytes: Buffer }
  | { readonly kind: 'broken'; readonly why: string };

const mostBytes = 16_384;
const longestWaitMs = 5000;
const http2Preface = 'PRI * HTTP/2';

/**
 * Tells protocols apart by a connection's first bytes. Undefined: it takes more bytes to say. HTTP is recognised in every form that some
 * server might take for it; what looks like it is judged as HTTP or not at all.
 */
export function classify(bytes: Buffer): Opening | undefined {
  const [first, second] = bytes;
  if (first === undefined) return undefined;
  if (first === 0x16) {
    if (second === undefined) return undefined;
    if (second === 3) {
      const reading = readClientHello(bytes);
      if (reading.kind === 'more') return undefined;
      return reading.kind === 'hello' ? { kind: 'tls', serverName: reading.serverName, protocols: reading.protocols } : reading;
    }
    return { kind: 'opaque' };
  }
  const text = bytes.toString('latin1').replace(/^[\r\n]+/, '');
  if (text === '') return undefined;
  if (http2Preface.startsWith(text.slice(0, http2Preface.length))) {
    return text.length < http2Preface.length ? undefined : { kind: 'broken', why: 'HTTP/2 without TLS is not passed on by a sandbox with rules about names: its requests cannot be judged. Use TLS or HTTP/1.1.' };
  }
  // A method and a space, and HTTP/ on the first line. Protocols of other kinds differ within a few bytes.
  const method = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}/.exec(text)?.[0] ?? '';
  if (method === '') return { kind: 'opaque' };
  if (method.length === text.length && method.length < 64) return undefined;
  if (!/[ \t]/.test(text[method.length] ?? '')) return { kind: 'opaque' };
  const end = text.indexOf('\n');
  const line = end < 0 ? text : text.slice(0, end);
  if (/http\//i.test(line)) return { kind: 'http' };
  return end < 0 ? undefined : { kind: 'opaque' };
}

/** The host that the first bytes name, for the log only: null when they are none of TLS and HTTP, or name none. */
export function namedHost(bytes: Buffer): string | null {
  const opening = classify(bytes);
  if (opening?.kind === 'tls') return opening.serverName;
  if (opening?.kind !== 'http') return null;
  return /^host:[ \t]*([a-z0-9._-]{1,253})(?::\d{1,5})?[ \t]*\r?$/im.exec(bytes.toString('latin1', 0, 4096))?.[1]?.toLowerCase() ?? null;
}

/**
 * Reads a client's first bytes until they can be told apart, and puts them back, unless they are `whole`. Waits for the first one as long as it takes, for
 * the rest `waitMs`. Resolves to `broken` when the time or 16 KiB are up, and to `opaque` when the server has spoken first, as it does in
 * neither TLS nor HTTP. Rejects never.
 */
export function readOpening(client: Socket, waitMs: number = longestWaitMs, serverSpoke?: Promise<void>): Promise<Opening> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let size = 0;
    let timer: NodeJS.Timeout | null = null;
    let settled = false;
    const settle = (opening: Opening): void => {
      if (settled) return;
      settled = true;
      if (timer !== null) clearTimeout(timer);
      client.off('data', onData).off('end', onEnd).off('close', onEnd);
      client.pause();
      if (size > 0 && !client.destroyed && !client.readableEnded) client.unshift(Buffer.concat(chunks));
      resolve(opening);
    };
    const onData = (chunk: Buffer): void => {
      timer ??= setTimeout(() => settle({ kind: 'broken', why: `The first bytes did not say within ${waitMs / 1000} s what they are.` }), waitMs);
      chunks.push(chunk);
      size += chunk.length;
      const opening = classify(chunks.length === 1 ? chunk : Buffer.concat(chunks));
      if (opening !== undefined) settle(opening);
      else if (size >= mostBytes) settle({ kind: 'broken', why: 'The first 16 KiB do not say what they are.' });
    };
    const onEnd = (): void => settle(cutShort(Buffer.concat(chunks)));
    void serverSpoke?.then(() => settle({ kind: 'opaque' }));
    client.on('data', onData).on('end', onEnd).on('close', onEnd);
    client.resume();
  });
}

/** What ends before it can be told apart is no HTTP request with a host, if it has not said so. */
function cutShort(bytes: Buffer): Opening {
  if (bytes[0] !== 0x16 && !/http/i.test(bytes.toString('latin1'))) return { kind: 'whole', bytes };
  return { kind: 'broken', why: 'The client closed its side within its first bytes.' };
}
