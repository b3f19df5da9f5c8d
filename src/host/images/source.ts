import type { ImageConfig, ImageRequest } from '../../core/templates/build-host.ts';

/** An image that was found, for this machine's architecture. Nothing but its manifest and configuration has been read. */
export interface FoundImage {
  /** Of its manifest, `sha256:…`. */
  readonly digest: string;
  readonly config: ImageConfig;
  /**
   * Puts the tree together in `dir`, an empty directory that only root can enter: all layers applied, owners, modes, times, hard links, links and
   * extended attributes kept; no devices. What it writes never leaves `dir`, whatever the layers say. On failure `dir` may hold a part.
   */
  unpack(dir: string, signal: AbortSignal): Promise<void>;
}

/** Where images come from. Throws `BuildFailure` (`bad_reference`, `unsupported_platform`, `image_pull_failed`, `image_unsafe`, `image_too_large`). */
export interface ImageSource {
  find(request: ImageRequest, signal: AbortSignal): Promise<FoundImage>;
}
