import type { IncomingMessage } from 'node:http';
import { parseIpv4 } from '../core/network/addresses.ts';
import type { Destination } from '../core/network/decide.ts';
import { canonicalName } from '../core/network/names.ts';

/** What a request asks of whom; or why it cannot be judged. `path` is in origin form. */
export type HttpTarget = { readonly kind: 'target'; readonly destination: Destination; readonly path: string } | { readonly kind: 'broken'; readonly why: string };

/**
 * The destination of one request: its `Host`, with which an absolute request target must agree. The port is always the connection's.
 *
 * @param port The port that the guest connected to.
 */
export function targetOf(request: IncomingMessage, port: number): HttpTarget {
  const hosts = request.rawHeaders.filter((_, i) => i % 2 === 0 && request.rawHeaders[i]!.toLowerCase() === 'host');
  if (hosts.length !== 1) return broken(hosts.length === 0 ? 'The request has no Host.' : 'The request has more than one Host.');
  const host = parseHost(request.headers.host ?? '');
  if (host === null) return broken('The Host of the request is not a host name or IPv4 address, with or without a port.');
  const url = request.url ?? '';
  if (url.startsWith('/') || (url === '*' && request.method === 'OPTIONS')) return { kind: 'target', destination: { ...host, port }, path: url };
  const absolute = /^http:\/\/([^/?#@\\]*)(.*)$/is.exec(url);
  const authority = parseHost(absolute?.[1] ?? '');
  if (absolute === null || authority === null) return broken('The request target is neither a path nor an http:// URL.');
  if (authority.name !== host.name || authority.address !== host.address) return broken('The request target and the Host name different hosts.');
  const path = absolute[2] ?? '';
  return { kind: 'target', destination: { ...host, port }, path: path.startsWith('/') ? path : `/${path}` };
}

function parseHost(text: string): { name: string | null; address: number | null } | null {
  const match = /^([A-Za-z0-9._-]+)(?::\d{1,5})?$/.exec(text);
  if (match === null) return null;
  const address = parseIpv4(match[1]!);
  const name = address === null ? canonicalName(match[1]!) : null;
  return address === null && name === null ? null : { name, address };
}

function broken(why: string): HttpTarget {
  return { kind: 'broken', why };
}
