import { createServer as createPlainServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { Certificates } from '../../src/gateway/certificates.ts';
import { type Blob, type BuiltImage, ociManifest } from './images.ts';

/** A request that came, with what matters of it. */
export interface Asked {
  readonly path: string;
  readonly host: string;
  readonly authorization: string | null;
  readonly range: string | null;
}

/** Answers instead of the registry; returns false to let it answer. `count` is how often this path was asked before. */
export type Trick = (request: IncomingMessage, response: ServerResponse, count: number) => boolean | void;

/** A registry that answers as the distribution specification says, until a test plays a trick. */
export class TestRegistry implements AsyncDisposable {
  readonly asked: Asked[] = [];
  /** By the end of the path. */
  readonly tricks = new Map<string, Trick>();
  /** Who may read; null: everybody. */
  guard: ((request: IncomingMessage) => boolean) | null = null;
  /** For who may not. */
  challenge = '';
  readonly #blobs = new Map<string, Buffer>();
  readonly #manifests = new Map<string, { readonly bytes: Buffer; readonly type: string }>();
  readonly #server: Server;

  private constructor(certificates: Certificates | null) {
    const listener: RequestListener = (request, response) => this.#answer(request, response);
    this.#server = certificates === null ? createPlainServer(listener) : createSecureServer({ cert: certificates.certificate, key: certificates.key }, listener);
  }

  static async open(certificates: Certificates | null = null, listening: object = { port: 0, host: '127.0.0.1' }): Promise<TestRegistry> {
    const registry = new TestRegistry(certificates);
    registry.#server.listen(listening);
    await once(registry.#server, 'listening');
    return registry;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  put(image: BuiltImage, tag: string): void {
    for (const { digest, bytes } of image.blobs) this.#blobs.set(digest, bytes);
    this.putManifest(image.manifest, tag);
  }

  putManifest({ digest, bytes }: Blob, tag: string | null, type = ociManifest): void {
    for (const name of [digest, ...(tag === null ? [] : [tag])]) this.#manifests.set(name, { bytes, type });
  }

  /** How often something was asked for, by the end of its path. */
  count(end: string): number {
    return this.asked.filter(({ path }) => path.split('?', 1)[0]!.endsWith(end)).length;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url ?? '';
    const { host = '', authorization = null, range = null } = request.headers;
    const plain = path.split('?', 1)[0]!;
    const before = this.count(plain);
    this.asked.push({ path, host, authorization, range });
    response.on('error', () => {});
    for (const [end, trick] of this.tricks) if (plain.endsWith(end) && trick(request, response, before) !== false) return;
    if (this.guard !== null && !this.guard(request)) {
      response.writeHead(401, { 'www-authenticate': this.challenge }).end('{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}');
      return;
    }
    const [, kind = '', name = ''] = /\/(manifests|blobs)\/([^/]+)$/.exec(plain) ?? [];
    const manifest = kind === 'manifests' ? this.#manifests.get(name) : undefined;
    const blob = kind === 'blobs' ? this.#blobs.get(name) : undefined;
    if (manifest !== undefined) response.writeHead(200, { 'content-type': manifest.type, 'content-length': manifest.bytes.length }).end(manifest.bytes);
    else if (blob !== undefined) sendBlob(response, blob, range);
    else response.writeHead(404, { 'content-type': 'application/json' }).end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}');
  }
}

export function sendBlob(response: ServerResponse, blob: Buffer, range: string | null | undefined): void {
  const from = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
  if (from === 0) response.writeHead(200, { 'content-length': blob.length }).end(blob);
  else response.writeHead(206, { 'content-length': blob.length - from, 'content-range': `bytes ${from}-${blob.length - 1}/${blob.length}` }).end(blob.subarray(from));
}
