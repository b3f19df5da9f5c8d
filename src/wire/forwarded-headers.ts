import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';

/** Headers of one connection only (RFC 9110, section 7.6.1), besides those that `Connection` names. */
const hopByHop: ReadonlySet<string> = new Set([
  'connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer', 'transfer-encoding', 'upgrade',
]);

/** What a client says about proxies in front of it. Nobody there is known, so a program must not believe it. */
function isForwardingHeader(name: string): boolean {
  return name.startsWith('x-forwarded-') || name === 'forwarded' || name === 'x-real-ip' || name === 'via';
}

interface Outgoing {
  readonly request: IncomingMessage;
  /** The `Host` for the program. */
  readonly host: string;
  readonly prefix: string;
  /** Lower-case names that stay here. */
  readonly withhold: ReadonlySet<string>;
  /** Instead of the client's; null for none. */
  readonly cookie?: string | null | undefined;
  readonly upgrade: boolean;
  /** What the client speaks with whoever ends its TLS in front of here; without it what it speaks here. */
  readonly publicScheme?: 'https' | undefined;
}

/**
 * The headers for the program, as a flat list of names and values in the client's order and spelling.
 *
 * `Host` is what the owner wants it to be, usually `localhost:<port>`, which every development server accepts; most refuse names they do
 * not know. The original one is in `X-Forwarded-Host`. An `Origin` of the same place follows, so that what was same-origin for the browser is so for the program.
 */
export function requestHeaders({ request, host, prefix, withhold, cookie, upgrade, publicScheme }: Outgoing): string[] {
  const dropped = connectionHeaders(request.headers.connection);
  const asked = request.headers.host ?? '';
  const scheme = (request.socket as Partial<TLSSocket>).encrypted ? 'https' : 'http';
  const headers: string[] = ['Host', host];
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    const name = request.rawHeaders[i]!;
    const value = request.rawHeaders[i + 1]!;
    const lower = name.toLowerCase();
    // `Expect` was answered here already.
    if (lower === 'host' || lower === 'expect' || hopByHop.has(lower) || dropped.has(lower) || withhold.has(lower) || isForwardingHeader(lower)) continue;
    if (lower === 'cookie' && cookie !== undefined) continue;
    headers.push(name, lower === 'origin' && value === `${scheme}://${asked}` ? `http://${host}` : value);
  }
  if (cookie != null) headers.push('Cookie', cookie);
  headers.push('X-Forwarded-For', request.socket.remoteAddress ?? 'unknown', 'X-Forwarded-Proto', publicScheme ?? scheme, 'X-Forwarded-Host', asked);
  if (prefix !== '') headers.push('X-Forwarded-Prefix', prefix);
  if (upgrade) headers.push('Connection', 'Upgrade', 'Upgrade', request.headers.upgrade ?? 'websocket');
  // Not `close`, although nothing follows: programs then close in the middle of a body they did not want, and their answer is lost.
  else headers.push('Connection', 'keep-alive', ...framing(request));
  return headers;
}

/** How long the body is, said again: the header that said it belongs to the client's connection. */
function framing(request: IncomingMessage): string[] {
  if (request.headers['transfer-encoding'] !== undefined) return ['Transfer-Encoding', 'chunked'];
  const bodyless = request.headers['content-length'] === undefined;
  return bodyless && !['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE'].includes(request.method ?? '') ? ['Content-Length', '0'] : [];
}

/**
 * The program's headers for the client. `Set-Cookie` stays behind where all sandboxes share one origin, so that a cookie of one would be sent
 * to the others.
 *
 * @param options `upgrade` keeps the headers that agree to another protocol; `cookies` lets the program set cookies of its own host.
 */
export function answerHeaders(rawHeaders: readonly string[], { upgrade = false, cookies = false }: { readonly upgrade?: boolean; readonly cookies?: boolean | undefined } = {}): string[] {
  const connection = valuesOf(rawHeaders, 'connection');
  const dropped = connectionHeaders(connection);
  const headers: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const lower = rawHeaders[i]!.toLowerCase();
    if (lower === 'set-cookie' || lower === 'set-cookie2') {
      const own = cookies && lower === 'set-cookie' ? hostOnlyCookie(rawHeaders[i + 1]!) : null;
      if (own !== null) headers.push(rawHeaders[i]!, own);
      continue;
    }
    if (upgrade ? lower !== 'connection' && lower !== 'upgrade' && (hopByHop.has(lower) || dropped.has(lower)) : hopByHop.has(lower) || dropped.has(lower)) continue;
    headers.push(rawHeaders[i]!, rawHeaders[i + 1]!);
  }
  return headers;
}

/** A cookie that no other host gets: without a domain. Null for one that stands for this server's own word. */
function hostOnlyCookie(cookie: string): string | null {
  if (/^\s*__Host-superserve/i.test(cookie)) return null;
  return cookie.split(';').filter((part) => !/^\s*domain\s*=/i.test(part)).join(';');
}

function connectionHeaders(connection: string | undefined): ReadonlySet<string> {
  // Framing and addressing cannot be switched off by naming them.
  const kept = new Set(['host', 'content-length', 'content-type']);
  return new Set((connection ?? '').split(',').map((each) => each.trim().toLowerCase()).filter((each) => each !== '' && !kept.has(each)));
}

function valuesOf(rawHeaders: readonly string[], wanted: string): string {
  const values: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i]!.toLowerCase() === wanted) values.push(rawHeaders[i + 1]!);
  return values.join(',');
}
