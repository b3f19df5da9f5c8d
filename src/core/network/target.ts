import { PaddockError } from '../errors.ts';
import { formatAddress, parseAddress, whyNeverReachable } from './addresses.ts';
import { decide, type Destination, type Verdict } from './decide.ts';
import { canonicalName } from './names.ts';
import type { NetworkPolicy } from './rules.ts';

/** A host as somebody wrote it, parsed once: whatever the spelling, an address is an address and no name. */
export type ParsedHost =
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'address'; readonly address: number }
  /** Not supported; `embedded` is the IPv4 address in it, if its form carries one. */
  | { readonly kind: 'ipv6'; readonly embedded: number | null };

/** Null for what is neither an address in any spelling nor a host name. */
export function parseHost(text: string): ParsedHost | null {
  const address = parseAddress(text);
  if (address !== null) return address.family === 4 ? { kind: 'address', address: address.address } : { kind: 'ipv6', embedded: address.embedded };
  const name = canonicalName(text);
  return name === null ? null : { kind: 'name', name };
}

export interface Authority {
  readonly host: ParsedHost;
  /** Null when none is written. */
  readonly port: number | null;
}

/** `host`, `host:port` or `[address]:port`, as in a `Host` header. Null for anything else: user names, paths, ports beyond 65535. */
export function parseAuthority(text: string): Authority | null {
  if (text.length > 1000) return null;
  const match = /^(\[[^\]]*\]|[^:@/?#\s]*)(?::(\d{0,5}))?$/.exec(text);
  // An IPv6 address without brackets has too many colons for the pattern.
  const host = parseHost(match?.[1] ?? text);
  if (host === null || (match === null && host.kind !== 'ipv6')) return null;
  const port = match?.[2] ? Number(match[2]) : null;
  return port !== null && (port < 1 || port > 65_535) ? null : { host, port };
}

/** What would become of a connection, for whoever writes rules. */
export interface Explanation {
  /** Null for a literal address. */
  readonly host: string | null;
  /** Null for a name: it is resolved only when something connects. */
  readonly address: string | null;
  readonly port: number;
  readonly verdict: Verdict;
  /** What the proxy would connect to; null when it would not. */
  readonly dials: string | null;
  /** What else could change the verdict; empty when nothing can. */
  readonly notes: readonly string[];
}

/**
 * Explains what a policy does with a URL, `host`, `host:port` or address. Without a port and scheme it is about port 443; rules are the same for
 * all ports.
 *
 * @throws PaddockError `invalid_argument` for what names no destination.
 */
export function explain(policy: NetworkPolicy, target: string): Explanation {
  const { host, port } = parseTarget(target);
  if (host.kind === 'ipv6') return explainIpv6(host.embedded, port);
  const destination: Destination = host.kind === 'name' ? { name: host.name, address: null, port } : { name: null, address: host.address, port };
  const verdict = decide(policy, destination);
  return Object.freeze({
    host: destination.name,
    address: destination.address === null ? null : formatAddress(destination.address),
    port,
    verdict,
    dials: verdict.allowed ? dialled(host, port) : null,
    notes: Object.freeze(verdict.allowed ? [...notesOf(policy, host, verdict)] : []),
  });
}

const ports: Readonly<Record<string, number>> = { http: 80, ws: 80, https: 443, wss: 443, ftp: 21, ssh: 22, git: 9418, postgres: 5432, postgresql: 5432, mysql: 3306, redis: 6379, mongodb: 27_017, amqp: 5672 };

function parseTarget(target: string): { readonly host: ParsedHost; readonly port: number } {
  const url = /^([a-z][a-z0-9+.-]*):\/\/(?:[^/?#]*@)?([^/?#]*)/i.exec(target);
  const scheme = url?.[1]?.toLowerCase() ?? 'https';
  const authority = parseAuthority(url?.[2] ?? target);
  if (authority === null) throw invalid(target, 'is not a URL, a host, host:port or an address');
  const port = authority.port ?? ports[scheme];
  if (port === undefined) throw invalid(target, `has no port, and ${scheme} has no usual one here; write host:port`);
  return { host: authority.host, port };
}

function explainIpv6(embedded: number | null, port: number): Explanation {
  const internal = embedded === null ? null : whyNeverReachable(embedded);
  const verdict: Verdict =
    embedded === null || internal === null
      ? { allowed: false, matchRule: 'protocol', rule: null, reason: 'Sandboxes have no IPv6.' }
      : { allowed: false, matchRule: 'internal-ip', rule: null, reason: `Sandboxes have no IPv6, and this address stands for ${formatAddress(embedded)}, which is not on the public internet (${internal}).` };
  return Object.freeze({ host: null, address: null, port, verdict, dials: null, notes: Object.freeze([]) });
}

function dialled(host: ParsedHost, port: number): string {
  if (host.kind === 'name') return `${host.name}:${port}, at an address that the server itself resolves`;
  return host.kind === 'address' ? `${formatAddress(host.address)}:${port}` : '';
}

function* notesOf(policy: NetworkPolicy, host: ParsedHost, verdict: Verdict): Generator<string> {
  if (host.kind === 'name') {
    yield 'Blocked all the same if the name resolves to nothing but addresses outside the public internet.';
    if (verdict.matchRule === 'default' && policy.deny.some((rule) => rule.kind === 'cidr')) yield 'Blocked if it resolves to an address that deny_out has.';
  } else if (verdict.matchRule === 'default' && policy.deny.some((rule) => rule.kind !== 'cidr')) {
    yield 'Blocked if the connection names a host (in TLS or HTTP) that deny_out has.';
  }
}

function invalid(target: string, why: string): PaddockError {
  return new PaddockError('invalid_argument', `target ${JSON.stringify(target.slice(0, 200))} ${why}`, { field: 'target' });
}
