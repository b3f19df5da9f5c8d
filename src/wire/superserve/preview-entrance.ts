import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '../../core/clock.ts';
import { PaddockError } from '../../core/errors.ts';
import type { SandboxId } from '../../core/ids.ts';
import type { Previews } from '../../core/previews.ts';
import type { Entrance, Opened, PortTarget } from '../data-plane.ts';
import type { Connections } from './connections.ts';
import { answerTo, SuperserveError } from './errors.ts';
import { presentedCookie, withoutCookie } from './preview-cookie.ts';
import type { PreviewTokens } from './preview-token.ts';
import type { Routing } from './routing.ts';
import { statusOf } from './status.ts';

export const previewHeader = 'x-superserve-preview-token';
export const previewParameter = 'superserve_preview_token';
export const previewCookie = '__Host-superserve_preview_token';

interface PreviewEntranceDeps {
  readonly routing: Routing;
  readonly previews: Previews;
  readonly tokens: PreviewTokens;
  readonly connections: Connections;
  readonly clock: Clock;
}

/** Headers of the other wire's port proxy: who sends one at the server's own domain means that. */
const otherKeys = ['x-api-key', 'x-traffic-access-token', 'authorization'] as const;

/**
 * Previews (contract, section 12): programs inside sandboxes at `<port>-<id>.<domain>`. A private one opens for a token in a header, in the
 * query (which a browser is asked to forget: it gets a cookie and comes again) or in that cookie; none of them reaches the program.
 */
export class PreviewEntrance implements Entrance {
  readonly #deps: PreviewEntranceDeps;

  constructor(deps: PreviewEntranceDeps) {
    this.#deps = deps;
  }

  claims(request: IncomingMessage): PortTarget | null {
    const route = this.#deps.routing.route(request);
    if (route?.to !== 'preview') return null;
    const { id, port } = route.target;
    if (otherKeys.some((name) => request.headers[name] !== undefined) && !isTheirs(request)) return null;
    const path = (request.url ?? '/').replace(/^https?:\/\/[^/?#]*/i, '');
    return { sandbox: id, port: String(port), path: path.startsWith('/') || path === '*' ? path : `/${path}`, prefix: '' };
  }

  async open(target: PortTarget, headers: IncomingHttpHeaders, signal: AbortSignal, request: IncomingMessage): Promise<Opened> {
    const id = target.sandbox as SandboxId;
    const port = Number(target.port);
    const visit = await this.#deps.previews.visit(id, port);
    if (visit === null) throw new SuperserveError(404, 'not_found', 'sandbox not found');
    const { path, token: inQuery } = takeParameter(target.path);
    if (visit.needs !== null) {
      const grant = { id, port, tokenVersion: visit.needs.tokenVersion };
      const cookies = headers.cookie ?? '';
      const carried = [headers[previewHeader], inQuery, presentedCookie(cookies, previewCookie)].filter((each) => typeof each === 'string');
      const opened = carried.map((token) => ({ token, end: this.#deps.tokens.accepts(grant, token) })).find(({ end }) => end !== null);
      if (opened === undefined) {
        throw new SuperserveError(401, 'auth_failed', `this preview is private: send a token of the port in ${previewHeader}, or open a signed link (POST …/preview-ports/${port}/token makes both)`, { headers: noStore });
      }
      if (opened.token === inQuery && request.method === 'GET' && headers.upgrade === undefined) return this.#keepInCookie(opened.token, opened.end!, path);
    }
    const status = statusOf(visit.sandbox);
    if (status !== 'active') throw new SuperserveError(503, 'sandbox_unavailable', `sandbox is ${status}`, { headers: { 'retry-after': '2' } });
    const leave = this.#deps.connections.enter(id, request.socket.remoteAddress);
    try {
      const tunnel = await this.#tunnel(visit.sandbox, port, signal);
      tunnel.once('close', leave);
      // The name that the client asked for: each preview is an origin of its own, and its program may know that.
      return { tunnel, host: headers.host ?? 'localhost', path, cookie: withoutCookie(headers.cookie, previewCookie), ownOrigin: true, ...(isTheirs(request) ? { publicScheme: 'https' as const } : {}) };
    } catch (error) {
      leave();
      throw error;
    }
  }

  async #tunnel(sandbox: Parameters<Previews['open']>[0], port: number, signal: AbortSignal): Promise<Duplex> {
    try {
      return await this.#deps.previews.open(sandbox, port, signal);
    } catch (error) {
      if (PaddockError.from(error).code !== 'not_listening') throw error;
      throw new SuperserveError(502, 'sandbox_unreachable', `sandbox unreachable: nothing listens on port ${port} in it`, { headers: { 'retry-after': '2' }, cause: error });
    }
  }

  /** The clean address again, with the token where neither scripts nor logs nor a `Referer` show it. */
  #keepInCookie(token: string, end: number, path: string): Opened {
    const seconds = Math.floor((end - this.#deps.clock.now()) / 1000);
    const life = Number.isFinite(seconds) ? `; Max-Age=${seconds}` : '';
    return {
      answer: {
        status: 302,
        // Relative, and never `//…`, which would name another host.
        headers: { ...noStore, location: `/${path.replace(/^\/+/, '')}`, 'set-cookie': `${previewCookie}=${token}; Path=/; Secure; HttpOnly; SameSite=None; Partitioned${life}` },
      },
    };
  }

  async privateHeaders(): Promise<ReadonlySet<string>> {
    return new Set([previewHeader]);
  }

  failure(error: unknown, requestId: string): ReturnType<Entrance['failure']> {
    return answerTo(error, requestId);
  }
}

const noStore = { 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' } as const;

/** At a name that the clients know, and always write with https: whatever ends TLS has passed on plain bytes. */
function isTheirs(request: IncomingMessage): boolean {
  return hostOf(request).endsWith('.superserve.ai');
}

function hostOf(request: IncomingMessage): string {
  return (request.headers.host ?? '').toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '');
}

/** The path without the token's parameter; the rest of the query stays byte for byte. */
export function takeParameter(path: string): { readonly path: string; readonly token: string | null } {
  const mark = path.indexOf('?');
  if (mark === -1 || !path.includes(previewParameter)) return { path, token: null };
  let token: string | null = null;
  const kept = path
    .slice(mark + 1)
    .split('&')
    .filter((pair) => {
      if (pair !== previewParameter && !pair.startsWith(`${previewParameter}=`)) return true;
      token ??= pair.slice(previewParameter.length + 1);
      return false;
    });
  return { path: kept.length === 0 ? path.slice(0, mark) : `${path.slice(0, mark)}?${kept.join('&')}`, token };
}
