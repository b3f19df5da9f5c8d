import type { GuestUsage } from '../../core/host.ts';
import type { Sandbox, SandboxState } from '../../core/sandbox.ts';
import type { Snapshot } from '../../core/snapshot.ts';
import type { Template } from '../../core/template.ts';
import type { Volume } from '../../core/volume.ts';
import type { Tokens } from '../../core/tokens.ts';
import { maskEnvs } from '../../core/policy.ts';
import { publicId, snapshotName, volumeName } from './ids.ts';
import { readSecurity } from './policy.ts';

/** Port of the process in the sandbox that answers for it; the clients only keep it. */
const guestDaemonPort = 49983;

/** The four words this wire has for the states of a sandbox. */
export type StateWord = 'creating' | 'running' | 'paused' | 'killed';

const stateWords: Readonly<Record<SandboxState, StateWord>> = Object.freeze({
  creating: 'creating',
  running: 'running',
  pausing: 'paused',
  paused: 'paused',
  resuming: 'paused',
  killing: 'killed',
  killed: 'killed',
});

export function stateWord(state: SandboxState): StateWord {
  return stateWords[state];
}

/** The states behind a word, for filters. */
export function statesOf(word: StateWord): readonly SandboxState[] {
  return (Object.keys(stateWords) as SandboxState[]).filter((state) => stateWords[state] === word);
}

/** RFC 3339, UTC, whole seconds: one format everywhere, because clients compare some times as text. Never "". */
export function timestamp(milliseconds: number): string {
  return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;
}

/** Turns what the core knows into what this wire shows. */
export class Presenter {
  readonly #tokens: Pick<Tokens, 'agent' | 'traffic'>;
  readonly #domain: string;

  constructor(tokens: Pick<Tokens, 'agent' | 'traffic'>, domain: string) {
    this.#tokens = tokens;
    this.#domain = domain;
  }

  /** A volume (contract, section 2.12). */
  volume(volume: Volume, quotaBytes: number): object {
    return {
      volume_id: volumeName(volume.id),
      owner_id: volume.teamId,
      name: volume.name,
      blob_key: `volumes/${volume.id}`,
      size_bytes: volume.bytes,
      content_type: 'application/gzip',
      metadata: volume.metadata,
      created_at: timestamp(volume.createdAt),
      backend: 'file-granular',
      quota_bytes: quotaBytes,
      updated_at: timestamp(volume.updatedAt),
    };
  }

  /** The sandbox object of create and of listings (contract, section 2.1). */
  sandbox(sandbox: Sandbox): object {
    const { declared, end } = sandbox;
    return {
      sandbox_id: publicId(sandbox),
      template_id: sandbox.template.id,
      name: sandbox.template.name,
      state: stateWord(sandbox.state),
      timeout: sandbox.timeoutSeconds,
      metadata: sandbox.metadata,
      envs: declared.security === undefined ? sandbox.envs : maskEnvs(sandbox.envs, readSecurity(declared.security).envSecurity?.maskPatterns),
      network: declared.network ?? null,
      security: declared.security ?? null,
      lifecycle: declared.lifecycle ?? null,
      volumes: declared.volumes ?? [],
      secure: declared.secure ?? true,
      envd_access_token: this.#tokens.agent(sandbox),
      traffic_access_token: this.#tokens.traffic(sandbox),
      sandbox_domain: this.#domain,
      guest_ip: sandbox.guest?.address ?? null,
      envd_port: guestDaemonPort,
      started_at: timestamp(sandbox.startedAt ?? sandbox.createdAt),
      end_at: end !== null ? timestamp(end.at) : sandbox.endAt === null ? null : timestamp(sandbox.endAt),
      // Not in the contract; clients ignore it, people ask for it: why a sandbox is no more.
      ...(end === null ? {} : { end_reason: end.reason, end_detail: end.detail }),
    };
  }

  /** The same with what the sandbox may use, as GET shows it. */
  sandboxWithResources(sandbox: Sandbox): object {
    return { ...this.sandbox(sandbox), resources: { vcpus: sandbox.limits.vcpus, memory_mb: sandbox.limits.memoryMb, disk_mb: sandbox.limits.diskMb } };
  }

  /** The snapshot object (contract, section 2.2); it names its sandbox by whichever id its reader has. */
  snapshot(snapshot: Snapshot, sandboxName: string): object {
    const { checkpoint } = snapshot;
    return {
      snapshot_id: snapshotName(snapshot.id),
      sandbox_id: sandboxName,
      source: snapshot.source,
      // Keys of a store that clients have no access to.
      mem_blob_key: checkpoint?.id ?? '',
      vmstate_blob_key: checkpoint?.id ?? '',
      mem_size_bytes: checkpoint?.memoryBytes ?? 0,
      size_bytes: checkpoint?.bytes ?? 0,
      pause_duration_ms: checkpoint?.pausedForMs ?? 0,
      created_at: timestamp(snapshot.createdAt),
    };
  }

  usage(sample: GuestUsage): object {
    return {
      timestamp: timestamp(sample.at),
      cpu_usage_percent: round(sample.cpuPercent),
      memory_usage_mb: round(sample.memoryBytes / 1024 / 1024),
      disk_usage_mb: round(sample.diskBytes / 1024 / 1024),
    };
  }

  template(template: Template): object {
    return { template_id: template.id, alias: template.name, status: 'completed', description: template.description, cpu_count: template.limits.vcpus, memory_mb: template.limits.memoryMb, disk_mb: template.limits.diskMb, created_at: null };
  }
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
