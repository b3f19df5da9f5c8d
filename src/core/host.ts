import type { Duplex, Readable } from 'node:stream';
import type { PaddockError } from './errors.ts';
import type { SandboxId, TeamId, VolumeId } from './ids.ts';
import type { ConnectionEvent } from './network/egress.ts';
import type { Inspection, InspectionEvent } from './network/inspection.ts';
import type { NetworkPolicy } from './network/rules.ts';
import type { EndReason } from './sandbox.ts';
import type { Limits, Template } from './template.ts';

/**
 * Everything that is needed to find a guest again after the server has been restarted. Plain data: it is stored with
 * the sandbox, and would travel to another machine.
 */
export interface GuestRef {
  readonly runtime: 'gvisor' | 'microvm';
  /** Which build of the runtime runs it (SHA-256); a checkpoint restores only with the build that wrote it. */
  readonly build: string;
  /** The runtime's own name for it. */
  readonly container: string;
  readonly slot: number;
  /** The slot's IPv4 address, where the agent listens. */
  readonly address: string;
  readonly agentPort: number;
  readonly agentProtocol: number;
  /** Host process of the runtime, with its start time in clock ticks, so that a reused pid is not taken for it. */
  readonly pid: number;
  readonly pidStart: string;
  /** The kernel's boot id when it was started: a different one means the machine was rebooted. */
  readonly bootId: string;
}

/** The identity a waiting guest is given in one call. */
export interface GuestIdentity {
  readonly sandboxId: SandboxId;
  readonly hostname: string;
  readonly agentToken: string;
  readonly defaultUser: string;
  readonly sudo: boolean;
  readonly env: Readonly<Record<string, string>>;
  /** PEM; what the guest shall trust for connections that are looked into. Null or none leaves its trust as it is. */
  readonly certificate?: string | null;
}

/** Called when a stage of some work is done; what it makes of that is the caller's affair. */
export type Lap = (stage: string) => void;

/** A volume that a guest has before its eyes: what anybody writes to it is seen by all at once. */
export interface VolumeMount {
  readonly volumeId: VolumeId;
  /** What it was called when it was attached, for whoever has to be told that it is gone. */
  readonly name: string;
  /** Absolute, inside the guest. */
  readonly mountPath: string;
  /** The directory of the volume that is mounted; empty for all of it. */
  readonly subpath: readonly string[];
  /** Kept by the host, whatever the guest tries. */
  readonly readOnly: boolean;
}

export interface GuestSpec {
  readonly template: Template;
  readonly limits: Limits;
  readonly identity: GuestIdentity;
  readonly teamId: TeamId;
  /** What it may reach: in force before the guest is given its identity, so before anything of its owner's can run. */
  readonly network: NetworkPolicy;
  /** In force together with the rules. */
  readonly inspection?: Inspection | null;
  readonly volumes?: readonly VolumeMount[];
  /** Hears of the stages `slot`, `boot`, `agent` (or `waiting`, when a guest waited) and `claim`. */
  readonly lap?: Lap;
}

/** The saved state of a guest on its host: memory, processes, written disk. Plain data, stored with the snapshot that names it. */
export interface CheckpointRef {
  /** UUID. */
  readonly id: string;
  readonly runtime: GuestRef['runtime'];
  /** Build of the runtime that wrote it (SHA-256); only that one restores it. */
  readonly build: string;
  readonly agentProtocol: number;
  /** Digest of the agent's binary, whose pages the checkpoint names. */
  readonly agent: string;
  /** Digest of the template whose root file system lies below the written disk. */
  readonly template: string;
  /** What it takes on the host's disk. */
  readonly bytes: number;
  /** Whether volumes can be mounted in it; absent before there were such. */
  readonly mountable?: boolean;
  /** Memory the guest held when it was saved: what a restore takes at least. */
  readonly memoryBytes: number;
  /** How long the guest stood still for it. */
  readonly pausedForMs: number;
}

export interface CheckpointOptions {
  /** UUID, new. */
  readonly checkpointId: string;
  /** Whether the guest stands still afterwards, until `proceed` or `retire`; otherwise it goes on at once. */
  readonly hold: boolean;
  /** Hears of the stages `hold`, `save` and `durable`. */
  readonly lap?: Lap;
}

export interface RestoreSpec {
  readonly checkpoint: CheckpointRef;
  /** The agent's token at the time of the checkpoint. */
  readonly savedToken: string;
  /** The same sandbox goes on: a guest kept in memory may be taken, and its machine-id stays. Otherwise it becomes somebody new. */
  readonly sameSandbox: boolean;
  readonly limits: Limits;
  readonly identity: GuestIdentity;
  readonly teamId: TeamId;
  /** What it may reach: in force before its first packet. */
  readonly network: NetworkPolicy;
  /** In force together with the rules. */
  readonly inspection?: Inspection | null;
  /** Those that were mounted when it was saved, in the same order. */
  readonly volumes?: readonly VolumeMount[];
  /** The saved guest does not have these volumes yet: they are mounted in it before it is somebody's. */
  readonly attachesVolumes?: boolean;
  /** Hears of the stages `kept`, or `slot`, `egress`, `restore` and `agent`, and of `identity`. */
  readonly lap?: Lap;
}

/** How a guest came to its end without being asked. */
export interface GuestDeath {
  readonly reason: EndReason;
  readonly detail: string;
}

export interface GuestUsage {
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** CPU use since the sample before, in per cent of one CPU. */
  readonly cpuPercent: number;
  readonly memoryBytes: number;
  readonly diskBytes: number;
}

/** What the core knows of a guest that should be alive after a restart of the server. */
export interface KnownGuest {
  readonly ref: GuestRef;
  readonly agentToken: string;
  readonly teamId: TeamId;
  readonly network: NetworkPolicy;
  readonly inspection?: Inspection | null;
}

/** The outcome of looking for a known guest after a restart of the server. */
export type Recovery = { readonly alive: true } | { readonly alive: false; readonly death: GuestDeath };

/** One machine that runs guests. The core knows nothing else about machines. */
export interface Host {
  /**
   * Gives a guest of the template this identity: takes a waiting one or boots one. Resolves when the guest's agent has
   * acknowledged it, so the first command can run, with its volumes mounted. On failure nothing of the guest is left.
   */
  provision(spec: GuestSpec, signal: AbortSignal): Promise<GuestRef>;
  /**
   * Finds the guests that should be alive, re-attaches to them with their policies in force, and ends and removes everything of this
   * instance that belongs to none of them, guests kept after a pause and unfinished checkpoints included. One that was held goes on.
   * Called once, before anything else but the listeners.
   */
  recover(known: ReadonlyMap<SandboxId, KnownGuest>): Promise<ReadonlyMap<SandboxId, Recovery>>;
  /** The live guest of a sandbox; throws `gone` when there is none. */
  guest(id: SandboxId): Guest;
  /** Ends the guest and returns all that it held. Succeeds when there is nothing to end. */
  destroy(id: SandboxId): Promise<void>;
  /**
   * Replaces what a live guest may reach, in one step. Resolves when the new policy is in force for every new connection; open ones
   * that it denies are cut within 2 s. On failure the old one holds. Throws `gone` when there is no guest.
   */
  setNetwork(id: SandboxId, policy: NetworkPolicy): Promise<void>;
  /** Replaces what the proxy looks for in a live guest's traffic, and leaves the policy; otherwise like `setNetwork`. */
  setInspection(id: SandboxId, inspection: Inspection | null): Promise<void>;
  /** Gives a live guest the identity it has anew, with another environment for processes that start from now on. Throws `gone` when there is no guest. */
  reidentify(identity: GuestIdentity, limits: Limits, signal: AbortSignal): Promise<void>;
  /**
   * Saves a live guest, durably. A guest that goes on afterwards loses its connections to the outside. When it fails, the guest runs on,
   * nothing is left of the checkpoint, and the error says why: `no_space`, `unprocessable`, `gone` …
   */
  checkpoint(id: SandboxId, options: CheckpointOptions, signal: AbortSignal): Promise<CheckpointRef>;
  /** A held guest goes on. Throws `gone` when there is none. */
  proceed(id: SandboxId): Promise<void>;
  /**
   * Lets go of a held guest whose checkpoint is safe: whoever is connected gets `error`, its address leads nowhere, and it is ended, or
   * kept frozen in memory for a while. Succeeds when there is no guest.
   */
  retire(id: SandboxId, checkpointId: string, error: PaddockError): Promise<void>;
  /**
   * A guest from a checkpoint, under the identity given and ready for commands. When the sandbox has a live guest, that goes on until the new
   * one is ready to take its place, and is ended then. On failure nothing of the new one is left, and the checkpoint stays.
   * Throws `conflict` naming a volume that is gone, `not_found` when the checkpoint is gone, `unprocessable` when it is damaged or this machine lacks what wrote it, with its name.
   */
  restore(spec: RestoreSpec, signal: AbortSignal): Promise<GuestRef>;
  /** Removes a checkpoint, and a guest kept with it. Succeeds when there is nothing. */
  removeCheckpoint(checkpointId: string): Promise<void>;
  /** Throws `no_capacity` when the machine cannot take guests that hold this much memory together. */
  assertRoom(memoryBytes: number): Promise<void>;
  /** Every finished checkpoint on this host. */
  checkpoints(): Promise<readonly CheckpointRef[]>;
  usage(id: SandboxId): Promise<GuestUsage>;
  /** Called at most once per guest, when it dies without `destroy`. What it held is already being taken back. */
  onDeath(listener: (id: SandboxId, death: GuestDeath) => void): void;
  /**
   * Gets what guests connected to, or tried to, in batches; at most one call at a time. When the listener rejects, the same events come again
   * later, within bounds. Set before `recover`.
   */
  onConnections(listener: (events: readonly ConnectionEvent[]) => Promise<void>): void;
  /** As `onConnections`, for the requests that were looked into. */
  onInspections(listener: (events: readonly InspectionEvent[]) => Promise<void>): void;
}

export type ProcessKind = 'command' | 'background' | 'stdio' | 'pty';

export interface ProcessSpec {
  /** Shell line; empty with `pty` means a login shell. */
  readonly cmd: string;
  /** A program and its arguments, run without a shell instead of `cmd`, which agents of before take for it. */
  readonly argv?: readonly string[];
  readonly kind: ProcessKind;
  readonly user?: string;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Whether standard input is a pipe that can be written to; otherwise it is empty. */
  readonly stdin: boolean;
  readonly size?: { readonly cols: number; readonly rows: number };
  readonly tag?: string;
}

export interface StartedProcess {
  /** Never reused within a sandbox. */
  readonly id: string;
  readonly pid: number;
  readonly startedAt: number;
}

export interface ProcessExit {
  /** 128 + signal number after a death by signal. */
  readonly exitCode: number;
  readonly signal: string | null;
  readonly reason: 'exited' | 'signaled' | 'out_of_memory';
}

export interface ProcessInfo extends StartedProcess {
  readonly cmd: string;
  readonly kind: ProcessKind;
  readonly user: string;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly tag: string;
  readonly running: boolean;
  readonly exit: ProcessExit | null;
}

export type OutputEvent =
  | { readonly type: 'started'; readonly process: StartedProcess }
  | { readonly type: 'stdout' | 'stderr' | 'terminal'; readonly entry: number; readonly data: Buffer }
  /** Entries up to `entry` were dropped because nobody read them in time. */
  | { readonly type: 'gap'; readonly entry: number; readonly lostBytes: number }
  | { readonly type: 'exit'; readonly entry: number; readonly exit: ProcessExit };

export interface FileEntry {
  readonly name: string;
  readonly path: string;
  readonly type: 'file' | 'dir' | 'symlink' | 'other';
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modifiedAt: number;
  readonly target?: string;
  readonly targetType?: 'file' | 'dir' | 'other' | 'missing';
}

/** A file's bytes, or those of the one part that was asked for. */
export interface FileContent {
  /** Of the body. */
  readonly size: number;
  readonly body: Readable;
  /** Where the body lies in the file, both ends included; without it the body is the whole. */
  readonly part?: { readonly first: number; readonly last: number; readonly total: number };
}

/** Files of a guest, handled with root's power and given to `user`. Relative paths are taken from the user's home. */
export interface GuestFiles {
  /**
   * @param range one range in the words of HTTP (`bytes=0-99`); a guest may answer with the whole file all the same. One that lies outside throws
   *   `invalid_argument` with the reason `range_not_satisfiable`.
   */
  read(path: string, user: string | undefined, signal: AbortSignal, range?: string): Promise<FileContent>;
  /** Replaces the file in one step, or changes nothing; without `mode` one that is there keeps its own. Resolves to the path as written and the size in bytes. */
  write(path: string, user: string | undefined, body: Readable | Uint8Array, signal: AbortSignal, mode?: number): Promise<{ readonly path: string; readonly size: number }>;
  list(path: string, user: string | undefined, depth: number, signal: AbortSignal): Promise<{ readonly entries: readonly FileEntry[]; readonly truncated: boolean }>;
  info(path: string, user: string | undefined, signal: AbortSignal): Promise<FileEntry>;
  remove(path: string, user: string | undefined, signal: AbortSignal): Promise<boolean>;
  rename(from: string, to: string, user: string | undefined, signal: AbortSignal): Promise<FileEntry>;
  makeDir(path: string, user: string | undefined, signal: AbortSignal): Promise<boolean>;
  /** Puts the files and directories of a tar below a directory, which is made when missing; false when the guest cannot, and then nothing is there. */
  unpack(path: string, user: string | undefined, tree: Readable, signal: AbortSignal): Promise<boolean>;
  /** Everything below a directory as a tar, links and special files as entries without content; null when the guest cannot. */
  pack(path: string, signal: AbortSignal): Promise<Readable | null>;
}

/**
 * A running guest through its agent. Every call has a deadline of its own besides the caller's signal, and fails with
 * `gone` at once when the guest dies. Failures inside the guest keep their meaning: `not_found`, `invalid_argument`,
 * `no_space`, `unprocessable`, `conflict`, `not_listening`.
 */
export interface Guest {
  /** Starts a process and follows it in one round trip; the first event is `started`. Leaving the loop does not end it. */
  run(spec: ProcessSpec, signal: AbortSignal): AsyncIterable<OutputEvent>;
  start(spec: ProcessSpec, signal: AbortSignal): Promise<StartedProcess>;
  /** Output after entry `after`; with `follow` until the exit event. */
  output(processId: string, after: number, follow: boolean, signal: AbortSignal): AsyncIterable<OutputEvent>;
  processes(signal: AbortSignal): Promise<readonly ProcessInfo[]>;
  process(processId: string, signal: AbortSignal): Promise<ProcessInfo>;
  /** Bytes taken; throws `conflict` when closed or ended, `rate_limited` when the process does not read. */
  writeStdin(processId: string, data: Uint8Array, signal: AbortSignal): Promise<void>;
  closeStdin(processId: string, signal: AbortSignal): Promise<void>;
  resize(processId: string, size: { readonly cols: number; readonly rows: number }, signal: AbortSignal): Promise<void>;
  /** To the whole process group; false when it has ended. */
  sendSignal(processId: string, name: string, signal: AbortSignal): Promise<boolean>;
  /** Ends the group if it runs (true) and forgets the process and its output. */
  removeProcess(processId: string, signal: AbortSignal): Promise<boolean>;
  readonly files: GuestFiles;
  /** A TCP connection to a port on the guest's loopback; throws `not_listening`. */
  tunnel(port: number, signal: AbortSignal): Promise<Duplex>;
}
