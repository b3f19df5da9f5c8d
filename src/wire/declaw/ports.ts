import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { PaddockError } from '../../core/errors.ts';
import type { Ports } from '../../core/ports.ts';
import type { Access } from '../../core/access.ts';
import type { Entrance, PortTarget } from '../data-plane.ts';
import { authenticate } from './authenticate.ts';
import { answerTo } from './errors.ts';
import { parsePublicId, sandboxNotFound } from './ids.ts';

const portPath = /^\/sandboxes\/([^/?#]+)\/ports\/([^/?#]*)(.*)$/s;

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

/** @throws PaddockError `invalid_argument` for anything but 1 to 65535 in plain digits. */
export function parsePort(text: string): number {
  const port = /^[1-9]\d{0,4}$/.test(text) ? Number(text) : Number.NaN;
  if (!(port <= 65535)) throw new PaddockError('invalid_argument', `port must be a whole number from 1 to 65535, but is "${text.slice(0, 40)}".`, { field: 'port' });
  return port;
}

/** The port proxy of this wire (contract, section 2.9): by path, and always with the API key. */
export class PortEntrance implements Entrance {
  readonly #access: Access;
  readonly #ports: Ports;

  constructor(deps: { readonly access: Access; readonly ports: Ports }) {
    this.#access = deps.access;
    this.#ports = deps.ports;
  }

  claims(request: IncomingMessage): PortTarget | null {
    return request.url?.startsWith('/sandboxes/') ? parsePortPath(request.url) : null;
  }

  async open(target: PortTarget, headers: IncomingHttpHeaders, signal: AbortSignal): ReturnType<Entrance['open']> {
    const principal = await authenticate(this.#access, headers);
    const port = parsePort(target.port);
    try {
      return { tunnel: await this.#ports.open(principal, parsePublicId(target.sandbox), port, signal), port };
    } catch (error) {
      // Ports have nothing else that could be missing.
      throw PaddockError.from(error).code === 'not_found' ? sandboxNotFound(target.sandbox) : error;
    }
  }

  /** Never the key; an `Authorization` that is not the key, sent beside `X-API-Key`, is the program's. */
  privateHeaders(headers: IncomingHttpHeaders): ReadonlySet<string> {
    const keyIsElsewhere = headers['x-api-key'] !== undefined && !/^bearer +dcl_/i.test(headers.authorization ?? '') && !headers.authorization?.includes(String(headers['x-api-key']));
    return new Set(keyIsElsewhere ? ['x-api-key'] : ['x-api-key', 'authorization']);
  }

  failure(error: PaddockError, requestId: string): ReturnType<Entrance['failure']> {
    return answerTo(error, requestId);
  }
}
