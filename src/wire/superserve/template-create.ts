import { Type } from 'typebox';
import { plainFields, type SpecInput, type Step } from '../../core/templates/spec.ts';
import type { CreateTemplate } from '../../core/templates/templates.ts';
import { bodyReader, optional, strict } from './body.ts';
import { badRequest } from './errors.ts';
import { assertRange } from './limits.ts';

const StepBody = strict({
  run: optional(Type.String()),
  env: optional(strict({ key: Type.String(), value: Type.String() })),
  workdir: optional(Type.String()),
  user: optional(strict({ name: Type.String(), sudo: optional(Type.Boolean()) })),
});

export const CreateBody = strict({
  name: optional(Type.String()),
  vcpu: optional(Type.Integer()),
  memory_mib: optional(Type.Integer()),
  disk_mib: optional(Type.Integer()),
  build_spec: optional(strict({ from: optional(Type.String()), steps: optional(Type.Array(StepBody)), start_cmd: optional(Type.String()), ready_cmd: optional(Type.String()) })),
});

const readBody = bodyReader(CreateBody, {
  fields: ['alias', 'template', 'cpu_count', 'memory_mb', 'disk_mb'],
  advice: 'belongs to the Declaw API, which this server has at its root: set DECLAW_DOMAIN (or DECLAW_API_URL) to this server without /superserve.',
});

const namePattern = /^[a-z0-9]([a-z0-9._/-]*[a-z0-9])?$/;
const userPattern = /^[a-z_][a-z0-9_-]{0,30}$/;

/**
 * The body of `POST /templates` (contract, section 7.2) in the words of the core, which keeps the operator's own limits besides.
 *
 * @throws PaddockError naming field and limit.
 */
export function readTemplateCreate(received: unknown): CreateTemplate {
  const { name, vcpu, memory_mib: memoryMb, disk_mib: diskMb, build_spec: spec } = readBody(received);
  if (name === undefined || name === '') throw badRequest('name', 'is required: 1 to 128 characters');
  if (name.length > 128 || !namePattern.test(name)) throw badRequest('name', `must have at most 128 characters and match ${namePattern.source}, but is ${JSON.stringify(name.slice(0, 140))}`);
  if (vcpu !== undefined) assertRange('vcpu', vcpu, 1, 10);
  if (memoryMb !== undefined) assertRange('memory_mib', memoryMb, 256, 20_480);
  if (diskMb !== undefined) assertRange('disk_mib', diskMb, 1024, 65_536);
  if (spec === undefined) throw badRequest('build_spec', 'is required');
  const { from, steps, start_cmd: startCommand, ready_cmd: readyCommand } = spec;
  if (from == null || from === '') throw badRequest('build_spec.from', 'is required: an image or a template');
  const unusable = /alpine|distroless/i.exec(from)?.[0];
  if (unusable !== undefined) throw badRequest('build_spec.from', `must not be an image of ${unusable.toLowerCase()}: templates need glibc and a shell`);
  return {
    name,
    fields: { ...plainFields, from: 'build_spec.from', startCommand: 'build_spec.start_cmd', readyCommand: 'build_spec.ready_cmd', step: (index) => `build_spec.steps[${index}]` },
    spec: {
      from,
      steps: (steps ?? []).map(readStep),
      defaultUser: 'root',
      ...sizes(vcpu, memoryMb, diskMb),
      ...(startCommand == null ? {} : { startCommand }),
      ...(readyCommand == null ? {} : { readyCommand }),
    },
  };
}

function sizes(vcpus: number | undefined, memoryMb: number | undefined, diskMb: number | undefined): Pick<SpecInput, 'vcpus' | 'memoryMb' | 'diskMb'> {
  return { ...(vcpus === undefined ? {} : { vcpus }), ...(memoryMb === undefined ? {} : { memoryMb }), ...(diskMb === undefined ? {} : { diskMb }) };
}

interface RawStep {
  readonly run?: string | null;
  readonly env?: { readonly key: string; readonly value: string } | null;
  readonly workdir?: string | null;
  readonly user?: { readonly name: string; readonly sudo?: boolean | null } | null;
}

function readStep({ run, env, workdir, user }: RawStep, index: number): Step {
  const field = `build_spec.steps[${index}]`;
  if ([run, env, workdir, user].filter((each) => each != null).length !== 1) throw badRequest(field, 'must have exactly one of run, env, workdir, user');
  if (run != null) return { kind: 'run', command: run };
  if (env != null) return { kind: 'env', key: env.key, value: env.value };
  if (workdir != null) return { kind: 'workdir', path: workdir };
  if (!userPattern.test(user!.name)) throw badRequest(`${field}.user.name`, `must match ${userPattern.source}, but is ${JSON.stringify(user!.name.slice(0, 80))}`);
  return { kind: 'user', name: user!.name, sudo: user!.sudo ?? false };
}
