import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { ImageRequest } from '../../src/core/templates/build-host.ts';
import { type ImagesOptions, OciImages } from '../../src/host/images/images.ts';
import { openArtefacts } from '../../src/host/artefacts.ts';
import { artefactsDir } from './server.ts';

export const unpacker = openArtefacts(artefactsDir).unpacker.path;
export const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';

/** One entry of a layer. */
export interface Entry {
  readonly name: string;
  readonly data?: string | Uint8Array;
  /** As in a tar header: 0 file, 1 hard link, 2 symbolic link, 3 and 4 devices, 5 directory, 6 FIFO. */
  readonly type?: string;
  readonly link?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds. */
  readonly time?: number;
  readonly xattrs?: Readonly<Record<string, string>>;
  /** What the header claims, when that is not the truth. */
  readonly size?: number;
}

export function file(name: string, data: string | Uint8Array = '', more: Partial<Entry> = {}): Entry {
  return { name, data, ...more };
}

export function directory(name: string, more: Partial<Entry> = {}): Entry {
  return { name, type: '5', mode: 0o755, ...more };
}

export function symlink(name: string, link: string): Entry {
  return { name, link, type: '2', mode: 0o777 };
}

export function hardLink(name: string, link: string): Entry {
  return { name, link, type: '1' };
}

/** A tar of these entries, in this order, whatever they are: written by hand, because no tool writes the hostile ones. */
export function layerOf(...entries: readonly Entry[]): Buffer {
  return Buffer.concat([...entries.flatMap(blocksOf), Buffer.alloc(1024)]);
}

export function blocksOf({ name, data = '', type = '0', mode = 0o644, uid = 0, gid = 0, time = 1_700_000_000, link: target = '', xattrs = {}, size }: Entry): Buffer[] {
  const body = Buffer.from(data as string);
  const records = Object.entries(xattrs).map(([key, value]) => record(`SCHILY.xattr.${key}`, value));
  if (Buffer.byteLength(name) > 100) records.push(record('path', name));
  if (Buffer.byteLength(target) > 100) records.push(record('linkpath', target));
  const pax = records.length === 0 ? [] : blocksOf({ name: 'pax', type: 'x', data: records.join('') });
  const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, '0')}\0`;
  const header = Buffer.alloc(512);
  header.write(name, 0, 100);
  header.write(octal(mode, 8) + octal(uid, 8) + octal(gid, 8) + octal(size ?? body.length, 12) + octal(time, 12), 100);
  header.write('        ', 148);
  header.write(type, 156);
  header.write(target, 157, 100);
  header.write('ustar\x0000', 257);
  header.write(octal(1, 8) + octal(3, 8), 329);
  header.write(`${octal(header.reduce((sum, byte) => sum + byte, 0), 7)} `, 148);
  return [...pax, header, body, Buffer.alloc((512 - (body.length % 512)) % 512)];
}

function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const length = (digits: number): number => Buffer.byteLength(rest) + digits;
  const digits = [1, 2, 3, 4, 5, 6].find((count) => String(length(count)).length === count)!;
  return `${length(digits)}${rest}`;
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** A document or layer that a manifest can name. */
export interface Blob {
  readonly digest: string;
  readonly bytes: Buffer;
}

export function blobOf(content: Uint8Array | object): Blob {
  const bytes = content instanceof Uint8Array ? Buffer.from(content) : Buffer.from(JSON.stringify(content));
  return { digest: sha256(bytes), bytes };
}

export function descriptorOf({ digest, bytes }: Blob, mediaType: string): { mediaType: string; digest: string; size: number } {
  return { mediaType, digest, size: bytes.length };
}

export const ociIndex = 'application/vnd.oci.image.index.v1+json';
export const ociManifest = 'application/vnd.oci.image.manifest.v1+json';
const ociConfig = 'application/vnd.oci.image.config.v1+json';
const ociLayer = 'application/vnd.oci.image.layer.v1.tar';

export interface BuiltImage {
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Blob[];
  /** All three. */
  readonly blobs: readonly Blob[];
}

export interface Recipe {
  readonly config?: object;
  readonly platform?: { readonly os?: string; readonly architecture?: string };
  readonly compress?: (tar: Buffer) => Buffer;
  readonly mediaTypes?: { readonly manifest: string; readonly config: string; readonly layer: string };
  readonly diffIds?: readonly string[];
}

/** An image for this machine, unless the recipe says otherwise. */
export function imageOf(tars: readonly Buffer[], recipe: Recipe = {}): BuiltImage {
  const { compress = gzipSync, mediaTypes: types } = recipe;
  const layers = tars.map((tar) => blobOf(compress(tar)));
  const config = blobOf({ os: 'linux', architecture, ...recipe.platform, config: recipe.config ?? {}, rootfs: { type: 'layers', diff_ids: recipe.diffIds ?? tars.map(sha256) } });
  const manifest = blobOf({
    schemaVersion: 2,
    mediaType: types?.manifest ?? ociManifest,
    config: descriptorOf(config, types?.config ?? ociConfig),
    layers: layers.map((layer) => descriptorOf(layer, types?.layer ?? `${ociLayer}+gzip`)),
  });
  return { manifest, config, layers, blobs: [manifest, config, ...layers] };
}

export function indexOf(...entries: readonly { image: Blob; os?: string; architecture?: string; variant?: string; annotations?: object }[]): Blob {
  return blobOf({
    schemaVersion: 2,
    mediaType: ociIndex,
    manifests: entries.map(({ image, os, architecture, variant, annotations }) => ({
      ...descriptorOf(image, ociManifest),
      ...(os === undefined ? {} : { platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } }),
      ...(annotations === undefined ? {} : { annotations }),
    })),
  });
}

/** Files of an OCI image layout. */
export function layoutFiles(index: object, blobs: readonly Blob[]): Entry[] {
  return [file('oci-layout', '{"imageLayoutVersion":"1.0.0"}'), file('index.json', JSON.stringify(index)), ...blobs.map(({ digest, bytes }) => file(`blobs/${digest.replace(':', '/')}`, bytes))];
}

export function writeFiles(dir: string, entries: readonly Entry[]): void {
  for (const { name, data = '' } of entries) {
    mkdirSync(join(dir, name, '..'), { recursive: true });
    writeFileSync(join(dir, name), data);
  }
}

/** A directory of a test's own that only root can enter, and images that are found there or in a registry. */
export class ImageBench implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'paddock-images-'));
  readonly progress: string[] = [];
  readonly images: OciImages;
  #count = 0;

  constructor(options: Partial<ImagesOptions> = {}) {
    this.images = new OciImages({ unpacker, internalRegistries: [], mirror: null, uplink: null, extraCaFile: null, patience: { idleMs: 1500, retryMs: 10 }, ...options });
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  request(reference: string, more: Partial<ImageRequest> = {}): ImageRequest {
    return { reference, allowPaths: true, maxBytes: 256 * 1024 * 1024, onProgress: (line) => this.progress.push(line), ...more };
  }

  /** A layout directory with an image of these layers, as a reference. */
  layout(tars: readonly Buffer[], recipe: Recipe = {}): string {
    const image = imageOf(tars, recipe);
    const dir = join(this.dir, `layout-${this.#count++}`);
    writeFiles(dir, layoutFiles({ schemaVersion: 2, manifests: [descriptorOf(image.manifest, ociManifest)] }, image.blobs));
    return `oci:${dir}`;
  }

  /** Where the image was unpacked. */
  async pull(reference: string, more: Partial<ImageRequest> = {}, signal: AbortSignal = AbortSignal.timeout(60_000)): Promise<string> {
    const found = await this.images.find(this.request(reference, more), signal);
    const tree = this.emptyDirectory();
    await found.unpack(tree, signal);
    return tree;
  }

  /** The tree of layers that come from a layout. */
  unpack(...tars: readonly Buffer[]): Promise<string> {
    return this.pull(this.layout(tars));
  }

  emptyDirectory(): string {
    const tree = join(this.dir, `tree-${this.#count++}`);
    mkdirSync(tree, { mode: 0o700 });
    return tree;
  }
}

/** Processes of an unpacker that works below a directory. */
export function unpackersOf(dir: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        return words.includes(dir) || (words.startsWith('unpacker-confined') && readFileSync(`/proc/${pid}/mountinfo`, 'utf8').includes(dir));
      } catch {
        return false; // it has ended
      }
    })
    .map(Number);
}
