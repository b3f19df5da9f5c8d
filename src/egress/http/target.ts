import { parseIpv4 } from '../../core/network/addresses.ts';
import type { Destination } from '../../core/network/decide.ts';
import { canonicalName } from '../../core/network/names.ts';
import { headerValues } from './headers.ts';

/** What a request asks of whom; or why it cannot be judged. `path` is in origin form; `named` is the port that the request names, if it does. */
export type HttpTarget = { readonly kind: 'target'; readonly destination: Destination; readonly path: string; readonly named: number | null } | { readonly kind: 'broken'; readonly why: string };

/**
 * The destination of one request: its `Host`, with which an absolute request target must agree. The port is always the connection's.
 *
 * @param url The request target as it came.
 * @param port The port that the guest connected to.
 */
export function targetOf({ method, url, headers }: { readonly method: string; readonly url: string; readonly headers: readonly string[] }, scheme: 'http' | 'https', port: number): HttpTarget {
  const hosts = headerValues(headers, 'host');
  if (hosts.length !== 1) return broken(hosts.length === 0 ? 'The request has no Host.' : 'The request has more than one Host.');
  const host = parseHost(hosts[0]!);
  if (host === null) return broken('The Host of the request is not a host name or IPv4 address, with or without a port.');
  const destination = { name: host.name, address: host.address, port };
  if (url.startsWith('/') || (url === '*' && method === 'OPTIONS')) return { kind: 'target', destination, path: url, named: host.port };
  const absolute = /^([a-z]+):\/\/([^/?#@\\]*)(.*)$/is.exec(url);
  const authority = parseHost(absolute?.[2] ?? '');
  if (absolute === null || authority === null || absolute[1]!.toLowerCase() !== scheme) return broken(`The request target is neither a path nor an ${scheme}:// URL.`);
  if (authority.name !== host.name || authority.address !== host.address || authority.port !== host.port) return broken('The request target and the Host name different hosts.');
  const path = absolute[3] ?? '';
  return { kind: 'target', destination, path: path.startsWith('/') ? path : `/${path}`, named: host.port };
}

function parseHost(text: string): { name: string | null; address: number | null; port: number | null } | null {
  const match = /^([A-Za-z0-9._-]+)(?::(\d{1,5}))?$/.exec(text);
  if (match === null) return null;
  const address = parseIpv4(match[1]!);
  const name = address === null ? canonicalName(match[1]!) : null;
  return address === null && name === null ? null : { name, address, port: match[2] === undefined ? null : Number(match[2]) };
}

function broken(why: string): HttpTarget {
  return { kind: 'broken', why };
}
