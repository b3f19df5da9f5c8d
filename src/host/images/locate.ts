import { BuildFailure } from '../../core/templates/build-host.ts';
import { type ConfigDocument, parseConfigDocument } from './config.ts';
import { collect, type Descriptor, type Digest } from './digest.ts';
import { type IndexEntry, imageTypes, indexTypes, mostManifestBytes, parseDocument, type Platform } from './manifest.ts';

/** Where the content of an image lies. Content comes verified, or the reading fails. */
export interface ContentStore {
  /** For messages: a host, or a path. */
  readonly name: string;
  /** A manifest or index that another one names. */
  manifest(descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array>;
  blob(descriptor: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** One layer that can be read, compressed or not. */
export interface Layer {
  /** Of what `open` gives; bytes. */
  readonly size: number;
  /** Of the tar when decompressed. */
  readonly diffId: Digest;
  open(signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** An image that fits this machine. Its layers have not been read. */
export interface LocatedImage {
  readonly digest: Digest;
  readonly document: ConfigDocument;
  /** Lowest first. */
  readonly layers: readonly Layer[];
}

/** A manifest or index that has been read. */
export interface Found {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
  readonly mediaType: string | null;
}

const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };
/** An index may name indexes, and that is all. */
const deepestIndex = 2;

/** This machine's architecture, as images call it. */
export const thisArchitecture = architectures[process.arch] ?? process.arch;

/** Follows indexes to the image for this machine, and reads its configuration. */
export async function locate(store: ContentStore, found: Found, image: string, signal: AbortSignal): Promise<LocatedImage> {
  let current = found;
  for (let depth = 0; ; depth++) {
    const document = parseDocument(current.bytes, current.mediaType, store.name);
    if (document.kind === 'image') {
      const config = await collect(store.blob(document.config, signal), mostManifestBytes, `the configuration of ${image}`);
      const parsed = parseConfigDocument(config, store.name);
      assertFits(parsed.platform, image);
      return describeImage(current.digest, parsed, document.layers.map((layer) => ({ size: layer.size, open: (reading: AbortSignal) => store.blob(layer, reading) })), store.name);
    }
    if (depth === deepestIndex) throw new BuildFailure('image_pull_failed', `${image} is an index of indexes of indexes`);
    const entry = choose(document.manifests, image);
    if (entry.size > mostManifestBytes) throw new BuildFailure('image_pull_failed', `the manifest of ${image} is longer than ${mostManifestBytes} bytes`);
    current = { digest: entry.digest, bytes: await store.manifest(entry, signal), mediaType: entry.mediaType };
  }
}

/** Joins the layers with their digests. */
export function describeImage(digest: Digest, document: ConfigDocument, layers: readonly Omit<Layer, 'diffId'>[], from: string): LocatedImage {
  if (document.diffIds.length !== layers.length) {
    throw new BuildFailure('image_pull_failed', `the image from ${from} has ${layers.length} layers, and ${document.diffIds.length} in its configuration`);
  }
  return Object.freeze({ digest, document, layers: Object.freeze(layers.map((layer, i) => Object.freeze({ ...layer, diffId: document.diffIds[i]! }))) });
}

/** @throws BuildFailure `unsupported_platform` */
export function assertFits(platform: Platform, image: string): void {
  if (!fits(platform)) throw new BuildFailure('unsupported_platform', `${image} is for ${describePlatform(platform)}; this machine needs linux/${thisArchitecture}`);
}

function choose(manifests: readonly IndexEntry[], image: string): IndexEntry {
  const images = manifests.filter(({ mediaType, isAttachment }) => !isAttachment && (imageTypes.includes(mediaType) || indexTypes.includes(mediaType)));
  const chosen =
    images.find(({ platform }) => platform !== null && fits(platform)) ??
    // Whoever has only one platform often does not name it; the configuration does.
    images.find(({ platform }) => platform === null);
  if (chosen !== undefined) return chosen;
  const there = [...new Set(images.map(({ platform }) => (platform === null ? '' : describePlatform(platform))))].slice(0, 20);
  throw new BuildFailure('unsupported_platform', `${image} is not there for linux/${thisArchitecture}; ${there.length === 0 ? 'it has no images' : `there is ${there.join(', ')}`}`);
}

function fits({ os, architecture, variant }: Platform): boolean {
  return os === 'linux' && architecture === thisArchitecture && (variant === null || variant === '' || variant === (architecture === 'arm64' ? 'v8' : 'v1'));
}

function describePlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, ...(variant === null || variant === '' ? [] : [variant])].map((part) => part.replace(/[^\w.-]/g, '?').slice(0, 40)).join('/');
}
