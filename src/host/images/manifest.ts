import { BuildFailure } from '../../core/templates/build-host.ts';
import { type Descriptor, parseDigest } from './digest.ts';

export const mostManifestBytes = 4 * 1024 * 1024;
const mostLayers = 128;
const mostManifests = 1024;

export const indexTypes: readonly string[] = ['application/vnd.oci.image.index.v1+json', 'application/vnd.docker.distribution.manifest.list.v2+json'];
export const imageTypes: readonly string[] = ['application/vnd.oci.image.manifest.v1+json', 'application/vnd.docker.distribution.manifest.v2+json'];
const configTypes: readonly string[] = ['application/vnd.oci.image.config.v1+json', 'application/vnd.docker.container.image.v1+json'];
const layerForm = /^application\/vnd\.(?:oci\.image\.layer\.v1\.tar(?:\+gzip|\+zstd)?|docker\.image\.rootfs\.diff\.tar(?:\.gzip|\.zstd)?)$/;

/** What an index says that one of its images is for; null when it says nothing. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string | null;
}

export interface IndexEntry extends Descriptor {
  readonly platform: Platform | null;
  /** `org.opencontainers.image.ref.name`: a tag, in a layout. */
  readonly refName: string | null;
  /** Something about another entry, such as an attestation, rather than an image. */
  readonly isAttachment: boolean;
}

export type ImageDocument = { readonly kind: 'index'; readonly manifests: readonly IndexEntry[] } | { readonly kind: 'image'; readonly config: Descriptor; readonly layers: readonly Descriptor[] };

/**
 * Reads a manifest or an index.
 *
 * @param type what the one who sent it calls it; null when there is nobody to say
 * @throws BuildFailure `image_pull_failed`; nothing of the content is repeated when it is not JSON
 */
export function parseDocument(bytes: Uint8Array, type: string | null, from: string): ImageDocument {
  const fault = (problem: string): BuildFailure => new BuildFailure('image_pull_failed', `the manifest from ${from} ${problem}`);
  const json = parseObject(bytes, () => fault('is no JSON object'));
  const said = json['mediaType'];
  if (said !== undefined && typeof said !== 'string') throw fault('has a mediaType that is no string');
  const isKnown = (each: string | null | undefined): boolean => each != null && (indexTypes.includes(each) || imageTypes.includes(each));
  if (isKnown(type) && said !== undefined && said !== type) throw fault(`is called ${type} and calls itself ${said.slice(0, 100)}`);
  if (json['schemaVersion'] !== 2) throw fault('is of an old form: push the image again with a current tool');
  // Both lists in one document would let two readers see two images.
  if ('manifests' in json === 'layers' in json) throw fault('is neither an image nor an index of images');
  const kind = 'manifests' in json ? 'index' : 'image';
  const named = said ?? (isKnown(type) ? type! : undefined);
  if (named !== undefined && !(kind === 'index' ? indexTypes : imageTypes).includes(named)) throw fault(`is of the unknown kind ${named.slice(0, 100)}`);
  if (kind === 'index') {
    const manifests = json['manifests'];
    if (!Array.isArray(manifests) || manifests.length > mostManifests) throw fault(`has no list of at most ${mostManifests} manifests`);
    return Object.freeze({ kind, manifests: Object.freeze(manifests.map((each) => parseEntry(each, fault))) });
  }
  const layers = json['layers'];
  if (!Array.isArray(layers) || layers.length > mostLayers) throw fault(`has no list of at most ${mostLayers} layers`);
  const config = parseDescriptor(json['config'], fault);
  if (!configTypes.includes(config.mediaType)) throw fault(`is no container image: its configuration is of the kind ${config.mediaType}`);
  if (config.size > mostManifestBytes) throw fault(`has a configuration of more than ${mostManifestBytes} bytes`);
  return Object.freeze({ kind, config, layers: Object.freeze(layers.map((each) => parseLayer(each, fault))) });
}

/** @throws what `fault` makes when the bytes are no JSON object */
export function parseObject(bytes: Uint8Array, fault: () => Error): Readonly<Record<string, unknown>> {
  let json: unknown = null;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    // told below; the reason would repeat the content
  }
  if (!isObject(json)) throw fault();
  return json;
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseLayer(value: unknown, fault: (problem: string) => Error): Descriptor {
  const layer = parseDescriptor(value, fault);
  if (!layerForm.test(layer.mediaType)) throw fault(`has a layer of the kind ${layer.mediaType}, which cannot be unpacked here`);
  return layer;
}

function parseEntry(value: unknown, fault: (problem: string) => Error): IndexEntry {
  const { platform, annotations } = isObject(value) ? value : {};
  const notes = isObject(annotations) ? annotations : {};
  const refName = notes['org.opencontainers.image.ref.name'];
  const { os, architecture, variant } = isObject(platform) ? platform : {};
  const named = typeof os === 'string' && typeof architecture === 'string' ? Object.freeze({ os, architecture, variant: typeof variant === 'string' ? variant : null }) : null;
  const isAttachment = notes['vnd.docker.reference.type'] !== undefined || named?.os === 'unknown';
  return Object.freeze({ ...parseDescriptor(value, fault), platform: named, refName: typeof refName === 'string' ? refName : null, isAttachment });
}

function parseDescriptor(value: unknown, fault: (problem: string) => Error): Descriptor {
  const { mediaType, digest, size } = isObject(value) ? value : {};
  const parsed = parseDigest(digest);
  if (parsed === null) throw fault('has a digest that is not sha256: and 64 hexadecimal digits');
  if (typeof mediaType !== 'string' || !/^[\w.+/-]{1,200}$/.test(mediaType)) throw fault(`has no kind for ${parsed}`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw fault(`has no size for ${parsed}`);
  return Object.freeze({ mediaType, digest: parsed, size });
}
