import { chmod, chown, lstat, readdir, realpath, utimes } from 'node:fs/promises';
import { dirname } from 'node:path';
import { BuildFailure, type ImageRequest } from '../../core/templates/build-host.ts';
import { locateInDockerArchive } from './docker-archive.ts';
import { decompressed, reported } from './layers.ts';
import { locateInLayout } from './layout.ts';
import { type Layer, locate, type LocatedImage } from './locate.ts';
import { describeReference, dockerHub, parseReference, type RegistryReference } from './reference.ts';
import { Connector, type Uplink } from './registry/connector.ts';
import { type Endpoint, parseEndpoint } from './registry/endpoint.ts';
import { Repository } from './registry/registry.ts';
import { type Patience, Requests } from './registry/requests.ts';
import type { FoundImage, ImageSource } from './source.ts';
import { type Allowance, applyLayer } from './unpacker.ts';

export interface ImagesOptions {
  /** Path of the unpacker that set-up has built. */
  readonly unpacker: string;
  /** Registries that may be at addresses of this network, and those of them that are spoken to over plain http. */
  readonly internalRegistries: readonly Endpoint[];
  /** Asked instead of Docker Hub when there is no login. */
  readonly mirror: Endpoint | null;
  /** The company's proxy. */
  readonly uplink: Uplink | null;
  readonly extraCaFile: string | null;
  /** IPv4 addresses of a name. Default: as this machine resolves names. */
  readonly resolve?: (name: string) => Promise<readonly string[]>;
  readonly patience?: Patience;
}

const mostEntries = 1_000_000;
/** Headers and padding of one entry of a tar. */
const mostPerEntry = 4096;
/** Of what is written again by later layers. */
const mostRewrites = 4;
const dockerHubApi = 'registry-1.docker.io';

/** Opens what the image is read through, and says how to give it up. */
interface Reading extends AsyncDisposable {
  readonly image: LocatedImage;
}

/** Images from registries, layouts and archives, unpacked by a process without power over this machine. */
export class OciImages implements ImageSource {
  readonly #options: ImagesOptions;
  readonly #connector: Connector;

  /** @throws Error when the file with certificates cannot be read */
  constructor(options: ImagesOptions) {
    this.#options = options;
    const { internalRegistries, mirror, uplink, extraCaFile, resolve } = options;
    const internal = mirror === null ? internalRegistries : [...internalRegistries, mirror];
    this.#connector = new Connector({ internal, uplink, extraCaFile, ...(resolve === undefined ? {} : { resolve }) });
  }

  async find(request: ImageRequest, signal: AbortSignal): Promise<FoundImage> {
    const reference = parseReference(request.reference, request.allowPaths);
    const open = (reading: AbortSignal): Promise<Reading> =>
      reference.kind === 'registry' ? this.#openRegistry(reference, request, reading) : openStored(reference.kind === 'layout' ? locateInLayout(reference, reading) : locateInDockerArchive(reference, reading));
    await using found = await open(signal);
    const { digest, document, layers } = found.image;
    const size = layers.reduce((sum, layer) => sum + layer.size, 0);
    // Layers that do not become smaller by being compressed become a little larger.
    if (size > request.maxBytes * 1.01 + 1_048_576) throw new BuildFailure('image_too_large', `${describeReference(reference)} has layers of ${size} bytes, which are more than the ${request.maxBytes} that are allowed`);
    const pinned = reference.kind === 'registry' ? { ...reference, tag: null, digest } : reference;
    const reopen = (reading: AbortSignal): Promise<Reading> => (pinned.kind === 'registry' ? this.#openRegistry(pinned, request, reading) : open(reading));
    return Object.freeze({ digest, config: document.config, unpack: (dir: string, unpacking: AbortSignal) => this.#unpack(dir, digest, reopen, request, unpacking) });
  }

  async #unpack(dir: string, digest: string, open: (signal: AbortSignal) => Promise<Reading>, request: ImageRequest, signal: AbortSignal): Promise<void> {
    await assertPrivate(dir);
    await using reading = await open(signal);
    // A layout or archive may have been written again since it was looked at.
    if (reading.image.digest !== digest) throw new BuildFailure('image_pull_failed', `${request.reference} has changed since it was looked at`);
    await chown(dir, 0, 0);
    await chmod(dir, 0o755);
    await utimes(dir, 0, 0);
    await applyAll(this.#options.unpacker, dir, reading.image.layers, request, signal);
  }

  async #openRegistry(reference: RegistryReference, { login }: ImageRequest, signal: AbortSignal): Promise<Reading> {
    const endpoint = this.#endpointFor(reference.registry, login !== undefined);
    const requests = new Requests(this.#connector, endpoint, signal, this.#options.patience ?? {});
    try {
      const repository = new Repository(endpoint, reference.repository, login ?? null, requests);
      const image = await locate(repository, await repository.find(reference, signal), describeReference(reference), signal);
      return { image, [Symbol.asyncDispose]: () => requests.close() };
    } catch (reason) {
      await requests.close();
      throw reason;
    }
  }

  #endpointFor(registry: string, hasLogin: boolean): Endpoint {
    const { mirror, internalRegistries } = this.#options;
    // A login for Docker Hub is nobody else's.
    if (registry === dockerHub) return mirror !== null && !hasLogin ? mirror : parseEndpoint(dockerHubApi)!;
    const secure = parseEndpoint(registry)!;
    const inClear = parseEndpoint(`http://${registry}`)!;
    const isNamed = ({ secure, host, port }: Endpoint): boolean => internalRegistries.some((each) => each.secure === secure && each.host === host && each.port === port);
    return !isNamed(secure) && isNamed(inClear) ? inClear : secure;
  }
}

async function openStored(locating: Promise<LocatedImage>): Promise<Reading> {
  return { image: await locating, [Symbol.asyncDispose]: () => Promise.resolve() };
}

async function applyAll(unpacker: string, dir: string, layers: readonly Layer[], { maxBytes, onProgress }: ImageRequest, signal: AbortSignal): Promise<void> {
  let allowance: Allowance = { maxBytes, bytes: 0, entries: mostEntries, stream: maxBytes * mostRewrites + mostEntries * mostPerEntry };
  for (const [i, layer] of layers.entries()) {
    const name = `layer ${i + 1} of ${layers.length}`;
    onProgress(`pulling ${name}`);
    const tar = decompressed(reported(layer.open(signal), name, onProgress), name);
    const { diffId, bytes, entries, stream } = await applyLayer(unpacker, dir, tar, allowance, name, signal);
    if (diffId !== layer.diffId) throw new BuildFailure('image_pull_failed', `${name} is not what the image's configuration says: its digest is ${diffId} instead of ${layer.diffId}`);
    allowance = { maxBytes, bytes, entries: allowance.entries - entries, stream: allowance.stream - stream };
  }
}

/** An image has set-uid programs: nobody but root may get to them. */
async function assertPrivate(dir: string): Promise<void> {
  if ((await readdir(dir)).length > 0) throw new Error(`${dir} is not empty`);
  for (let parent = dirname(await realpath(dir)); ; parent = dirname(parent)) {
    const { mode, uid } = await lstat(parent);
    if (uid === 0 && (mode & 0o011) === 0) return;
    if (parent === '/') throw new Error(`${dir} can be entered by others than root`);
  }
}
