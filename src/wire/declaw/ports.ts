import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { PaddockError } from '../../core/errors.ts';
import type { Ports, Visitor } from '../../core/ports.ts';
import type { Access } from '../../core/access.ts';
import type { Entrance, PortTarget } from '../data-plane.ts';
import { assertMayWrite } from '../scopes.ts';
import { authenticate } from './authenticate.ts';
import { answerTo } from './errors.ts';
import { parsePublicId, sandboxNotFound } from './ids.ts';

const portPath = /^\/sandboxes\/([^/?#]+)\/ports\/([^/?#]*)(.*)$/s;

/** Carries the `traffic_access_token` of a sandbox: whoever has it reaches the sandbox's ports, and nothing else. */
export const trafficTokenHeader = 'x-traffic-access-token';

/**
 * Takes `/sandboxes/{id}/ports/{port}[/{path…}][?query]` apart. The rest is the program's and is passed on as it is: nothing in it is
 * decoded, normalised or encoded again.
 */
export function parsePortPath(url: string): PortTarget | null {
  const match = portPath.exec(url);
  if (match === null) return null;
  const rest = match[3]!;
  return { sandbox: match[1]!, port: match[2]!, path: rest.startsWith('/') ? rest : `/${rest}`, prefix: `/sandboxes/${match[1]!}/ports/${match[2]!}` };
}

/**
 * Takes `<port>-<id>.<domain>` apart: letters of either case, a final dot and a port behind it are fine, and the id may come with or without
 * `sbx-`. Null for other hosts, which are the server's own.
 *
 * @param host the `Host` header.
 */
export function parsePortHost(host: string, domain: string): { readonly sandbox: string; readonly port: string } | null {
  const name = host.toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '');
  if (!name.endsWith(`.${domain}`)) return null;
  const match = /^(\d+)-([a-z0-9-]+)$/.exec(name.slice(0, -domain.length - 1));
  if (match === null) return null;
  const id = match[2]!;
  return { port: match[1]!, sandbox: id.includes('-') ? id : `sbx-${id}` };
}

/** @throws PaddockError `invalid_argument` for anything but 1 to 65535 in plain digits. */
export function parsePort(text: string): number {
  const port = /^[1-9]\d{0,4}$/.test(text) ? Number(text) : Number.NaN;
  if (!(port <= 65535)) throw new PaddockError('invalid_argument', `port must be a whole number from 1 to 65535, but is "${text.slice(0, 40)}".`, { field: 'port' });
  return port;
}

interface PortDependencies {
  readonly access: Access;
  readonly ports: Ports;
}

/** The port proxy of this wire (contract, section 2.9) by path: with the API key, or the traffic token of the sandbox. */
export class PortEntrance implements Entrance {
  readonly #access: Access;
  readonly #ports: Ports;

  constructor(deps: PortDependencies) {
    this.#access = deps.access;
    this.#ports = deps.ports;
  }

  claims(request: IncomingMessage): PortTarget | null {
    return request.url?.startsWith('/sandboxes/') ? parsePortPath(request.url) : null;
  }

  async open(target: PortTarget, headers: IncomingHttpHeaders, signal: AbortSignal): ReturnType<Entrance['open']> {
    const token = headers[trafficTokenHeader];
    if (typeof token === 'string') {
      try {
        return await this.#enter({ trafficToken: token }, target, signal);
      } catch (error) {
        // A key may be there as well.
        if (PaddockError.from(error).code !== 'unauthenticated') throw error;
      }
    }
    const principal = await authenticate(this.#access, headers);
    assertMayWrite(principal); // what a program makes of a GET is not known
    const opened = await this.#enter(principal, target, signal);
    if ('tunnel' in opened) opened.tunnel.once('close', this.#access.follow(principal, () => opened.tunnel.destroy()));
    return opened;
  }

  async #enter(visitor: Visitor, target: PortTarget, signal: AbortSignal): ReturnType<Entrance['open']> {
    const port = parsePort(target.port);
    try {
      return await this.#ports.open(visitor, parsePublicId(target.sandbox), port, signal);
    } catch (error) {
      // Ports have nothing else that could be missing.
      throw PaddockError.from(error).code === 'not_found' ? sandboxNotFound(target.sandbox) : error;
    }
  }

  /** Never a key or the token; an `Authorization` that is no key, sent beside `X-API-Key` or the token, is the program's. */
  async privateHeaders(headers: IncomingHttpHeaders): Promise<ReadonlySet<string>> {
    const elsewhere = headers['x-api-key'] !== undefined || headers[trafficTokenHeader] !== undefined;
    const { authorization } = headers;
    const isOwn = elsewhere && authorization !== undefined && !/^bearer +dcl_/i.test(authorization) && !(await this.#isKey(authorization));
    return new Set(['x-api-key', trafficTokenHeader, ...(isOwn ? [] : ['authorization'])]);
  }

  async #isKey(authorization: string): Promise<boolean> {
    try {
      await authenticate(this.#access, { authorization });
      return true;
    } catch {
      return false;
    }
  }

  failure(error: PaddockError, requestId: string): ReturnType<Entrance['failure']> {
    return answerTo(error, requestId);
  }
}

/** The same by host, `<port>-<id>.<domain>`, so that programs are at the root of an origin of their own. */
export class HostEntrance extends PortEntrance {
  readonly #domain: string;

  constructor(deps: PortDependencies & { readonly domain: string }) {
    super(deps);
    this.#domain = deps.domain;
  }

  override claims(request: IncomingMessage): PortTarget | null {
    const url = request.url ?? '/';
    // A request for a proxy names the host in its first line, and that one counts (RFC 9112, section 3.2.2).
    const absolute = /^https?:\/\/([^/?#]*)(.*)$/is.exec(url);
    const found = parsePortHost(absolute?.[1] ?? request.headers.host ?? '', this.#domain);
    if (found === null) return null;
    const path = absolute?.[2] ?? url;
    return { ...found, path: path.startsWith('/') || path === '*' ? path : `/${path}`, prefix: '' };
  }
}
