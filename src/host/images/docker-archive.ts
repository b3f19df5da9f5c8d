import { BuildFailure } from '../../core/templates/build-host.ts';
import { parseConfigDocument } from './config.ts';
import { collect, digestOf } from './digest.ts';
import { assertFits, describeImage, type LocatedImage } from './locate.ts';
import { isObject, mostManifestBytes } from './manifest.ts';
import { type ArchiveReference, describeReference } from './reference.ts';
import { type FilePart, openStoredFiles, readPart } from './stored-files.ts';

const mostImages = 1024;
const mostLayers = 128;

interface ArchivedImage {
  readonly config: string;
  readonly tags: readonly string[];
  readonly layers: readonly string[];
}

/**
 * An image in what `docker save` wrote. It has no manifest: its digest is that of its configuration, which holds the digests of its layers.
 * The layers are checked against those when they are unpacked.
 */
export async function locateInDockerArchive(reference: ArchiveReference, signal: AbortSignal): Promise<LocatedImage> {
  const { path } = reference;
  const files = await openStoredFiles(path, signal);
  const need = async (name: string): Promise<FilePart> => {
    const part = await files.find(name);
    if (part === null) throw new BuildFailure('image_pull_failed', `${path} is not what docker save writes, or is not whole: it has no ${name.slice(0, 200)}`);
    return part;
  };
  const read = async (name: string): Promise<Uint8Array> => collect(readPart(await need(name), signal), mostManifestBytes, `${name.slice(0, 200)} of ${path}`);
  const image = choose(parseImages(await read('manifest.json'), path), reference);
  const config = await read(image.config);
  const document = parseConfigDocument(config, path);
  assertFits(document.platform, describeReference(reference));
  const parts = await Promise.all(image.layers.map(need));
  return describeImage(digestOf(config), document, parts.map((part) => ({ size: part.size, open: (reading: AbortSignal) => readPart(part, reading) })), path);
}

function parseImages(bytes: Uint8Array, path: string): readonly ArchivedImage[] {
  const fault = (): BuildFailure => new BuildFailure('image_pull_failed', `manifest.json of ${path} is not what docker save writes`);
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString());
  } catch {
    throw fault();
  }
  if (!Array.isArray(json) || json.length > mostImages) throw fault();
  const isTexts = (value: unknown): value is string[] => Array.isArray(value) && value.every((each) => typeof each === 'string');
  return json.map((each: unknown) => {
    const { Config, RepoTags, Layers } = isObject(each) ? each : {};
    if (typeof Config !== 'string' || !isTexts(Layers) || Layers.length > mostLayers) throw fault();
    return { config: Config, tags: isTexts(RepoTags) ? RepoTags : [], layers: Layers };
  });
}

function choose(images: readonly ArchivedImage[], { path, tag }: ArchiveReference): ArchivedImage {
  const there = images.flatMap(({ tags }) => tags).slice(0, 20).map((name) => JSON.stringify(name.slice(0, 200))).join(', ');
  const fitting = tag === null ? images : images.filter(({ tags }) => tags.some((name) => name === tag || name.endsWith(`:${tag}`) || name === `${tag}:latest`));
  const [only, ...others] = fitting;
  if (only !== undefined && others.length === 0) return only;
  if (only !== undefined) throw new BuildFailure('bad_reference', `${path} has several images${tag === null ? '' : ` called ${tag}`}: name one of ${there}`);
  throw new BuildFailure('bad_reference', `${path} has no image${tag === null ? '' : ` ${tag}`}${there === '' ? '' : `; there is ${there}`}`);
}
