import { parseIpv4 } from '../core/network/addresses.ts';

/** What the process is told at its start, as JSON in its first argument or in PADDOCK_EGRESS. Only the first four are required. */
export interface EgressSettings {
  /** Name of the gateway's network namespace, under /run/netns. */
  readonly netns: string;
  /** Path of the Unix socket for control. */
  readonly controlSocket: string;
  /** The host's end of its link to the gateway, IPv4. */
  readonly hostAddress: string;
  /** The guests' range, `a.b.c.d/n`. */
  readonly subnet: string;
  /** Name servers, `address` or `address:port`; empty: those of /etc/resolv.conf. */
  readonly dnsUpstreams: readonly string[];
  /** `http://` or `https://` URL of a proxy for everything that is dialled, with user and password if it wants them; null: dial directly. */
  readonly upstreamProxy: string | null;
  /** File of PEM certificates that are trusted beside the system's, by interception and for an upstream proxy over https; null: none. */
  readonly extraCaFile: string | null;
  readonly limits: EgressLimits;
}

export interface EgressLimits {
  /** Open connections of one sandbox; more are reset. */
  readonly connectionsPerSandbox: number;
  /** Open connections of all together. */
  readonly connections: number;
  /** Names of one sandbox that have an address of their own at a time. */
  readonly namesPerSandbox: number;
  /** Questions to the resolver per second and sandbox; twice as many at once. */
  readonly questionsPerSecond: number;
}

export const defaultLimits: EgressLimits = Object.freeze({ connectionsPerSandbox: 4096, connections: 32_768, namesPerSandbox: 4096, questionsPerSecond: 500 });

/** Ports in the gateway's namespace; no guest reaches them but through the packet filter's rules. */
export const proxyPort = 15_001;
export const dnsPort = 15_053;

/** @throws Error with a sentence that names the setting. */
export function parseSettings(json: string | undefined): EgressSettings {
  if (json === undefined) throw new Error('The egress proxy needs its settings as JSON in its first argument or in PADDOCK_EGRESS.');
  const given = JSON.parse(json) as Partial<EgressSettings>;
  for (const name of ['netns', 'controlSocket', 'hostAddress', 'subnet'] as const) {
    if (typeof given[name] !== 'string' || given[name] === '') throw new Error(`The egress proxy's settings have no "${name}".`);
  }
  if (parseIpv4(given.hostAddress!) === null) throw new Error(`The egress proxy's "hostAddress" is "${given.hostAddress}", not an IPv4 address.`);
  return Object.freeze({
    netns: given.netns!,
    controlSocket: given.controlSocket!,
    hostAddress: given.hostAddress!,
    subnet: given.subnet!,
    dnsUpstreams: given.dnsUpstreams ?? [],
    upstreamProxy: given.upstreamProxy ?? null,
    extraCaFile: given.extraCaFile ?? null,
    limits: Object.freeze({ ...defaultLimits, ...given.limits }),
  });
}
