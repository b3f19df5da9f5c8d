import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { BuildFailure } from '../../src/core/templates/build-host.ts';
import { Internet } from '../../src/egress/testing/internet.ts';
import { UpstreamProxy } from '../../src/egress/upstream-proxy.ts';
import { type Certificates, ensureCertificates } from '../../src/gateway/certificates.ts';
import type { ImagesOptions } from '../../src/host/images/images.ts';
import { parseEndpoint } from '../../src/host/images/registry/endpoint.ts';
import { architecture, blobOf, type BuiltImage, file, ImageBench, imageOf, indexOf, layerOf, ociIndex, ociManifest, unpackersOf } from '../harness/images.ts';
import { TestRegistry, sendBlob } from '../harness/registry.ts';

const hub = 'registry.example';
const other = 'blobs.example';
let certificates: Certificates;
let scratch = '';
before(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'paddock-registry-'));
  certificates = await ensureCertificates(scratch, [hub, other, 'registry-1.docker.io']);
});
after(() => rmSync(scratch, { recursive: true, force: true }));

function fails(code: BuildFailure['code'], text: RegExp): (reason: unknown) => boolean {
  return (reason) => {
    assert.ok(reason instanceof BuildFailure, String((reason as Error).stack));
    assert.deepEqual({ code: reason.code, says: text.test(reason.message) }, { code, says: true }, reason.message);
    return true;
  };
}

const small = (): BuiltImage => imageOf([layerOf(file('hello', 'world'))], { config: { Env: ['PATH=/bin', 'BAD-NAME=x', 'EMPTY='], WorkingDir: '/srv', User: '1000:1000', Entrypoint: ['/bin/sh', '-c'], Cmd: ['run'] } });

/** Names that lead to this machine, where the registries of a test are. */
function benchFor(registries: readonly TestRegistry[], options: Partial<ImagesOptions> = {}, names: readonly string[] = [hub, other]): ImageBench {
  const internalRegistries = registries.flatMap(({ port }) => names.map((name) => parseEndpoint(`${name}:${port}`)!));
  return new ImageBench({ internalRegistries, extraCaFile: certificates.authorityFile, resolve: () => Promise.resolve(['127.0.0.1']), ...options });
}

describe('a registry', () => {
  test('gives an image over https: configuration, digest, tree and progress', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    const image = small();
    registry.put(image, '1.0');
    const found = await bench.images.find(bench.request(`${hub}:${registry.port}/team/app:1.0`), AbortSignal.timeout(20_000));
    assert.equal(found.digest, image.manifest.digest);
    assert.deepEqual(found.config, { env: { PATH: '/bin', EMPTY: '' }, workdir: '/srv', user: '1000:1000', entrypoint: ['/bin/sh', '-c'], cmd: ['run'] });
    const tree = bench.emptyDirectory();
    await found.unpack(tree, AbortSignal.timeout(20_000));
    assert.equal(readFileSync(join(tree, 'hello'), 'utf8'), 'world');
    assert.deepEqual(bench.progress, ['pulling layer 1 of 1', 'pulled layer 1 of 1, 0.0 MiB']);
    assert.deepEqual([...new Set(registry.asked.map(({ path }) => path.replace(/sha256:.*/, '')))], ['/v2/team/app/manifests/1.0', '/v2/team/app/blobs/', '/v2/team/app/manifests/']);
  });

  test('with several platforms gives the one for this machine, and says what there is when there is none', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    const image = small();
    registry.put(image, 'unused');
    const foreign = imageOf([], { platform: { architecture: 'riscv64' } }).manifest;
    registry.putManifest(indexOf({ image: foreign, os: 'linux', architecture: 'riscv64' }, { image: foreign, os: 'unknown', architecture: 'unknown' }, { image: image.manifest, os: 'linux', architecture }), 'many', ociIndex);
    registry.putManifest(indexOf({ image: foreign, os: 'linux', architecture: 'arm', variant: 'v7' }, { image: foreign, os: 'windows', architecture }), 'none', ociIndex);
    const wrong = imageOf([], { platform: { architecture: 'riscv64' } });
    registry.put(wrong, 'single');
    const at = `${hub}:${registry.port}/app`;
    assert.equal((await bench.images.find(bench.request(`${at}:many`), AbortSignal.timeout(20_000))).digest, image.manifest.digest);
    await assert.rejects(bench.pull(`${at}:none`), fails('unsupported_platform', new RegExp(`not there for linux/${architecture}; there is linux/arm/v7, windows/${architecture}$`)));
    await assert.rejects(bench.pull(`${at}:single`), fails('unsupported_platform', /is for linux\/riscv64; this machine needs linux\//));
  });

  test('may speak the older forms of Docker, and an unknown form is named', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    const manifest = 'application/vnd.docker.distribution.manifest.v2+json';
    const image = imageOf([layerOf(file('a'))], { mediaTypes: { manifest, config: 'application/vnd.docker.container.image.v1+json', layer: 'application/vnd.docker.image.rootfs.diff.tar.gzip' } });
    registry.put(image, 'docker');
    registry.putManifest(image.manifest, 'docker', manifest);
    registry.put(imageOf([layerOf(file('a'))], { mediaTypes: { manifest: ociManifest, config: 'application/vnd.cncf.helm.config.v1+json', layer: 'x/y' } }), 'chart');
    registry.put(imageOf([layerOf(file('a'))], { mediaTypes: { manifest: ociManifest, config: 'application/vnd.oci.image.config.v1+json', layer: 'application/vnd.oci.image.layer.v1.tar+encrypted' } }), 'locked');
    registry.putManifest(blobOf({ schemaVersion: 1, fsLayers: [] }), 'old');
    registry.putManifest(blobOf({ schemaVersion: 2, mediaType: ociManifest, manifests: [], layers: [] }), 'both');
    const at = `${hub}:${registry.port}/app`;
    assert.deepEqual(readdirSync(await bench.pull(`${at}:docker`)), ['a']);
    await assert.rejects(bench.pull(`${at}:chart`), fails('image_pull_failed', /is no container image: its configuration is of the kind application\/vnd\.cncf\.helm/));
    await assert.rejects(bench.pull(`${at}:locked`), fails('image_pull_failed', /has a layer of the kind .*\+encrypted, which cannot be unpacked here/));
    await assert.rejects(bench.pull(`${at}:old`), fails('image_pull_failed', /is of an old form/));
    await assert.rejects(bench.pull(`${at}:both`), fails('image_pull_failed', /is neither an image nor an index/));
    await assert.rejects(bench.pull(`${at}:missing`), fails('image_pull_failed', new RegExp(`^${hub}:\\d+ answered 404: it has no missing: MANIFEST_UNKNOWN, manifest unknown$`)));
  });

  test('that asks for a token gets one asked for, anonymously and with a login', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    registry.put(small(), 'latest');
    registry.guard = ({ headers }) => headers.authorization === 'Bearer the-token';
    registry.challenge = `Bearer realm="https://${other}:${registry.port}/token",service="the, \\"service\\"",scope="repository:app:pull,push repository:others:*"`;
    registry.tricks.set('/token', (_request, response) => void response.end('{"token":"the-token"}'));
    await bench.pull(`${hub}:${registry.port}/app`);
    const anonymous = registry.asked.find(({ path }) => path.startsWith('/token'))!;
    assert.deepEqual(new URL(anonymous.path, 'http://x').searchParams.getAll('scope'), ['repository:app:pull']);
    assert.deepEqual(new URL(anonymous.path, 'http://x').searchParams.getAll('service'), ['the, "service"']);
    assert.equal(anonymous.authorization, null);
    registry.asked.length = 0;
    await bench.pull(`${hub}:${registry.port}/app`, { login: { username: 'me', password: 'pässword' } });
    for (const { path, host, authorization } of registry.asked) {
      if (path.startsWith('/token')) assert.deepEqual([host, authorization], [`${other}:${registry.port}`, `Basic ${Buffer.from('me:pässword').toString('base64')}`]);
      else assert.ok(authorization === null || authorization === 'Bearer the-token', authorization ?? '');
    }
  });

  test('that takes the login itself gets it only when it asks, and its refusal is told without the password', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    registry.put(small(), 'latest');
    registry.guard = ({ headers }) => headers.authorization === `Basic ${Buffer.from('me:right').toString('base64')}`;
    registry.challenge = 'Basic realm="here"';
    const at = `${hub}:${registry.port}/app`;
    await bench.pull(at, { login: { username: 'me', password: 'right' } });
    assert.equal(registry.asked[0]!.authorization, null);
    await assert.rejects(bench.pull(at), fails('image_pull_failed', /answered 401: it wants a login/));
    await assert.rejects(bench.pull(at, { login: { username: 'me', password: 'wrong-one' } }), (reason) => fails('image_pull_failed', /answered 401/)(reason) && !String(reason).includes('wrong-one'));
  });

  test('is asked by digest when the reference has one, and must send exactly that', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    const image = small();
    registry.put(image, 'latest');
    const at = `${hub}:${registry.port}/app`;
    await bench.pull(`${at}:ignored@${image.manifest.digest}`);
    registry.putManifest({ digest: image.manifest.digest, bytes: blobOf({ other: true }).bytes }, null);
    await assert.rejects(bench.pull(`${at}@${image.manifest.digest}`), fails('image_pull_failed', /sent something else for sha256:/));
  });

  test('leads to another host for blobs, which gets no login', async () => {
    await using registry = await TestRegistry.open(certificates);
    await using storage = await TestRegistry.open(certificates);
    using bench = benchFor([registry, storage]);
    const image = small();
    registry.put(image, 'latest');
    registry.guard = ({ headers }) => headers.authorization !== undefined;
    registry.challenge = 'Basic realm="here"';
    storage.put(image, 'latest');
    for (const { digest } of image.blobs) registry.tricks.set(`/blobs/${digest}`, (_request, response) => void response.writeHead(307, { location: `https://${other}:${storage.port}/x/blobs/${digest}` }).end());
    await bench.pull(`${hub}:${registry.port}/app`, { login: { username: 'me', password: 'secret' } });
    assert.ok(storage.asked.length >= 2);
    assert.deepEqual([...new Set(storage.asked.map(({ authorization }) => authorization))], [null]);
    assert.ok(registry.asked.some(({ authorization }) => authorization !== null));
  });

  test('may break connections: a layer goes on where it stopped, twice', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    const image = imageOf([layerOf(file('big', randomBytes(3_000_000)))]);
    registry.put(image, 'latest');
    const layer = image.layers[0]!;
    registry.tricks.set(`/blobs/${layer.digest}`, (request, response, count) => {
      if (count >= 2) return false;
      const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
      response.writeHead(from === 0 ? 200 : 206, { 'content-length': layer.bytes.length - from, ...(from === 0 ? {} : { 'content-range': `bytes ${from}-${layer.bytes.length - 1}/${layer.bytes.length}` }) });
      response.write(layer.bytes.subarray(from, from + 1_000_000), () => setTimeout(() => response.destroy(), 50));
      return true;
    });
    const tree = await bench.pull(`${hub}:${registry.port}/app`);
    assert.equal(readFileSync(join(tree, 'big')).length, 3_000_000);
    const ranges = registry.asked.filter(({ path }) => path.endsWith(layer.digest)).map(({ range }) => range);
    assert.equal(ranges.length, 3);
    assert.equal(ranges[0], null);
    assert.match(ranges[2] ?? '', /^bytes=[1-9]\d+-$/);
  });

  test('that ignores ranges is asked from the beginning, and what came before is skipped', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    const image = imageOf([layerOf(file('big', randomBytes(500_000)))]);
    registry.put(image, 'latest');
    const layer = image.layers[0]!;
    registry.tricks.set(`/blobs/${layer.digest}`, (_request, response, count) => {
      if (count > 0) {
        sendBlob(response, layer.bytes, null);
        return;
      }
      response.writeHead(200, { 'content-length': layer.bytes.length });
      response.write(layer.bytes.subarray(0, 200_000), () => setTimeout(() => response.destroy(), 50));
    });
    assert.equal(readFileSync(join(await bench.pull(`${hub}:${registry.port}/app`), 'big')).length, 500_000);
  });

  test('that is busy is asked again twice, and then its answer is told', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    registry.put(small(), 'latest');
    registry.tricks.set('/manifests/latest', (_request, response, count) => (count < 2 ? void response.writeHead(503).end() : false));
    await bench.pull(`${hub}:${registry.port}/app`);
    registry.tricks.set('/manifests/busy', (_request, response) => void response.writeHead(429, { 'retry-after': '0' }).end());
    await assert.rejects(bench.pull(`${hub}:${registry.port}/app:busy`), fails('image_pull_failed', /answered 429: too many requests, try again later or give a login/));
    assert.equal(registry.count('/manifests/busy'), 3);
  });
});

describe('a hostile registry', () => {
  const plain = { compress: (tar: Buffer): Buffer => tar };
  const image = imageOf([layerOf(file('a', randomBytes(100_000)))], plain);
  const another = imageOf([layerOf(file('a', randomBytes(100_000)))], plain);
  const layer = image.layers[0]!;
  const tricks: readonly [title: string, end: string, trick: (response: import('node:http').ServerResponse) => void, text: RegExp][] = [
    ['with another layer of the same size', layer.digest, (response) => response.end(another.layers[0]!.bytes), /sent something else for sha256:.*: its digest is sha256:/],
    ['with something that is no layer', layer.digest, (response) => response.end(Buffer.alloc(layer.bytes.length, 1)), /layer 1 of 1: is no tar|sent something else for sha256:/],
    ['with a configuration of another digest', image.config.digest, (response) => response.end(Buffer.alloc(image.config.bytes.length, 0x20)), /sent something else for sha256:/],
    ['with a blob that is longer than announced', layer.digest, (response) => response.end(Buffer.concat([layer.bytes, Buffer.alloc(10)])), /has \d+ bytes for sha256:.*, which has \d+/],
    ['with a blob that is longer, without saying so', layer.digest, (response) => void (response.write(layer.bytes), response.end(Buffer.alloc(10))), /sent more than the \d+ bytes/],
    ['with a blob that is cut short every time', layer.digest, (response) => void (response.write(layer.bytes.subarray(0, 10)), response.end()), /could not be reached: the answer ended after 10 of \d+ bytes/],
    ['with a blob that never goes on', layer.digest, (response) => void (response.writeHead(200, { 'content-length': layer.bytes.length }), response.write(layer.bytes.subarray(0, 10))), /could not be reached: no answer in time/],
    ['with an answer that never begins', '/manifests/latest', () => {}, /could not be reached: no answer in time/],
    ['with a manifest that never ends', '/manifests/latest', (response) => void endless(response), /the manifest from .* is longer than 4194304 bytes/],
    ['with a manifest that is no JSON', '/manifests/latest', (response) => response.end('root:x:0:0:'), /is no JSON object$/],
    ['with redirects in a circle', layer.digest, (response) => response.writeHead(302, { location: '?again' }).end(), /redirects more than 5 times/],
    ['with a redirect to nowhere', layer.digest, (response) => response.writeHead(302).end(), /redirects to nowhere/],
    ['with a redirect to a file', layer.digest, (response) => response.writeHead(302, { location: 'file:///etc/passwd' }).end(), /redirects from https to file:/],
    ['with a redirect to plain http', layer.digest, (response) => response.writeHead(302, { location: 'http://93.184.216.34/' }).end(), /redirects from https to http:/],
    ['with a redirect to a private address', layer.digest, (response) => response.writeHead(302, { location: 'https://10.0.0.1/x' }).end(), /10\.0\.0\.1 is at 10\.0\.0\.1, an address that is not of the internet \(private\)/],
    ["with a redirect to a cloud's metadata", layer.digest, (response) => response.writeHead(302, { location: 'https://169.254.169.254/latest' }).end(), /not of the internet \(link-local/],
    ['with a redirect to an address in another spelling', layer.digest, (response) => response.writeHead(302, { location: 'https://0x7f.1/' }).end(), /127\.0\.0\.1 is at 127\.0\.0\.1, .* \((loopback|this machine's own)\)/],
    ['with a redirect to an IPv6 address', layer.digest, (response) => response.writeHead(302, { location: 'https://[::1]/' }).end(), /is no host that images can come from/],
    ['with a redirect to a login', layer.digest, (response) => response.writeHead(302, { location: 'https://me:pw@93.184.216.34/' }).end(), /is no host that images can come from/],
    ['with a redirect to a name that leads to this machine', layer.digest, (response) => response.writeHead(302, { location: 'https://sly.example/' }).end(), /sly\.example is at 127\.0\.0\.1/],
  ];
  for (const [title, end, trick, text] of tricks) {
    test(title, async () => {
      await using registry = await TestRegistry.open(certificates);
      using bench = benchFor([registry]);
      registry.put(image, 'latest');
      registry.tricks.set(end, (_request, response) => trick(response));
      await assert.rejects(bench.pull(`${hub}:${registry.port}/app`), fails('image_pull_failed', text));
      assert.deepEqual(unpackersOf(bench.dir), []);
    });
  }

  test('that asks for a token at a private address, or over http, is refused', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    registry.guard = () => false;
    for (const [realm, text] of [['https://192.168.0.1/token', /\(private\)/], ['http://93.184.216.34/token', /plain http/], ['nonsense', /names nobody who gives tokens/]] as const) {
      registry.challenge = `Bearer realm="${realm}"`;
      await assert.rejects(bench.pull(`${hub}:${registry.port}/app`, { login: { username: 'me', password: 'pw' } }), fails('image_pull_failed', text));
    }
  });

  test('with more and larger layers than allowed is refused before anything of them is read', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry]);
    registry.put(image, 'latest');
    const many = { ...JSON.parse(image.manifest.bytes.toString()), layers: Array.from({ length: 129 }, () => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: layer.digest, size: 1 })) };
    registry.putManifest(blobOf(many), 'many');
    const large = { ...many, layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: layer.digest, size: 9e12 }] };
    registry.putManifest(blobOf(large), 'large');
    await assert.rejects(bench.pull(`${hub}:${registry.port}/app:many`), fails('image_pull_failed', /has no list of at most 128 layers/));
    await assert.rejects(bench.pull(`${hub}:${registry.port}/app:large`), fails('image_too_large', /has layers of 9000000000000 bytes/));
    assert.equal(registry.count(layer.digest), 0);
  });

  test('is given up at once when the caller gives up, and leaves no process', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry], { patience: {} });
    registry.put(image, 'latest');
    const abort = new AbortController();
    registry.tricks.set(layer.digest, (_request, response) => {
      response.writeHead(200, { 'content-length': layer.bytes.length });
      response.write(layer.bytes.subarray(0, 1000));
      setTimeout(() => abort.abort(new Error('given up')), 200);
    });
    await assert.rejects(bench.pull(`${hub}:${registry.port}/app`, {}, abort.signal), /given up/);
    assert.deepEqual(unpackersOf(bench.dir), []);
  });
});

describe('where images may come from', () => {
  test('a registry at a private address is refused unless the operator names it', async () => {
    await using registry = await TestRegistry.open(certificates);
    registry.put(small(), 'latest');
    using closed = benchFor([]);
    await assert.rejects(closed.pull(`${hub}:${registry.port}/app`), fails('image_pull_failed', /registry\.example:\d+ is at 127\.0\.0\.1, an address that is not of the internet .*PADDOCK_INTERNAL_REGISTRIES/));
    await assert.rejects(closed.pull(`127.0.0.1:${registry.port}/app`), fails('image_pull_failed', /not of the internet/));
    await assert.rejects(closed.pull(`localhost:${registry.port}/app`), fails('image_pull_failed', /not of the internet/));
    assert.equal(registry.asked.length, 0);
    using named = benchFor([registry], {}, [hub]);
    await named.pull(`${hub}:${registry.port}/app`);
    // Named are host and port together.
    await assert.rejects(named.pull(`${other}:${registry.port}/app`), fails('image_pull_failed', /not of the internet/));
  });

  test('plain http is for registries that the operator names with http://', async () => {
    await using registry = await TestRegistry.open();
    registry.put(small(), 'latest');
    using secure = benchFor([registry]);
    await assert.rejects(secure.pull(`${hub}:${registry.port}/app`), fails('image_pull_failed', /could not be reached/));
    assert.equal(registry.asked.length, 0);
    using plain = benchFor([], { internalRegistries: [parseEndpoint(`http://${hub}:${registry.port}`)!] });
    await plain.pull(`${hub}:${registry.port}/app`);
  });

  test('a certificate that nobody vouches for is refused', async () => {
    await using registry = await TestRegistry.open(certificates);
    using bench = benchFor([registry], { extraCaFile: null });
    await assert.rejects(bench.pull(`${hub}:${registry.port}/app`), fails('image_pull_failed', /could not be reached: .*certificate/));
    using named = benchFor([registry], {}, ['unnamed.example']);
    await assert.rejects(named.pull(`unnamed.example:${registry.port}/app`), fails('image_pull_failed', /could not be reached: .*altnames/));
  });

  test('a mirror is asked instead of Docker Hub, except with a login, which is not for it', async () => {
    await using registry = await TestRegistry.open(certificates);
    registry.put(small(), '12');
    using bench = benchFor([], { mirror: parseEndpoint(`https://${hub}:${registry.port}`)! });
    await bench.pull('debian:12');
    assert.equal(registry.asked[0]!.path, '/v2/library/debian/manifests/12');
    const before = registry.asked.length;
    await assert.rejects(bench.pull('debian:12', { login: { username: 'me', password: 'pw' } }), fails('image_pull_failed', /registry-1\.docker\.io is at 127\.0\.0\.1/));
    assert.equal(registry.asked.length, before);
  });

  test('a registry of the internet is dialled at the address that was judged, each time anew', async () => {
    const internet = await Internet.open(randomBytes(6).toString('hex'));
    try {
      await using registry = await TestRegistry.open(certificates, internet.listen(443));
      const image = small();
      registry.put(image, 'latest');
      registry.tricks.set(`/app/blobs/${image.layers[0]!.digest}`, (_request, response) => void response.writeHead(302, { location: `https://${other}/elsewhere/blobs/${image.layers[0]!.digest}` }).end());
      // A name may have several addresses; those inside are not tried.
      using bench = benchFor([], { resolve: (name) => Promise.resolve(name === hub ? ['10.0.0.1', '169.254.169.254', internet.host(10)] : [internet.host(11)]) });
      assert.deepEqual(readdirSync(await bench.pull(`${hub}/app`)), ['hello']);
      assert.deepEqual([...new Set(registry.asked.map(({ host }) => host))], [hub, other]);
      let asked = 0;
      using rebinding = benchFor([], { resolve: () => Promise.resolve([asked++ === 0 ? internet.host(10) : '127.0.0.1']) });
      const found = await rebinding.images.find(rebinding.request(`${hub}/app`), AbortSignal.timeout(20_000));
      await assert.rejects(found.unpack(rebinding.emptyDirectory(), AbortSignal.timeout(20_000)), fails('image_pull_failed', /registry\.example is at 127\.0\.0\.1/));
    } finally {
      await internet.close();
    }
  });

  test("the company's proxy is given the address that was judged, and the login goes on inside TLS", async () => {
    await using registry = await TestRegistry.open(certificates);
    registry.put(small(), '12');
    const asked: string[] = [];
    const proxy = createServer((client) => {
      client.on('error', () => {});
      client.once('data', (head: Buffer) => {
        asked.push(head.toString('latin1').split('\r\n', 1)[0]!);
        const onward = connect(registry.port, '127.0.0.1', () => {
          client.write('HTTP/1.1 200 OK\r\n\r\n');
          client.pipe(onward).pipe(client);
        });
        onward.on('error', () => client.destroy());
      });
    }).listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    const uplink = new UpstreamProxy(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`, null);
    using bench = benchFor([], { uplink, resolve: () => Promise.resolve(['10.1.2.3', '93.184.216.34']) });
    assert.deepEqual(readdirSync(await bench.pull('debian:12')), ['hello']);
    assert.deepEqual([...new Set(asked)], ['CONNECT 93.184.216.34:443 HTTP/1.1']);
    assert.equal(registry.asked[0]!.host, 'registry-1.docker.io');
    // A registry of the internet must not lead to one that the operator has named.
    registry.tricks.set('/manifests/sly', (_request, response) => void response.writeHead(302, { location: `https://${other}:${registry.port}/x` }).end());
    using sly = benchFor([registry], { uplink, resolve: (name) => Promise.resolve([name === other ? '127.0.0.1' : '93.184.216.34']) });
    await assert.rejects(sly.pull('debian:sly'), fails('image_pull_failed', /a registry of the internet leads to blobs\.example:\d+, which is internal/));
    proxy.close();
  });
});

function endless(response: import('node:http').ServerResponse): void {
  const block = Buffer.alloc(65_536, 0x20);
  const more = (): void => {
    while (!response.destroyed && response.write(block));
    if (!response.destroyed) response.once('drain', more);
  };
  more();
}
