/** The bounds that the core keeps. A request beyond one is refused with its name, never clamped. */
export interface CoreSettings {
  /** Sandboxes at once on this server, being created and ended ones included. */
  readonly maxSandboxes: number;
  /** Longest timeout of a sandbox or process; 0 (none) is always allowed. */
  readonly maxTimeoutSeconds: number;
  /** What a create from an unknown template does: fail, or take `base` under the name asked for. */
  readonly unknownTemplate: 'reject' | 'base';
  /** Names and values together. Below what Linux takes for one argument or variable (128 KiB), so that each fits. */
  readonly maxEnvBytes: number;
  readonly maxMetadataBytes: number;
  readonly maxMetadataEntries: number;
  /** Network, security and so on, as received and kept for the echo. */
  readonly maxDeclaredBytes: number;
  /** Linux takes no longer single argument. */
  readonly maxCommandBytes: number;
  /** Kept of each output stream of a command whose result is returned whole. */
  readonly maxOutputBytes: number;
  readonly maxFileBytes: number;
  /** How long an ended sandbox can be asked about. */
  readonly tombstoneDays: number;
  readonly eventDays: number;
  readonly maxEvents: number;
  /** How long connections stay in the network log, and how many over all sandboxes. */
  readonly networkLogDays: number;
  readonly maxConnections: number;
  /** Of a team, those that pausing made not counted. */
  readonly maxSnapshots: number;
  readonly maxSnapshotsUnderWay: number;
  /** What the snapshots of a team may take on disk together; 0 for what the disk holds. */
  readonly maxSnapshotBytes: number;
  /** New sandboxes of one fork. */
  readonly maxForks: number;
  /** Of a team. */
  readonly maxVolumes: number;
  /** What the files of one volume may take together; also the longest archive. */
  readonly maxVolumeBytes: number;
  /** Files and directories of one volume. */
  readonly maxVolumeEntries: number;
  /** Of a team, those that were deleted not counted. */
  readonly maxSecrets: number;
  /** How long requests stay in the log of secrets, and how many over all. */
  readonly secretLogDays: number;
  readonly maxSecretUses: number;
}

export const defaultSettings: CoreSettings = Object.freeze({
  maxSandboxes: 200,
  maxTimeoutSeconds: 30 * 86_400,
  unknownTemplate: 'reject',
  maxEnvBytes: 131_000,
  maxMetadataBytes: 65_536,
  maxMetadataEntries: 256,
  maxDeclaredBytes: 262_144,
  maxCommandBytes: 131_071,
  maxOutputBytes: 8 * 1_048_576,
  maxFileBytes: 500 * 1_048_576,
  tombstoneDays: 7,
  eventDays: 7,
  maxEvents: 1_000_000,
  networkLogDays: 7,
  maxConnections: 1_000_000,
  maxSnapshots: 100,
  maxSnapshotsUnderWay: 4,
  maxSnapshotBytes: 0,
  maxForks: 100,
  maxVolumes: 100,
  maxVolumeBytes: 4096 * 1_048_576,
  maxVolumeEntries: 100_000,
  maxSecrets: 1000,
  secretLogDays: 7,
  maxSecretUses: 1_000_000,
});
