import { existsSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { parseVolumeStore, type VolumeStoreConfig } from './config-volume-store.ts';
import { type Endpoint, parseEndpoint } from './host/images/registry/endpoint.ts';

/** Every setting of a server, parsed once at the start. Nothing else reads the environment. */
export interface Config {
  readonly listen: ListenAddress;
  /** State of this instance: database, keys, sandboxes' disks. Two servers never share one. */
  readonly dataDir: string;
  /** What set-up has built: `runsc/`, `agent/`, `unpacker/`, `templates/`. May be shared between instances. */
  readonly artefactsDir: string;
  /** The key that seals secrets at rest; null: in the data directory. */
  readonly masterKeyFile: string | null;
  readonly domain: string;
  /** The API key given by the operator; null means: the one generated in the data directory. */
  readonly apiKey: string | null;
  /** Another build of the sandbox runtime, for new sandboxes only. */
  readonly runsc: string | null;
  readonly unknownTemplate: 'reject' | 'base';
  readonly maxSandboxes: number;
  /** Seconds; 0 means no cap. */
  readonly maxTimeoutSeconds: number;
  readonly warmGuests: number;
  /** Of paused sandboxes. MiB, null for the default, and seconds. */
  readonly kept: { readonly memoryMb: number | null; readonly seconds: number };
  /** MiB, 0 for no limit. */
  readonly snapshots: { readonly max: number; readonly diskMb: number };
  /** Of a team, and what one may hold. */
  readonly volumes: { readonly max: number; readonly mb: number };
  /** Null: volumes lie on the disk of this machine. For commands that need none, wherever they lie, and whether that can be reached: `unneeded`. */
  readonly volumeStore: VolumeStoreConfig | null | 'unneeded';
  /** Of a team. */
  readonly maxSecrets: number;
  readonly templates: TemplateConfig;
  readonly subnet: Subnet | null;
  readonly egress: EgressSettings;
  readonly images: ImageSettings;
  readonly networkLogDays: number;
  /** What becomes of traffic that a guardrail should look into and cannot. */
  readonly unscanned: 'refuse' | 'pass';
  readonly superserve: SuperserveConfig;
  readonly logLevel: LogLevel;
  /** Who may read the figures at `/metrics`. */
  readonly metrics: 'key' | 'open' | 'off';
}

/** How the server itself reaches the internet on behalf of its sandboxes. */
export interface EgressSettings {
  /** Name servers, `address:port` (IPv6 in brackets); empty: those of the machine. */
  readonly dnsUpstreams: readonly string[];
  /** `http://` or `https://`, with user and password if it wants them; null: no proxy. Never shown: it may hold a password. */
  readonly upstreamProxy: string | null;
  /** PEM file with certificates that an upstream proxy over https may have besides those of known authorities. */
  readonly extraCaFile: string | null;
}

/** What teams may build, and how. */
export interface TemplateConfig {
  /** Of a team. */
  readonly max: number;
  readonly maxVcpus: number;
  readonly maxMemoryMb: number;
  readonly maxDiskMb: number;
  readonly maxImageMb: number;
  readonly buildsAtOnce: number;
  readonly buildsPerTeam: number;
  readonly buildSeconds: number;
  /** Outbound rules; empty: everything that a sandbox without rules may reach. */
  readonly allowOut: readonly string[];
  /** What to take instead of an image of that name. */
  readonly imageAliases: Readonly<Record<string, string>>;
  /** JSON file: registry → username and password. */
  readonly registryLoginsFile: string | null;
}

/** Where images of templates may come from, besides the registries of the internet. */
export interface ImageSettings {
  /** Those that may be at addresses of this network; `secure` is false for those spoken to over plain http. */
  readonly internalRegistries: readonly Endpoint[];
  /** Asked instead of Docker Hub. */
  readonly mirror: Endpoint | null;
}

/** What can be chosen about the Superserve wire. */
export interface SuperserveConfig {
  /** Whether `timeout_seconds` ends a sandbox that long after its creation, or pauses it after that long of running. */
  readonly timeout: 'hard_cap' | 'auto_pause';
  /** Who may open a port of a sandbox whose create did not say. */
  readonly previews: 'legacy_public' | 'public';
  /** Origins of web pages that may use commands, files and terminals. */
  readonly origins: readonly string[];
  /** Requests of one address, and of one team; null for no limit. */
  readonly addressRate: Rate | null;
  readonly teamRate: Rate | null;
}

/** Requests per second, and how many may come at once after a silence. */
export interface Rate {
  readonly perSecond: number;
  readonly burst: number;
}

export interface ListenAddress {
  /** A host name or address without brackets. */
  readonly host: string;
  /** 0 lets the system choose. */
  readonly port: number;
}

/** An IPv4 network in canonical form: no bit set outside the prefix. */
export interface Subnet {
  readonly address: string;
  readonly prefix: number;
}

const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** One row of the reference: what `paddock help` prints and the documentation repeats. */
export interface SettingDescription {
  readonly name: string;
  /** The default as the operator would write it; empty when there is none. */
  readonly default: string;
  readonly meaning: string;
}

export const settings: readonly SettingDescription[] = Object.freeze([
  { name: 'PADDOCK_LISTEN', default: '127.0.0.1:7070', meaning: 'Address and port the server listens on, host:port or [IPv6]:port. Port 0 lets the system choose.' },
  { name: 'PADDOCK_DATA_DIR', default: '/var/lib/paddock', meaning: 'Directory of the state: database, keys, sandboxes. One server at a time.' },
  { name: 'PADDOCK_ARTEFACTS_DIR', default: 'the data directory', meaning: 'Directory of what set-up builds: runsc/, agent/, unpacker/, templates/. Several servers may share one.' },
  { name: 'PADDOCK_MASTER_KEY_FILE', default: '', meaning: 'File of the key that seals secrets and environments at rest, made if there is none. Without it master.key in the data directory.' },
  { name: 'PADDOCK_DOMAIN', default: 'sandbox.localhost', meaning: 'Domain of sandboxes: their ports are at <port>-<id>.<domain>. Its names must lead here; those of sandbox.localhost do on this machine.' },
  { name: 'PADDOCK_API_KEY', default: '', meaning: 'The API key that clients use. Without it one is generated once and kept in <data>/api-key.' },
  { name: 'PADDOCK_RUNSC', default: '', meaning: 'Path of another runsc for new sandboxes; running ones keep the build they were started with.' },
  { name: 'PADDOCK_TEMPLATE_APT_MIRROR', default: '', meaning: 'Debian mirror that set-up builds templates from, instead of the one of this machine.' },
  { name: 'PADDOCK_UNKNOWN_TEMPLATE', default: 'reject', meaning: 'What a create with an unknown template name gets: reject (404), or base (the base template under that name).' },
  { name: 'PADDOCK_MAX_SANDBOXES', default: '256', meaning: 'Sandboxes that may exist at once; a create above it is refused with 429.' },
  { name: 'PADDOCK_MAX_TIMEOUT', default: '0', meaning: 'Longest timeout in seconds that a sandbox may ask for, 0 for no limit; a longer one is refused.' },
  { name: 'PADDOCK_WARM_GUESTS', default: '0', meaning: 'Booted sandboxes that wait per template, so that a create takes milliseconds.' },
  { name: 'PADDOCK_KEPT_MEMORY', default: 'a quarter of the machine', meaning: 'Memory in MiB that paused sandboxes may keep, so that resuming one takes milliseconds; 0 keeps none. Given up when it is needed.' },
  { name: 'PADDOCK_KEPT_SECONDS', default: '600', meaning: 'How long a paused sandbox is kept in memory at most; afterwards it is on disk only.' },
  { name: 'PADDOCK_MAX_SNAPSHOTS', default: '100', meaning: 'Snapshots that a team may have, those of paused sandboxes not counted.' },
  { name: 'PADDOCK_MAX_SNAPSHOT_DISK', default: '0', meaning: 'MiB that the snapshots of a team may take on disk together, 0 for no limit but the disk.' },
  { name: 'PADDOCK_MAX_VOLUMES', default: '100', meaning: 'Volumes that a team may have.' },
  { name: 'PADDOCK_MAX_VOLUME_MB', default: '4096', meaning: 'MiB that the files of one volume may take, and that an archive for one may have.' },
  { name: 'PADDOCK_VOLUME_STORE', default: '', meaning: 'Bucket and prefix in an S3-compatible object store that volumes lie in, s3://bucket/prefix. Without it, they lie on the disk of this machine, and can be mounted.' },
  { name: 'PADDOCK_VOLUME_STORE_ENDPOINT', default: '', meaning: 'The server of that store, https://host:port (or http). Without it, Amazon S3 in the region.' },
  { name: 'PADDOCK_VOLUME_STORE_REGION', default: 'us-east-1', meaning: 'Region of the bucket.' },
  { name: 'PADDOCK_VOLUME_STORE_PATH_STYLE', default: 'yes with an endpoint', meaning: 'Whether requests name the bucket in their path (yes), or in the host name (no).' },
  { name: 'PADDOCK_VOLUME_STORE_CREDENTIALS', default: '', meaning: 'JSON file with the key of that store: {"accessKeyId": "…", "secretAccessKey": "…"}. Without it, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.' },
  { name: 'PADDOCK_MAX_SECRETS', default: '1000', meaning: 'Secrets that a team may have.' },
  { name: 'PADDOCK_MAX_TEMPLATES', default: '50', meaning: 'Templates that a team may have.' },
  { name: 'PADDOCK_MAX_TEMPLATE_VCPUS', default: '10', meaning: 'Virtual CPUs that a template may give its sandboxes.' },
  { name: 'PADDOCK_MAX_TEMPLATE_MEMORY_MB', default: '20480', meaning: 'MiB of memory that a template may give its sandboxes.' },
  { name: 'PADDOCK_MAX_TEMPLATE_DISK_MB', default: '102400', meaning: 'MiB of disk that a template may give its sandboxes.' },
  { name: 'PADDOCK_MAX_IMAGE_MB', default: '10240', meaning: 'MiB that an image which a template is built from may have, unpacked.' },
  { name: 'PADDOCK_BUILDS', default: '2', meaning: 'Builds of templates that run at the same time; others wait.' },
  { name: 'PADDOCK_TEAM_BUILDS', default: '5', meaning: 'Builds of one team that run or wait; one more is refused with 429.' },
  { name: 'PADDOCK_BUILD_TIMEOUT', default: '1800', meaning: 'Seconds that a build may take, from 10 to 86400.' },
  { name: 'PADDOCK_BUILD_ALLOW_OUT', default: '', meaning: 'What the steps of builds may reach, as in allow_out of a sandbox, several with commas. Without it, what a sandbox without rules may.' },
  { name: 'PADDOCK_IMAGE_ALIASES', default: '', meaning: 'What to build from when an image of that name is asked for: ubuntu:22.04=base,python:3.11=python, built-in templates or other images, also paths such as oci:/srv/images/x.' },
  { name: 'PADDOCK_REGISTRY_LOGINS', default: '', meaning: 'JSON file with logins of registries: {"registry.example.com": {"username": "…", "password": "…"}}; Docker Hub is docker.io.' },
  { name: 'PADDOCK_SUBNET', default: '', meaning: 'IPv4 network for the addresses of sandboxes, from /16 to /20. Without it a free one is chosen.' },
  { name: 'PADDOCK_DNS_UPSTREAM', default: 'those of the machine', meaning: 'Name servers that the names sandboxes ask for are resolved by: address or address:port, several with commas.' },
  { name: 'PADDOCK_UPSTREAM_PROXY', default: '', meaning: 'HTTP proxy that connections of sandboxes, and to registries of images, leave through, http://user:password@host:port (or https). It must allow CONNECT.' },
  { name: 'PADDOCK_EXTRA_CA_FILE', default: '', meaning: 'PEM file with certificates of authorities of your own that are trusted as well: for an upstream proxy over https, registries of images, and servers whose TLS is opened to put a secret in.' },
  { name: 'PADDOCK_INTERNAL_REGISTRIES', default: '', meaning: 'Registries of images that may be at addresses of this network, host or host:port, several with commas; with http:// before it, one that has no TLS.' },
  { name: 'PADDOCK_REGISTRY_MIRROR', default: '', meaning: 'Registry that is asked instead of Docker Hub for images without a login, host:port, https:// or http:// before it. It may be internal.' },
  { name: 'PADDOCK_UNSCANNED', default: 'refuse', meaning: 'What becomes of a request or answer that a guardrail has to change or may block and cannot look into (too large, packed in an unknown way, a WebSocket, a scanner that fails): refuse (403 with the reason), or pass. Either way the audit of the sandbox says so.' },
  { name: 'PADDOCK_NETWORK_LOG_DAYS', default: '7', meaning: 'Days that connections stay in the network log, from 1 to 90.' },
  { name: 'PADDOCK_SUPERSERVE_TIMEOUT', default: 'hard_cap', meaning: 'What timeout_seconds does to a Superserve sandbox: hard_cap (destroyed that long after its creation) or auto_pause (paused after each running period of that length).' },
  { name: 'PADDOCK_SUPERSERVE_PREVIEWS', default: 'legacy_public', meaning: 'Who may open ports of a Superserve sandbox created without preview_access: legacy_public (everybody, every port) or public (everybody, published ports).' },
  { name: 'PADDOCK_SUPERSERVE_ORIGINS', default: '', meaning: 'Origins of web pages that may use the data plane of the Superserve API, such as https://console.example.com, several with commas.' },
  { name: 'PADDOCK_SUPERSERVE_ADDRESS_RATE', default: '200:800', meaning: 'Requests per second of one client address on the Superserve API, and how many may come at once; 0 for no limit. Loopback is never limited.' },
  { name: 'PADDOCK_SUPERSERVE_TEAM_RATE', default: '100:400', meaning: 'The same for all requests of one team.' },
  { name: 'PADDOCK_METRICS', default: 'key', meaning: 'Who may read /metrics: key (whoever has an API key), open (everybody who reaches the port) or off (nobody; nothing is counted).' },
  { name: 'PADDOCK_LOG_LEVEL', default: 'info', meaning: `What is logged to standard error: ${logLevels.join(', ')}.` },
]);

/** A setting that cannot be used. The message names the variable and says what is allowed. */
export class ConfigError extends Error {
  constructor(variable: string, problem: string) {
    super(`${variable} ${problem}`);
    this.name = 'ConfigError';
  }
}

export interface ParsedConfig {
  readonly config: Config;
  /** One sentence per `PADDOCK_*` variable that nobody reads. */
  readonly warnings: readonly string[];
}

/**
 * Reads the settings from an environment. An empty variable counts as absent.
 *
 * @throws ConfigError for the first value that cannot be used.
 */
export function parseConfig(env: Readonly<Record<string, string | undefined>>): ParsedConfig {
  const read = (name: string): string | null => env[name]?.trim() || null;
  const dataDir = resolve(read('PADDOCK_DATA_DIR') ?? '/var/lib/paddock');
  const artefacts = read('PADDOCK_ARTEFACTS_DIR');
  const runsc = read('PADDOCK_RUNSC');
  const masterKey = read('PADDOCK_MASTER_KEY_FILE');
  const config: Config = Object.freeze({
    listen: parseListen(read('PADDOCK_LISTEN') ?? '127.0.0.1:7070'),
    dataDir,
    artefactsDir: artefacts === null ? dataDir : resolve(artefacts),
    masterKeyFile: masterKey === null ? null : resolve(masterKey),
    domain: parseDomain(read('PADDOCK_DOMAIN') ?? 'sandbox.localhost'),
    apiKey: parseApiKey(read('PADDOCK_API_KEY')),
    runsc: runsc === null ? null : resolve(runsc),
    unknownTemplate: parseChoice('PADDOCK_UNKNOWN_TEMPLATE', read('PADDOCK_UNKNOWN_TEMPLATE') ?? 'reject', ['reject', 'base']),
    maxSandboxes: parseInteger('PADDOCK_MAX_SANDBOXES', read('PADDOCK_MAX_SANDBOXES') ?? '256', 1, 4000),
    maxTimeoutSeconds: parseInteger('PADDOCK_MAX_TIMEOUT', read('PADDOCK_MAX_TIMEOUT') ?? '0', 0, 315_360_000),
    warmGuests: parseInteger('PADDOCK_WARM_GUESTS', read('PADDOCK_WARM_GUESTS') ?? '0', 0, 1000),
    kept: Object.freeze({
      memoryMb: parseOptionalInteger('PADDOCK_KEPT_MEMORY', read('PADDOCK_KEPT_MEMORY'), 0, 16_777_216),
      seconds: parseInteger('PADDOCK_KEPT_SECONDS', read('PADDOCK_KEPT_SECONDS') ?? '600', 0, 31_536_000),
    }),
    snapshots: Object.freeze({
      max: parseInteger('PADDOCK_MAX_SNAPSHOTS', read('PADDOCK_MAX_SNAPSHOTS') ?? '100', 0, 100_000),
      diskMb: parseInteger('PADDOCK_MAX_SNAPSHOT_DISK', read('PADDOCK_MAX_SNAPSHOT_DISK') ?? '0', 0, 1_000_000_000),
    }),
    volumes: Object.freeze({
      max: parseInteger('PADDOCK_MAX_VOLUMES', read('PADDOCK_MAX_VOLUMES') ?? '100', 0, 10_000),
      mb: parseInteger('PADDOCK_MAX_VOLUME_MB', read('PADDOCK_MAX_VOLUME_MB') ?? '4096', 1, 1_048_576),
    }),
    volumeStore: parseVolumeStore(read, (name) => parseFile(name, read(name)), (variable, problem) => new ConfigError(variable, problem)),
    maxSecrets: parseInteger('PADDOCK_MAX_SECRETS', read('PADDOCK_MAX_SECRETS') ?? '1000', 0, 10_000),
    templates: Object.freeze({
      max: parseInteger('PADDOCK_MAX_TEMPLATES', read('PADDOCK_MAX_TEMPLATES') ?? '50', 0, 10_000),
      maxVcpus: parseInteger('PADDOCK_MAX_TEMPLATE_VCPUS', read('PADDOCK_MAX_TEMPLATE_VCPUS') ?? '10', 1, 256),
      maxMemoryMb: parseInteger('PADDOCK_MAX_TEMPLATE_MEMORY_MB', read('PADDOCK_MAX_TEMPLATE_MEMORY_MB') ?? '20480', 128, 16_777_216),
      maxDiskMb: parseInteger('PADDOCK_MAX_TEMPLATE_DISK_MB', read('PADDOCK_MAX_TEMPLATE_DISK_MB') ?? '102400', 128, 16_777_216),
      maxImageMb: parseInteger('PADDOCK_MAX_IMAGE_MB', read('PADDOCK_MAX_IMAGE_MB') ?? '10240', 1, 1_048_576),
      buildsAtOnce: parseInteger('PADDOCK_BUILDS', read('PADDOCK_BUILDS') ?? '2', 1, 64),
      buildsPerTeam: parseInteger('PADDOCK_TEAM_BUILDS', read('PADDOCK_TEAM_BUILDS') ?? '5', 1, 1000),
      buildSeconds: parseInteger('PADDOCK_BUILD_TIMEOUT', read('PADDOCK_BUILD_TIMEOUT') ?? '1800', 10, 86_400),
      allowOut: Object.freeze((read('PADDOCK_BUILD_ALLOW_OUT') ?? '').split(',').map((each) => each.trim()).filter((each) => each !== '')),
      imageAliases: parseAliases(read('PADDOCK_IMAGE_ALIASES')),
      registryLoginsFile: parseFile('PADDOCK_REGISTRY_LOGINS', read('PADDOCK_REGISTRY_LOGINS')),
    }),
    subnet: parseSubnet(read('PADDOCK_SUBNET')),
    egress: Object.freeze({
      dnsUpstreams: parseNameServers(read('PADDOCK_DNS_UPSTREAM')),
      upstreamProxy: parseProxy(read('PADDOCK_UPSTREAM_PROXY')),
      extraCaFile: parseFile('PADDOCK_EXTRA_CA_FILE', read('PADDOCK_EXTRA_CA_FILE')),
    }),
    images: Object.freeze({
      internalRegistries: parseRegistries(read('PADDOCK_INTERNAL_REGISTRIES')),
      mirror: parseMirror(read('PADDOCK_REGISTRY_MIRROR')),
    }),
    unscanned: parseChoice('PADDOCK_UNSCANNED', read('PADDOCK_UNSCANNED') ?? 'refuse', ['refuse', 'pass']),
    networkLogDays: parseInteger('PADDOCK_NETWORK_LOG_DAYS', read('PADDOCK_NETWORK_LOG_DAYS') ?? '7', 1, 90),
    superserve: Object.freeze({
      timeout: parseChoice('PADDOCK_SUPERSERVE_TIMEOUT', read('PADDOCK_SUPERSERVE_TIMEOUT') ?? 'hard_cap', ['hard_cap', 'auto_pause']),
      previews: parseChoice('PADDOCK_SUPERSERVE_PREVIEWS', read('PADDOCK_SUPERSERVE_PREVIEWS') ?? 'legacy_public', ['legacy_public', 'public']),
      origins: parseOrigins(read('PADDOCK_SUPERSERVE_ORIGINS')),
      addressRate: parseRate('PADDOCK_SUPERSERVE_ADDRESS_RATE', read('PADDOCK_SUPERSERVE_ADDRESS_RATE') ?? '200:800'),
      teamRate: parseRate('PADDOCK_SUPERSERVE_TEAM_RATE', read('PADDOCK_SUPERSERVE_TEAM_RATE') ?? '100:400'),
    }),
    metrics: parseChoice('PADDOCK_METRICS', read('PADDOCK_METRICS') ?? 'key', ['key', 'open', 'off']),
    logLevel: parseChoice('PADDOCK_LOG_LEVEL', read('PADDOCK_LOG_LEVEL') ?? 'info', logLevels),
  });
  return { config, warnings: unknownVariables(env) };
}

function parseListen(text: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]/]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) throw new ConfigError('PADDOCK_LISTEN', `must be host:port with a port from 0 to 65535, for example 127.0.0.1:7070, but is "${text}".`);
  return Object.freeze({ host: (match[1] ?? match[2])!, port });
}

function parseDomain(text: string): string {
  const label = '[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?';
  const domain = text.toLowerCase();
  if (domain.length > 253 || !new RegExp(`^${label}(\\.${label})*$`).test(domain)) throw new ConfigError('PADDOCK_DOMAIN', `must be a domain name such as sandbox.localhost, without scheme or port, but is "${text}".`);
  return domain;
}

function parseApiKey(text: string | null): string | null {
  // Never repeats the value: the sentence ends up in logs.
  if (text !== null && !/^[\x21-\x7e]{16,256}$/.test(text)) throw new ConfigError('PADDOCK_API_KEY', 'must be 16 to 256 printable ASCII characters without spaces.');
  return text;
}

function parseChoice<T extends string>(variable: string, text: string, allowed: readonly T[]): T {
  const choice = allowed.find((each) => each === text);
  if (choice === undefined) throw new ConfigError(variable, `must be one of ${allowed.join(', ')}, but is "${text}".`);
  return choice;
}

function parseInteger(variable: string, text: string, least: number, most: number): number {
  const value = /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) throw new ConfigError(variable, `must be a whole number from ${least} to ${most}, but is "${text}".`);
  return value;
}

function parseOptionalInteger(variable: string, text: string | null, least: number, most: number): number | null {
  return text === null ? null : parseInteger(variable, text, least, most);
}

function parseSubnet(text: string | null): Subnet | null {
  if (text === null) return null;
  const wrong = (): ConfigError => new ConfigError('PADDOCK_SUBNET', `must be an IPv4 network from /16 to /20 such as 10.88.0.0/16, but is "${text}".`);
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  if (match === null) throw wrong();
  const octets = match.slice(1, 5).map(Number);
  const prefix = Number(match[5]);
  if (octets.some((octet) => octet > 255) || prefix < 16 || prefix > 20) throw wrong();
  const bits = octets.reduce((sum, octet) => sum * 256 + octet, 0);
  const size = 2 ** (32 - prefix);
  if (bits % size !== 0) {
    const start = bits - (bits % size);
    const fixed = [24, 16, 8, 0].map((shift) => Math.floor(start / 2 ** shift) % 256).join('.');
    throw new ConfigError('PADDOCK_SUBNET', `has bits set outside its prefix: write ${fixed}/${prefix} instead of "${text}".`);
  }
  return Object.freeze({ address: octets.join('.'), prefix });
}

function parseNameServers(text: string | null): readonly string[] {
  if (text === null) return Object.freeze([]);
  return Object.freeze(
    text.split(',').map((each) => {
      const server = each.trim();
      const [, bracketed, plain = '', portText = '53'] = /^(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::(\d{1,5}))?$/i.exec(server) ?? [];
      const port = Number(portText);
      if ((bracketed === undefined ? isIPv4(plain) : isIPv6(bracketed)) && port >= 1 && port <= 65_535) return `${bracketed === undefined ? plain : `[${bracketed}]`}:${port}`;
      throw new ConfigError('PADDOCK_DNS_UPSTREAM', `must be addresses of name servers, with commas between them, such as 9.9.9.9 or [2620:fe::fe]:53, but has "${server}".`);
    }),
  );
}

function parseProxy(text: string | null): string | null {
  if (text === null) return null;
  const url = URL.canParse(text) ? new URL(text) : null;
  // Never repeats the value: it may hold a password.
  if (url === null || !['http:', 'https:'].includes(url.protocol) || url.hostname === '' || url.pathname !== '/' || url.search !== '' || url.hash !== '') {
    throw new ConfigError('PADDOCK_UPSTREAM_PROXY', 'must be http://host:port or https://host:port, with user:password@ before the host if the proxy wants them.');
  }
  return url.href;
}

function parseAliases(text: string | null): Readonly<Record<string, string>> {
  const pairs = (text ?? '').split(',').map((each) => each.trim()).filter((each) => each !== '');
  return Object.freeze(
    Object.fromEntries(
      pairs.map((pair) => {
        const [, name, target] = /^([^\s=]+)=(\S+)$/.exec(pair) ?? [];
        if (name === undefined || target === undefined) throw new ConfigError('PADDOCK_IMAGE_ALIASES', `must be image=template with commas between them, such as ubuntu:22.04=base, but has "${pair}".`);
        return [name, target];
      }),
    ),
  );
}

function parseRegistries(text: string | null): readonly Endpoint[] {
  return Object.freeze((text ?? '').split(',').map((each) => each.trim()).filter((each) => each !== '').map((each) => parseRegistry('PADDOCK_INTERNAL_REGISTRIES', each)));
}

function parseMirror(text: string | null): Endpoint | null {
  return text === null ? null : parseRegistry('PADDOCK_REGISTRY_MIRROR', text);
}

function parseRegistry(variable: string, text: string): Endpoint {
  const endpoint = parseEndpoint(text);
  if (text.includes('@')) throw new ConfigError(variable, 'must not have a login in it: images are asked for with the login of their template.');
  if (endpoint === null) throw new ConfigError(variable, `must be host or host:port with a name or an IPv4 address, such as registry.example:5000 or http://10.0.0.5:5000, but has "${text}".`);
  return endpoint;
}

function parseOrigins(text: string | null): readonly string[] {
  return Object.freeze(
    (text ?? '').split(',').map((each) => each.trim()).filter((each) => each !== '').map((each) => {
      const origin = URL.canParse(each) ? new URL(each).origin : 'null';
      if (origin === 'null' || origin !== each.toLowerCase()) throw new ConfigError('PADDOCK_SUPERSERVE_ORIGINS', `must be origins, scheme://host or scheme://host:port, with commas between them, but has "${each}".`);
      return origin;
    }),
  );
}

function parseRate(variable: string, text: string): Rate | null {
  if (text === '0') return null;
  const [, perSecond, burst] = /^(\d{1,6}):(\d{1,6})$/.exec(text)?.map(Number) ?? [];
  if (!perSecond || !burst) throw new ConfigError(variable, `must be requests per second and at once, such as 100:400, or 0 for no limit, but is "${text}".`);
  return Object.freeze({ perSecond, burst });
}

function parseFile(variable: string, text: string | null): string | null {
  if (text === null) return null;
  const file = resolve(text);
  if (!existsSync(file)) throw new ConfigError(variable, `names ${file}, and there is no such file.`);
  return file;
}

function unknownVariables(env: Readonly<Record<string, string | undefined>>): string[] {
  const known = new Set(settings.map((setting) => setting.name));
  return Object.keys(env)
    .filter((name) => name.startsWith('PADDOCK_') && !known.has(name))
    .sort()
    .map((name) => {
      const near = nearest(name, [...known]);
      return near === null ? `${name} is not a setting of Paddock and is ignored.` : `${name} is not a setting of Paddock and is ignored. Did you mean ${near}?`;
    });
}

/** The known name within a third of the letters, or null. */
function nearest(name: string, known: readonly string[]): string | null {
  const stem = (text: string): string => text.slice('PADDOCK_'.length);
  let best: { name: string; distance: number } | null = null;
  for (const candidate of known) {
    const distance = editDistance(stem(name), stem(candidate));
    if (best === null || distance < best.distance) best = { name: candidate, distance };
  }
  return best !== null && best.distance <= Math.max(2, stem(best.name).length / 3) ? best.name : null;
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length]!;
}
