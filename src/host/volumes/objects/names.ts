import { parseVolumeId, type VolumeId } from '../../../core/ids.ts';

/** Names of objects: below the prefix of the server, made of ids alone. */
export class ObjectNames {
  readonly #prefix: string;

  /** @param prefix empty, or ending with a slash */
  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** Says whose volumes these are. */
  get owner(): string {
    return `${this.#prefix}owner`;
  }

  probe(id: string): string {
    return `${this.#prefix}probe-${id}`;
  }

  get volumes(): string {
    return `${this.#prefix}volumes/`;
  }

  volume(id: VolumeId): string {
    return `${this.volumes}${id}/`;
  }

  manifest(id: VolumeId): string {
    return `${this.volume(id)}manifest`;
  }

  chunks(id: VolumeId): string {
    return `${this.volume(id)}chunks/`;
  }

  chunk(id: VolumeId, chunkId: string): string {
    return `${this.chunks(id)}${chunkId}`;
  }

  /** Whose `volume` a name is; null for what is not ours. */
  volumeIn(name: string): VolumeId | null {
    const id = parseVolumeId(name.slice(this.volumes.length, -1));
    return id !== null && name === this.volume(id) ? id : null;
  }
}
