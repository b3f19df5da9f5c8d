import assert from 'node:assert/strict';
import { it } from 'node:test';
import { PaddockError } from '../../core/errors.ts';
import { templateInput } from './template-build.ts';
import type { BuildBodyType } from './schemas/templates.ts';

const install = (names: string): string => `export DEBIAN_FRONTEND=noninteractive && apt-get update && apt-get install -y --no-install-recommends ${names} && rm -rf /var/lib/apt/lists/*`;

it('a nested body becomes steps in order: environment, packages, commands', () => {
  const { name, spec } = templateInput({ alias: 'a', cpu_count: 2, template: { base_image: 'debian:12', envs: { A: '1' }, packages: ['curl'], apt_packages: ['g++', 'libc6:amd64', 'vim=2:9.0-1'], run_cmds: ['x', 'y'], start_cmd: 's', ready_cmd: 'r' } });
  assert.equal(name, 'a');
  assert.deepEqual(spec, {
    from: 'debian:12', defaultUser: 'user', startCommand: 's', readyCommand: 'r', vcpus: 2,
    steps: [{ kind: 'env', key: 'A', value: '1' }, { kind: 'run', command: install('curl g++ libc6:amd64 vim=2:9.0-1') }, { kind: 'run', command: 'x' }, { kind: 'run', command: 'y' }],
  });
});

it('a flat body of the oldest clients is taken, with a name made up', () => {
  const { name, spec } = templateInput({ run_cmds: ['x'], background: true });
  assert.match(name, /^template-[0-9a-f]{10}$/);
  assert.deepEqual([spec.from, spec.steps], ['ubuntu:22.04', [{ kind: 'run', command: 'x' }]]);
  assert.equal(templateInput({ alias: 'mine', run_cmds: ['x'] }).name, 'mine');
});

it('a Dockerfile alone counts, and the log says what stood beside it', () => {
  const { spec } = templateInput({ alias: 'a', template: { dockerfile: 'FROM x\nRUN y', run_cmds: ['z'], start_cmd: 's' } });
  assert.deepEqual([spec.from, spec.steps, spec.startCommand], ['x', [{ kind: 'run', command: 'y' }], 's']);
  assert.deepEqual(spec.notes, ['run_cmds beside a Dockerfile: the Dockerfile alone counts']);
});

const refused: [BuildBodyType, string][] = [
  [{ template: {} }, 'alias is required'],
  [{ alias: '', template: {} }, 'alias is required'],
  [{ alias: 'a', template: { copies: [{}] } }, 'template.copies cannot be used: the clients do not send the files. Fetch them in run_cmds, or write them to a sandbox and take a snapshot'],
  [{ alias: 'a', copies: [{}] }, 'copies cannot be used: the clients do not send the files. Fetch them in run_cmds, or write them to a sandbox and take a snapshot'],
  ...['-y', '--allow-unauthenticated', 'a b', '$(id)', 'A', 'a;b', './x.deb', 'a\nb', ''].map((each): [BuildBodyType, string] => [{ alias: 'a', template: { packages: [each] } }, `template.packages has ${JSON.stringify(each)}, which is not the name of a Debian package`]),
];
for (const [body, message] of refused) {
  it(`is refused: ${JSON.stringify(body)}`, () => {
    assert.throws(() => templateInput(body), (error: unknown) => error instanceof PaddockError && error.code === 'invalid_argument' && error.message === message);
  });
}
