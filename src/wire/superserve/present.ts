import type { Sandbox } from '../../core/sandbox.ts';
import type { Template } from '../../core/template.ts';
import { templateUuid } from './ids.ts';
import { presentNetwork } from './network-rules.ts';
import { statusOf } from './status.ts';

/** RFC 3339, UTC, whole seconds. */
export function timestamp(milliseconds: number): string {
  return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;
}

/** The sandbox object (contract, section 4.1), without a token: lists never have one. */
export function presentSandbox(sandbox: Sandbox): Record<string, unknown> {
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
    ...(sandbox.timeoutSeconds === 0 ? {} : { timeout_seconds: sandbox.timeoutSeconds }),
    ...(network === null ? {} : { network }),
    // Not in the contract; clients ignore it, people ask for it: why a sandbox failed.
    ...(failed ? { failure_reason: sandbox.end.reason, failure_detail: sandbox.end.detail } : {}),
  };
}

/** The template object (contract, section 7.1). Built-in ones belong to nobody: `team_id` is the nil UUID. */
export function presentTemplate(template: Pick<Template, 'name'> & Partial<Template>, status: 'ready' | 'building'): Record<string, unknown> {
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
