import type { Sandbox } from '../../core/sandbox.ts';
import type { NamedBinding } from '../../core/secrets/secret.ts';
import { isReady, type Snapshot } from '../../core/snapshot.ts';
import type { Template } from '../../core/template.ts';
import { parseTemplateId, type OwnTemplate, type TemplateBuild } from '../../core/templates/template.ts';
import { templateUuid } from './ids.ts';
import { presentNetwork } from './network-rules.ts';
import { statusOf } from './status.ts';

/** RFC 3339, UTC, whole seconds. */
export function timestamp(milliseconds: number): string {
  return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;
}

/** The sandbox object (contract, section 4.1), without a token: lists never have one. */
export function presentSandbox(sandbox: Sandbox): Record<string, unknown> {
  const timeout = sandbox.lifecycle.maxLifetimeSeconds ?? sandbox.timeoutSeconds;
  const network = presentNetwork(sandbox.policy.network);
  const failed = statusOf(sandbox) === 'failed' && sandbox.end !== null;
  return {
    id: sandbox.id,
    name: sandbox.name,
    status: statusOf(sandbox),
    vcpu_count: sandbox.limits.vcpus,
    memory_mib: sandbox.limits.memoryMb,
    created_at: timestamp(sandbox.createdAt),
    metadata: sandbox.metadata,
    preview_access: sandbox.policy.previews,
    ...(timeout === 0 ? {} : { timeout_seconds: timeout }),
    ...(sandbox.lifecycle.autoDeleteSeconds === null ? {} : { auto_delete_seconds: sandbox.lifecycle.autoDeleteSeconds }),
    ...(sandbox.autoDeleteAt === null ? {} : { auto_delete_at: timestamp(sandbox.autoDeleteAt) }),
    ...(sandbox.snapshotId === null ? {} : { snapshot_id: sandbox.snapshotId }),
    ...(sandbox.sourceSnapshotId === null ? {} : { source_snapshot_id: sandbox.sourceSnapshotId }),
    ...(network === null ? {} : { network }),
    // Not in the contract; clients ignore it, people ask for it: why a sandbox failed.
    ...(failed ? { failure_reason: sandbox.end.reason, failure_detail: sandbox.end.detail } : {}),
  };
}

/** Which secrets it has, never more of them than the name; nothing when it has none. */
export function presentSecrets(bindings: readonly NamedBinding[]): Record<string, unknown> {
  if (bindings.length === 0) return {};
  return { secrets: bindings.map(({ variable, secretName, revoked }) => ({ env_key: variable, secret_name: secretName, ...(revoked ? { revoked } : {}) })) };
}

/** The snapshot object (contract, section 4.11). */
export function presentSnapshot(snapshot: Snapshot): Record<string, unknown> {
  const { captured, checkpoint, readyAt } = snapshot;
  return {
    id: snapshot.id,
    sandbox_id: snapshot.sandboxId,
    template_id: parseTemplateId(captured.template.id) ?? templateUuid(captured.template.name),
    kind: 'mem+fs',
    status: isReady(snapshot) ? 'ready' : 'creating',
    ...(snapshot.name === null ? {} : { name: snapshot.name }),
    size_bytes: checkpoint?.bytes ?? 0,
    resources: { vcpu_count: captured.limits.vcpus, memory_mib: captured.limits.memoryMb, disk_mib: captured.limits.diskMb },
    created_at: timestamp(snapshot.createdAt),
    ...(readyAt === null ? {} : { ready_at: timestamp(readyAt) }),
  };
}

/** The template object (contract, section 7.1). Built-in ones belong to nobody: `team_id` is the nil UUID. */
export function presentTemplate(template: Pick<Template, 'name'> & Partial<Template>, status: 'ready' | 'building' | 'pending'): Record<string, unknown> {
  const { limits, builtAt, sizeBytes } = template;
  return {
    id: templateUuid(template.name),
    team_id: '00000000-0000-0000-0000-000000000000',
    name: template.name,
    status,
    vcpu: limits?.vcpus ?? 0,
    memory_mib: limits?.memoryMb ?? 0,
    disk_mib: limits?.diskMb ?? 0,
    ...(sizeBytes == null ? {} : { size_bytes: sizeBytes }),
    created_at: timestamp(builtAt ?? 0),
    ...(builtAt == null ? {} : { built_at: timestamp(builtAt) }),
    ...(template.description === undefined ? {} : { description: template.description }),
  };
}

/** The same of a team's own. */
export function presentOwnTemplate(template: OwnTemplate): Record<string, unknown> {
  const { id, teamId, name, status, spec, sizeBytes, errorMessage, createdAt, builtAt, latestBuildId } = template;
  return {
    id,
    team_id: teamId,
    name,
    status,
    vcpu: spec.vcpus,
    memory_mib: spec.memoryMb,
    disk_mib: spec.diskMb,
    ...(sizeBytes === null ? {} : { size_bytes: sizeBytes }),
    ...(errorMessage === null ? {} : { error_message: errorMessage }),
    created_at: timestamp(createdAt),
    ...(builtAt === null ? {} : { built_at: timestamp(builtAt) }),
    latest_build_id: latestBuildId,
  };
}

/** The build object (contract, section 7.1). */
export function presentBuild(build: TemplateBuild): object {
  const { id, templateId, status, specHash, errorMessage, startedAt, finalizedAt, createdAt } = build;
  return {
    id,
    template_id: templateId,
    status,
    build_spec_hash: specHash,
    ...(errorMessage === null ? {} : { error_message: errorMessage }),
    ...(startedAt === null ? {} : { started_at: timestamp(startedAt) }),
    ...(finalizedAt === null ? {} : { finalized_at: timestamp(finalizedAt) }),
    created_at: timestamp(createdAt),
  };
}
