import type { CheckpointRef } from '../host.ts';
import type { SandboxId, TeamId } from '../ids.ts';
import type { Limits } from '../template.ts';
import type { LayerId, RootLayers } from './build-host.ts';
import type { Surroundings } from './plan.ts';
import type { TemplateSpec } from './spec.ts';

/** Lowercase UUIDs. */
export type TemplateId = string & { readonly templateId: never };
export type BuildId = string & { readonly buildId: never };
export type ArtefactId = string & { readonly artefactId: never };

/** `building` and `failed` are of the first build; later ones change nothing until they are ready. */
export type TemplateStatus = 'building' | 'ready' | 'failed';

/** A template that a team has made. Its spec never changes. */
export interface OwnTemplate {
  readonly id: TemplateId;
  readonly teamId: TeamId;
  /** Unique in the team. */
  readonly name: string;
  readonly status: TemplateStatus;
  readonly spec: TemplateSpec;
  readonly specHash: string;
  /** `<code>: <detail>` of the first build, when that failed. */
  readonly errorMessage: string | null;
  /** What sandboxes are made from; null before it is ready. */
  readonly artefactId: ArtefactId | null;
  readonly latestBuildId: BuildId;
  readonly createdAt: number;
  readonly builtAt: number | null;
  readonly sizeBytes: number | null;
}

export type BuildStatus = 'pending' | 'building' | 'snapshotting' | 'ready' | 'failed' | 'cancelled';
export const buildsInFlight: readonly BuildStatus[] = ['pending', 'building', 'snapshotting'];

export interface TemplateBuild {
  readonly id: BuildId;
  readonly templateId: TemplateId;
  readonly teamId: TeamId;
  readonly status: BuildStatus;
  readonly specHash: string;
  /** `<code>: <detail>` when it failed or was cancelled. */
  readonly errorMessage: string | null;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly finalizedAt: number | null;
}

/** A guest in which the start command runs, saved: sandboxes go on from it. */
export interface StartState {
  readonly checkpoint: CheckpointRef;
  /** Whose token the saved agent knows, with generation 1. */
  readonly sandboxId: SandboxId;
}

/** What a build made. It stays as long as a sandbox or snapshot needs it, also when the template has a newer one or is gone. */
export interface Artefact extends Surroundings {
  readonly id: ArtefactId;
  readonly templateId: TemplateId;
  readonly teamId: TeamId;
  /** Of the root file system as the host has it installed. */
  readonly digest: string;
  readonly root: RootLayers;
  readonly limits: Limits;
  readonly sizeBytes: number;
  readonly specHash: string;
  readonly start: StartState | null;
  readonly createdAt: number;
}

export type LogStream = 'stdout' | 'stderr' | 'system';

/** One line of the output of a build, without its end. */
export interface LogLine {
  /** Grows by one, from 1. */
  readonly seq: number;
  readonly at: number;
  readonly stream: LogStream;
  readonly text: string;
}

/** Lines kept of a build: the newest. */
export const mostLogLines = 10_000;

export interface TemplateStore {
  /** With its first build. Throws `conflict` when the team has one of that name. */
  insert(template: OwnTemplate, build: TemplateBuild): Promise<void>;
  find(teamId: TeamId, id: TemplateId): Promise<OwnTemplate | null>;
  findByName(teamId: TeamId, name: string): Promise<OwnTemplate | null>;
  /** Newest first. */
  list(teamId: TeamId): Promise<readonly OwnTemplate[]>;
  count(teamId: TeamId): Promise<number>;
  /** With its builds and their logs, unless a build is in flight; false then, or when there is none. Artefacts stay. */
  remove(teamId: TeamId, id: TemplateId): Promise<boolean>;
  /** A failed template is `building` again. Returns the build in flight instead when there is one of the same spec. */
  insertBuild(build: TemplateBuild): Promise<{ readonly build: TemplateBuild; readonly inserted: boolean }>;
  findBuild(teamId: TeamId, id: BuildId): Promise<TemplateBuild | null>;
  /** Newest first. */
  builds(templateId: TemplateId, limit: number): Promise<readonly TemplateBuild[]>;
  /** Over all teams. */
  unfinishedBuilds(): Promise<readonly TemplateBuild[]>;
  /** Compare-and-set; null when it is not in one of these states any more. */
  moveBuild(id: BuildId, from: readonly BuildStatus[], to: 'building' | 'snapshotting', at: number): Promise<TemplateBuild | null>;
  /** The artefact, the template that is ready with it, and the build: all or, when the build is over already, nothing (false). */
  finishReady(id: BuildId, artefact: Artefact, at: number): Promise<boolean>;
  /** False when it was over already. A template that was never ready is failed with it. */
  finishFailed(id: BuildId, status: 'failed' | 'cancelled', errorMessage: string, at: number): Promise<boolean>;
  artefact(id: ArtefactId): Promise<Artefact | null>;
  artefacts(): Promise<readonly Artefact[]>;
  /** Those that a template makes sandboxes from. */
  currentArtefacts(): Promise<ReadonlySet<ArtefactId>>;
  removeArtefact(id: ArtefactId): Promise<void>;
  /** Whether a sandbox that has not ended for good, or a snapshot, is of this template, by its public id. */
  isNeeded(teamId: TeamId, publicId: string): Promise<boolean>;
  /** Digests that sandboxes which have not ended for good, and snapshots, name. */
  neededDigests(): Promise<ReadonlySet<string>>;
}

export interface BuildLogStore {
  append(buildId: BuildId, lines: readonly LogLine[], keep: number): Promise<void>;
  /** In order, with `seq` above `after`. */
  read(buildId: BuildId, after: number, limit: number): Promise<readonly LogLine[]>;
}

/** What steps made, by what they were made of: a step that was done before is not done again. */
export interface LayerCache {
  /** Touches it. */
  find(teamId: TeamId, key: string, at: number): Promise<LayerId | null>;
  put(teamId: TeamId, key: string, layer: LayerId, at: number): Promise<void>;
  remove(teamId: TeamId, key: string): Promise<void>;
  layers(): Promise<ReadonlySet<LayerId>>;
  /** Forgets those that were not used since. */
  purge(usedBefore: number): Promise<void>;
}

/** As Declaw shows it, and as sandboxes name it. */
export function publicTemplateId(id: TemplateId): string {
  return `tpl-${id}`;
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** A UUID, with or without `tpl-` in front; null for anything else. */
export function parseTemplateId(text: string): TemplateId | null {
  const bare = text.startsWith('tpl-') ? text.slice(4) : text;
  return uuid.test(bare) ? (bare as TemplateId) : null;
}

export function parseBuildId(text: string): BuildId | null {
  return uuid.test(text) ? (text as BuildId) : null;
}

