import { randomBytes } from 'node:crypto';
import { PaddockError } from '../../core/errors.ts';
import { parseDockerfile } from '../../core/templates/dockerfile.ts';
import type { SpecFields, SpecInput, Step } from '../../core/templates/spec.ts';
import type { CreateTemplate } from '../../core/templates/templates.ts';
import type { BuildBodyType } from './schemas/templates.ts';

const defaultImage = 'ubuntu:22.04';
/** As Debian has them, with an architecture or a version behind. */
const packageName = /^[a-z0-9][a-z0-9+.-]*(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?$/;
const mostPackages = 500;

/**
 * A build of this wire in the words of the core: nested or flat, with a Dockerfile or without.
 *
 * @param body the checked body, without nulls.
 * @throws PaddockError naming the field that cannot be used.
 */
export function templateInput(body: BuildBodyType): CreateTemplate {
  const nested = body.template !== undefined;
  const prefix = nested ? 'template.' : '';
  const template = body.template ?? body;
  const { alias } = body;
  if (alias === '' || (alias === undefined && nested)) throw new PaddockError('invalid_argument', 'alias is required', { field: 'alias' });
  // The oldest clients knew none.
  const name = alias ?? `template-${randomBytes(5).toString('hex')}`;
  const spec = template.dockerfile === undefined ? structured(template, prefix) : ofDockerfile(template, template.dockerfile, prefix);
  return {
    name,
    nameField: 'alias',
    fields: fieldsOf(prefix, template.dockerfile !== undefined),
    spec: {
      ...spec,
      defaultUser: 'user',
      ...(template.start_cmd === undefined ? {} : { startCommand: template.start_cmd }),
      ...(template.ready_cmd === undefined ? {} : { readyCommand: template.ready_cmd }),
      ...sizesOf(body.cpu_count, body.memory_mb, body.disk_mb),
    },
  };
}

function sizesOf(vcpus?: number, memoryMb?: number, diskMb?: number): Pick<SpecInput, 'vcpus' | 'memoryMb' | 'diskMb'> {
  return { ...(vcpus === undefined ? {} : { vcpus }), ...(memoryMb === undefined ? {} : { memoryMb }), ...(diskMb === undefined ? {} : { diskMb }) };
}

type Template = NonNullable<BuildBodyType['template']>;

function structured(template: Template, prefix: string): SpecInput {
  assertNoCopies(template, prefix);
  const packages = [...(template.packages ?? []), ...(template.apt_packages ?? [])];
  if (packages.length > mostPackages) throw new PaddockError('invalid_argument', `${prefix}packages has ${packages.length} names; the limit is ${mostPackages}`, { field: `${prefix}packages` });
  const odd = packages.find((each) => each.length > 200 || !packageName.test(each));
  if (odd !== undefined) throw new PaddockError('invalid_argument', `${prefix}packages has ${JSON.stringify(odd.slice(0, 80))}, which is not the name of a Debian package`, { field: `${prefix}packages` });
  const steps: Step[] = [
    ...Object.entries(template.envs ?? {}).map(([key, value]): Step => ({ kind: 'env', key, value })),
    ...(packages.length === 0 ? [] : [{ kind: 'run', command: install(packages) } as const]),
    ...(template.run_cmds ?? []).map((command): Step => ({ kind: 'run', command })),
  ];
  return { from: template.base_image ?? defaultImage, steps };
}

function ofDockerfile(template: Template, dockerfile: string, prefix: string): SpecInput {
  const { from, steps, notes } = parseDockerfile(dockerfile, `${prefix}dockerfile`);
  const beside = (['base_image', 'run_cmds', 'envs', 'packages', 'apt_packages', 'copies'] as const).filter((name) => template[name] !== undefined);
  return { from, steps, notes: beside.length === 0 ? notes : [`${beside.join(', ')} beside a Dockerfile: the Dockerfile alone counts`, ...notes] };
}

function assertNoCopies({ copies }: Template, prefix: string): void {
  if (copies === undefined || copies.length === 0) return;
  throw new PaddockError('invalid_argument', `${prefix}copies cannot be used: the clients do not send the files. Fetch them in run_cmds, or write them to a sandbox and take a snapshot`, { field: `${prefix}copies` });
}

function install(packages: readonly string[]): string {
  return `export DEBIAN_FRONTEND=noninteractive && apt-get update && apt-get install -y --no-install-recommends ${packages.join(' ')} && rm -rf /var/lib/apt/lists/*`;
}

function fieldsOf(prefix: string, dockerfile: boolean): SpecFields {
  return {
    from: dockerfile ? `${prefix}dockerfile FROM` : `${prefix}base_image`,
    startCommand: `${prefix}start_cmd`,
    readyCommand: `${prefix}ready_cmd`,
    vcpus: 'cpu_count',
    memoryMb: 'memory_mb',
    diskMb: 'disk_mb',
    step: (index) => (dockerfile ? `${prefix}dockerfile step ${index + 1}` : `${prefix}(envs, packages, run_cmds)[${index}]`),
  };
}
