import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { VolumeStoreConfig } from './config-volume-store.ts';
import { ConfigError, parseConfig, settings } from './config.ts';

test('an empty environment gives the documented defaults', () => {
  const { config, warnings } = parseConfig({});
  assert.deepEqual(config, {
    listen: { host: '127.0.0.1', port: 7070 },
    dataDir: '/var/lib/paddock',
    artefactsDir: '/var/lib/paddock',
    masterKeyFile: null,
    maxSecrets: 1000,
    domain: 'sandbox.localhost',
    apiKey: null,
    runsc: null,
    unknownTemplate: 'reject',
    maxSandboxes: 256,
    maxTimeoutSeconds: 0,
    warmGuests: 0,
    kept: { memoryMb: null, seconds: 600 },
    snapshots: { max: 100, diskMb: 0 },
    volumes: { max: 100, mb: 4096 },
    volumeStore: null,
    templates: {
      max: 50, maxVcpus: 10, maxMemoryMb: 20_480, maxDiskMb: 102_400, maxImageMb: 10_240, buildsAtOnce: 2, buildsPerTeam: 5, buildSeconds: 1800, allowOut: [], imageAliases: {}, registryLoginsFile: null,
    },
    subnet: null,
    egress: { dnsUpstreams: [], upstreamProxy: null, extraCaFile: null },
    images: { internalRegistries: [], mirror: null },
    unscanned: 'refuse',
    networkLogDays: 7,
    superserve: { timeout: 'hard_cap', previews: 'legacy_public', origins: [], addressRate: { perSecond: 200, burst: 800 }, teamRate: { perSecond: 100, burst: 400 } },
    metrics: 'key',
    logLevel: 'info',
  });
  assert.deepEqual(warnings, []);
  assert.ok(Object.isFrozen(config));
});

test('the artefacts lie in the data directory unless said otherwise', () => {
  assert.equal(parseConfig({ PADDOCK_DATA_DIR: '/x' }).config.artefactsDir, '/x');
  assert.equal(parseConfig({ PADDOCK_DATA_DIR: '/x', PADDOCK_ARTEFACTS_DIR: '/y' }).config.artefactsDir, '/y');
});

const accepted: [string, string, (config: ReturnType<typeof parseConfig>['config']) => unknown, unknown][] = [
  ['PADDOCK_LISTEN', '[::1]:80', (config) => config.listen, { host: '::1', port: 80 }],
  ['PADDOCK_LISTEN', 'localhost:0', (config) => config.listen, { host: 'localhost', port: 0 }],
  ['PADDOCK_MASTER_KEY_FILE', '/run/keys/master', (config) => config.masterKeyFile, '/run/keys/master'],
  ['PADDOCK_MAX_SECRETS', '0', (config) => config.maxSecrets, 0],
  ['PADDOCK_DOMAIN', 'Boxes.Example.COM', (config) => config.domain, 'boxes.example.com'],
  ['PADDOCK_UNKNOWN_TEMPLATE', 'base', (config) => config.unknownTemplate, 'base'],
  ['PADDOCK_SUBNET', '10.88.16.0/20', (config) => config.subnet, { address: '10.88.16.0', prefix: 20 }],
  ['PADDOCK_DNS_UPSTREAM', '9.9.9.9, 127.0.0.1:5353,[2620:fe::fe]', (config) => config.egress.dnsUpstreams, ['9.9.9.9:53', '127.0.0.1:5353', '[2620:fe::fe]:53']],
  ['PADDOCK_UPSTREAM_PROXY', 'http://me:pw@proxy.example:3128', (config) => config.egress.upstreamProxy, 'http://me:pw@proxy.example:3128/'],
  ['PADDOCK_EXTRA_CA_FILE', '/etc/passwd', (config) => config.egress.extraCaFile, '/etc/passwd'],
  ['PADDOCK_INTERNAL_REGISTRIES', 'Reg.example, http://10.0.0.5:5000', (config) => config.images.internalRegistries, [{ secure: true, host: 'reg.example', port: 443 }, { secure: false, host: '10.0.0.5', port: 5000 }]],
  ['PADDOCK_REGISTRY_MIRROR', 'https://mirror.example:8443', (config) => config.images.mirror, { secure: true, host: 'mirror.example', port: 8443 }],
  ['PADDOCK_UNSCANNED', 'pass', (config) => config.unscanned, 'pass'],
  ['PADDOCK_NETWORK_LOG_DAYS', '30', (config) => config.networkLogDays, 30],
  ['PADDOCK_SUPERSERVE_TIMEOUT', 'auto_pause', (config) => config.superserve.timeout, 'auto_pause'],
  ['PADDOCK_SUPERSERVE_PREVIEWS', 'public', (config) => config.superserve.previews, 'public'],
  ['PADDOCK_SUPERSERVE_ORIGINS', 'https://A.example, http://b.example:8080', (config) => config.superserve.origins, ['https://a.example', 'http://b.example:8080']],
  ['PADDOCK_SUPERSERVE_TEAM_RATE', '5:10', (config) => config.superserve.teamRate, { perSecond: 5, burst: 10 }],
  ['PADDOCK_SUPERSERVE_ADDRESS_RATE', '0', (config) => config.superserve.addressRate, null],
  ['PADDOCK_MAX_TEMPLATES', '0', (config) => config.templates.max, 0],
  ['PADDOCK_BUILD_TIMEOUT', '60', (config) => config.templates.buildSeconds, 60],
  ['PADDOCK_BUILD_ALLOW_OUT', 'mirror.example.org, 198.51.100.0/24', (config) => config.templates.allowOut, ['mirror.example.org', '198.51.100.0/24']],
  ['PADDOCK_IMAGE_ALIASES', 'ubuntu:22.04=base, python:3.11=oci:/srv/py', (config) => config.templates.imageAliases, { 'ubuntu:22.04': 'base', 'python:3.11': 'oci:/srv/py' }],
  ['PADDOCK_WARM_GUESTS', ' 4 ', (config) => config.warmGuests, 4],
  ['PADDOCK_KEPT_MEMORY', '0', (config) => config.kept.memoryMb, 0],
  ['PADDOCK_KEPT_SECONDS', '5', (config) => config.kept.seconds, 5],
  ['PADDOCK_MAX_SNAPSHOTS', '3', (config) => config.snapshots.max, 3],
  ['PADDOCK_MAX_SNAPSHOT_DISK', '4096', (config) => config.snapshots.diskMb, 4096],
  ['PADDOCK_MAX_SANDBOXES', '', (config) => config.maxSandboxes, 256],
];
for (const [name, value, pick, expected] of accepted) {
  test(`${name}=${value} is understood`, () => {
    assert.deepEqual(pick(parseConfig({ [name]: value }).config), expected);
  });
}

const refused: [string, string, string][] = [
  ['PADDOCK_LISTEN', '7070', 'PADDOCK_LISTEN must be host:port with a port from 0 to 65535, for example 127.0.0.1:7070, but is "7070".'],
  ['PADDOCK_LISTEN', 'a:70000', 'PADDOCK_LISTEN must be host:port with a port from 0 to 65535, for example 127.0.0.1:7070, but is "a:70000".'],
  ['PADDOCK_DOMAIN', 'http://x', 'PADDOCK_DOMAIN must be a domain name such as sandbox.localhost, without scheme or port, but is "http://x".'],
  ['PADDOCK_API_KEY', 'short', 'PADDOCK_API_KEY must be 16 to 256 printable ASCII characters without spaces.'],
  ['PADDOCK_UNKNOWN_TEMPLATE', 'maybe', 'PADDOCK_UNKNOWN_TEMPLATE must be one of reject, base, but is "maybe".'],
  ['PADDOCK_MAX_SANDBOXES', '0', 'PADDOCK_MAX_SANDBOXES must be a whole number from 1 to 4000, but is "0".'],
  ['PADDOCK_MAX_TIMEOUT', '1h', 'PADDOCK_MAX_TIMEOUT must be a whole number from 0 to 315360000, but is "1h".'],
  ['PADDOCK_SUBNET', '10.0.0.0/8', 'PADDOCK_SUBNET must be an IPv4 network from /16 to /20 such as 10.88.0.0/16, but is "10.0.0.0/8".'],
  ['PADDOCK_SUBNET', '10.88.1.0/16', 'PADDOCK_SUBNET has bits set outside its prefix: write 10.88.0.0/16 instead of "10.88.1.0/16".'],
  ['PADDOCK_DNS_UPSTREAM', '9.9.9.9,dns.example', 'PADDOCK_DNS_UPSTREAM must be addresses of name servers, with commas between them, such as 9.9.9.9 or [2620:fe::fe]:53, but has "dns.example".'],
  ['PADDOCK_DNS_UPSTREAM', '9.9.9.9:0', 'PADDOCK_DNS_UPSTREAM must be addresses of name servers, with commas between them, such as 9.9.9.9 or [2620:fe::fe]:53, but has "9.9.9.9:0".'],
  ['PADDOCK_UPSTREAM_PROXY', 'socks5://me:secret@p:1080', 'PADDOCK_UPSTREAM_PROXY must be http://host:port or https://host:port, with user:password@ before the host if the proxy wants them.'],
  ['PADDOCK_UPSTREAM_PROXY', 'proxy:3128', 'PADDOCK_UPSTREAM_PROXY must be http://host:port or https://host:port, with user:password@ before the host if the proxy wants them.'],
  ['PADDOCK_INTERNAL_REGISTRIES', 'a.example,ftp://b.example', 'PADDOCK_INTERNAL_REGISTRIES must be host or host:port with a name or an IPv4 address, such as registry.example:5000 or http://10.0.0.5:5000, but has "ftp://b.example".'],
  ['PADDOCK_REGISTRY_MIRROR', 'https://me:secret@a.example', 'PADDOCK_REGISTRY_MIRROR must not have a login in it: images are asked for with the login of their template.'],
  ['PADDOCK_REGISTRY_MIRROR', '127.1:5000', 'PADDOCK_REGISTRY_MIRROR must be host or host:port with a name or an IPv4 address, such as registry.example:5000 or http://10.0.0.5:5000, but has "127.1:5000".'],
  ['PADDOCK_EXTRA_CA_FILE', '/no/such/ca.pem', 'PADDOCK_EXTRA_CA_FILE names /no/such/ca.pem, and there is no such file.'],
  ['PADDOCK_UNSCANNED', 'open', 'PADDOCK_UNSCANNED must be one of refuse, pass, but is "open".'],
  ['PADDOCK_VOLUME_STORE', 's3://Bucket/../x', 'PADDOCK_VOLUME_STORE must be s3://bucket or s3://bucket/prefix, of letters, digits, ".", "_" and "-", but is "s3://Bucket/../x".'],
  ['PADDOCK_VOLUME_STORE', 's3://bucket/a/../b', 'PADDOCK_VOLUME_STORE must be s3://bucket or s3://bucket/prefix, of letters, digits, ".", "_" and "-", but is "s3://bucket/a/../b".'],
  ['PADDOCK_VOLUME_STORE', 's3://bucket', 'PADDOCK_VOLUME_STORE needs a key: name a file in PADDOCK_VOLUME_STORE_CREDENTIALS, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.'],
  ['PADDOCK_NETWORK_LOG_DAYS', '0', 'PADDOCK_NETWORK_LOG_DAYS must be a whole number from 1 to 90, but is "0".'],
  ['PADDOCK_LOG_LEVEL', 'loud', 'PADDOCK_LOG_LEVEL must be one of fatal, error, warn, info, debug, trace, silent, but is "loud".'],
];
for (const [name, value, message] of refused) {
  test(`${name}=${value} is refused with a sentence`, () => {
    assert.throws(() => parseConfig({ [name]: value }), (error: unknown) => error instanceof ConfigError && error.message === message);
  });
}

test('an object store for volumes is understood, and its endpoint never repeated', () => {
  const env = { PADDOCK_VOLUME_STORE: 's3://bucket//a/b/', AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret' };
  assert.deepEqual(parseConfig(env).config.volumeStore, { bucket: 'bucket', prefix: 'a/b/', endpoint: null, region: 'us-east-1', pathStyle: false, credentialsFile: null, key: { accessKeyId: 'id', secretAccessKey: 'secret', sessionToken: null } });
  const other = parseConfig({ ...env, PADDOCK_VOLUME_STORE: 's3://bucket', PADDOCK_VOLUME_STORE_ENDPOINT: 'http://10.0.0.5:9000/', PADDOCK_VOLUME_STORE_REGION: 'eu-1' }).config.volumeStore as VolumeStoreConfig;
  assert.deepEqual([other.prefix, other.endpoint, other.region, other.pathStyle], ['', 'http://10.0.0.5:9000', 'eu-1', true]);
  for (const [name, value] of [['ENDPOINT', 'https://id:secret@s3.example'], ['ENDPOINT', 's3.example'], ['REGION', 'EU 1'], ['PATH_STYLE', 'maybe']]) {
    assert.throws(() => parseConfig({ ...env, [`PADDOCK_VOLUME_STORE_${name}`]: value }), (error: unknown) => error instanceof ConfigError && error.message.startsWith(`PADDOCK_VOLUME_STORE_${name} must be`) && !error.message.includes('secret'));
  }
});

test('a variable that nobody reads is reported with the nearest name', () => {
  assert.deepEqual(parseConfig({ PADDOCK_LISTN: 'x', PADDOCK_COLOUR_OF_THE_SHED: 'red', HOME: '/' }).warnings, [
    'PADDOCK_COLOUR_OF_THE_SHED is not a setting of Paddock and is ignored.',
    'PADDOCK_LISTN is not a setting of Paddock and is ignored. Did you mean PADDOCK_LISTEN?',
  ]);
});

test('every variable that is parsed is described', () => {
  assert.equal(new Set(settings.map((setting) => setting.name)).size, settings.length);
  for (const setting of settings) {
    assert.match(setting.name, /^PADDOCK_[A-Z_]+$/);
    assert.ok(setting.meaning.endsWith('.'), setting.name);
  }
});
