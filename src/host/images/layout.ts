import { BuildFailure } from '../../core/templates/build-host.ts';
import { collect, type Descriptor, digestOf, verified } from './digest.ts';
import { type ContentStore, locate, type LocatedImage } from './locate.ts';
import { type IndexEntry, indexTypes, mostManifestBytes, parseDocument } from './manifest.ts';
import { describeReference, type LayoutReference } from './reference.ts';
import { openStoredFiles, readPart, type StoredFiles } from './stored-files.ts';

/** An image in an OCI image layout. https://github.com/opencontainers/image-spec/blob/main/image-layout.md */
export async function locateInLayout(reference: LayoutReference, signal: AbortSignal): Promise<LocatedImage> {
  const { path, tag } = reference;
  const files = await openStoredFiles(path, signal);
  const part = await files.find('index.json');
  if (part === null) throw new BuildFailure('image_pull_failed', `${path} is no OCI image layout: it has no index.json`);
  const bytes = await collect(readPart(part, signal), mostManifestBytes, `index.json of ${path}`);
  const index = parseDocument(bytes, indexTypes[0]!, path);
  if (index.kind !== 'index') throw new BuildFailure('image_pull_failed', `index.json of ${path} is no index`);
  const entries = tagged(index.manifests, tag, path);
  const store = new LayoutStore(path, files);
  const image = describeReference(reference);
  // One entry is the image, whatever it says about platforms; several are one image for several.
  const [only, ...others] = entries;
  if (only !== undefined && others.length === 0) {
    return locate(store, { digest: only.digest, bytes: await store.manifest(only, signal), mediaType: only.mediaType }, image, signal);
  }
  const narrowed = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: entries.map(asJson) }));
  return locate(store, { digest: digestOf(narrowed), bytes: narrowed, mediaType: indexTypes[0]! }, image, signal);
}

/** @throws BuildFailure `bad_reference`, with the tags that there are */
function tagged(entries: readonly IndexEntry[], tag: string | null, path: string): readonly IndexEntry[] {
  const names = [...new Set(entries.flatMap(({ refName }) => refName ?? []))];
  const there = names.slice(0, 20).map((name) => JSON.stringify(name.slice(0, 100))).join(', ');
  if (tag === null) {
    if (names.length > 1) throw new BuildFailure('bad_reference', `${path} has several images: name one of ${there}`);
    return entries;
  }
  const found = entries.filter(({ refName }) => refName !== null && (refName === tag || refName.endsWith(`:${tag}`)));
  if (found.length === 0) throw new BuildFailure('bad_reference', `${path} has no image ${tag}; ${there === '' ? 'its images have no names' : `there is ${there}`}`);
  return found;
}

function asJson({ mediaType, digest, size, platform }: IndexEntry): object {
  return { mediaType, digest, size, ...(platform === null ? {} : { platform: { os: platform.os, architecture: platform.architecture, ...(platform.variant === null ? {} : { variant: platform.variant }) } }) };
}

class LayoutStore implements ContentStore {
  readonly name: string;
  readonly #files: StoredFiles;

  constructor(path: string, files: StoredFiles) {
    this.name = path;
    this.#files = files;
  }

  manifest(descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array> {
    return collect(this.blob(descriptor, signal), mostManifestBytes, `a manifest of ${this.name}`);
  }

  async *blob(descriptor: Descriptor, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const part = await this.#files.find(`blobs/${descriptor.digest.replace(':', '/')}`);
    if (part === null) throw new BuildFailure('image_pull_failed', `${this.name} does not have ${descriptor.digest}`);
    yield* verified(readPart(part, signal), descriptor, this.name);
  }
}
