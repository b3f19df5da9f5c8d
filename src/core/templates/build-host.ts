import type { GuestIdentity, GuestRef } from '../host.ts';
import type { SandboxId, TeamId } from '../ids.ts';
import type { NetworkPolicy } from '../network/rules.ts';
import type { Limits } from '../template.ts';

/** Content address of one layer: SHA-256, hex, over its tree. */
export type LayerId = string;

/** An immutable directory on the host: what one image, or one step of a build, adds to what lies below it. */
export interface LayerRef {
  readonly id: LayerId;
  /** What its files take. */
  readonly bytes: number;
}

/** A root file system: layers, each over those before it, over the root of a template that set-up has made, if there is one. */
export interface RootLayers {
  /** Digest of that template; null when an image is the lowest layer. */
  readonly base: string | null;
  /** Lowest first. */
  readonly layers: readonly LayerId[];
}

/** Where an image comes from: a registry, or a layout or archive on this machine's disk. */
export interface ImageRequest {
  /** As its owner wrote it: `debian:12-slim`, `registry.example.com:5000/team/app@sha256:…`, `oci:/path[:tag]`, `docker-archive:/path[:tag]`. */
  readonly reference: string;
  /** Only an operator may name paths of this machine. */
  readonly allowPaths: boolean;
  readonly login?: { readonly username: string; readonly password: string };
  /** Unpacked size above which it is refused. */
  readonly maxBytes: number;
  readonly onProgress: (line: string) => void;
}

/** What an image says about the processes in it. */
export interface ImageConfig {
  readonly env: Readonly<Record<string, string>>;
  readonly workdir: string | null;
  readonly user: string | null;
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
}

export interface ImportedImage {
  /** Its whole tree as one layer: whiteouts are applied. */
  readonly layer: LayerRef;
  readonly config: ImageConfig;
  /** Digest of its manifest for this machine's architecture, `sha256:…`: the same digest is the same image. */
  readonly digest: string;
}

/** A guest that carries out one step of a build. What it writes to its root becomes a layer. */
export interface StepSpec {
  readonly root: RootLayers;
  readonly limits: Limits;
  readonly identity: GuestIdentity;
  readonly teamId: TeamId;
  readonly network: NetworkPolicy;
}

/** A finished template as its host keeps it. */
export interface TemplateRoot {
  readonly name: string;
  readonly root: RootLayers;
  readonly limits: Limits;
  readonly env: Readonly<Record<string, string>>;
}

/** What a machine does for builds of templates. Failures are `BuildFailure`s when the build is at fault. */
export interface BuildHost {
  /** Fetches an image unless this machine has that digest already, and unpacks it without power over the machine's files. */
  importImage(request: ImageRequest, signal: AbortSignal): Promise<ImportedImage>;
  /** The layers of these that are on this machine. */
  knownLayers(ids: readonly LayerId[]): Promise<ReadonlySet<LayerId>>;
  /**
   * Boots a guest for a step. From then on it is a guest like others (`guest`, `destroy`, its death is told), except that it cannot be
   * checkpointed. The size of its disk bounds what the step writes.
   */
  provisionStep(spec: StepSpec, signal: AbortSignal): Promise<GuestRef>;
  /** Ends the guest of a step in order and keeps what it wrote. Device nodes and sockets are left out. Throws when the guest has died. */
  sealStep(id: SandboxId, signal: AbortSignal): Promise<LayerRef>;
  /** Makes a root usable for sandboxes. The digest is over everything in it, so equal templates are one. */
  installTemplate(template: TemplateRoot): Promise<{ readonly digest: string; readonly sizeBytes: number }>;
  /** Sandboxes and checkpoints that need it must be gone. Succeeds when there is nothing; layers stay. */
  uninstallTemplate(digest: string): Promise<void>;
  /** Digests of all that are installed, those that set-up has made excepted. */
  installedTemplates(): Promise<readonly string[]>;
  /** Removes the layers that neither an installed template, nor a step's guest, nor `keep` names. Returns what that freed, in bytes. */
  removeLayers(keep: ReadonlySet<LayerId>): Promise<number>;
}

/** In the words of both wires; the text after the code is for the template's owner. */
export type BuildFailureCode =
  | 'bad_reference' | 'unsupported_platform' | 'image_pull_failed' | 'image_unsafe' | 'image_too_large' | 'step_failed' | 'boot_failed' | 'start_cmd_failed'
  | 'ready_cmd_failed' | 'snapshot_failed' | 'build_failed' | 'template_gone' | 'invalid_spec' | 'cancelled' | 'timeout';

/** Why a build failed: told to its owner, never a fault of the server. */
export class BuildFailure extends Error {
  readonly code: BuildFailureCode;

  constructor(code: BuildFailureCode, detail: string, options?: ErrorOptions) {
    super(detail, options);
    this.name = 'BuildFailure';
    this.code = code;
  }
}
