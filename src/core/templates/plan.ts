import { BuildFailure } from './build-host.ts';
import { assertUser, canonicalJson, type Step, type TemplateSpec } from './spec.ts';
import { resolveWord } from './words.ts';
import { PaddockError } from '../errors.ts';

/** What processes get by themselves: variables, user (null is the wire's own), directory (null is the home). */
export interface Surroundings {
  readonly env: Readonly<Record<string, string>>;
  readonly user: string | null;
  /** Whether that user may become root; users that the wires bring always may. */
  readonly sudo: boolean;
  readonly workdir: string | null;
}

/** Something to do inside the guest of a stage. `step` counts from 1, for people. */
export type Action =
  | { readonly kind: 'run'; readonly step: number; readonly command: string; readonly user: string; readonly cwd: string; readonly env: Readonly<Record<string, string>> }
  | { readonly kind: 'workdir'; readonly step: number; readonly path: string; readonly owner: string | null }
  | { readonly kind: 'user'; readonly step: number; readonly name: string };

/** Steps that one guest carries out, whose writes become one layer: at most one `run` or `user`, the last. */
export interface Stage {
  readonly actions: readonly Action[];
  /** The guest's own user, who may use sudo or not. */
  readonly user: string;
  readonly sudo: boolean;
  /** Everything that its result depends on besides the layers below. */
  readonly key: string;
}

export interface Plan {
  readonly stages: readonly Stage[];
  readonly after: Surroundings;
  /** Of the spec; those that only set variables are counted too. */
  readonly steps: number;
}

/** What every process in a sandbox has, and `PATH=/opt/bin:$PATH` goes on from. */
const usual: Readonly<Record<string, string | undefined>> = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };

/** What is to be done for a spec over a root with these surroundings. Throws `BuildFailure` `invalid_spec` for what only shows once variables are known. */
export function planOf(spec: TemplateSpec, base: Surroundings): Plan {
  const env: Record<string, string> = { ...base.env };
  const args: Record<string, string> = {};
  let { user, sudo, workdir } = base;
  let guestUser = user ?? 'root';
  let guestSudo = sudo;
  const stages: Stage[] = [];
  let pending: Action[] = [];
  let seen = env;
  const lookup = (name: string): string | undefined => (Object.hasOwn(seen, name) ? seen[name] : Object.hasOwn(args, name) ? args[name] : usual[name]);
  const value = (step: { readonly word?: true }, text: string): string => (step.word === true ? resolveWord(text, lookup) : text);
  const close = (): void => {
    if (pending.length === 0) return;
    stages.push(Object.freeze({ actions: Object.freeze(pending), user: guestUser, sudo: guestSudo, key: keyOf(pending) }));
    pending = [];
  };
  spec.steps.forEach((step, index) => {
    const number = index + 1;
    const at = <T>(work: () => T): T => numbered(number, work);
    if (step.kind !== 'env' || step.same !== true) seen = step.kind === 'env' ? { ...env } : env;
    switch (step.kind) {
      case 'env':
        env[step.key] = at(() => value(step, step.value));
        break;
      case 'arg':
        args[step.key] = at(() => value(step, step.value));
        break;
      case 'workdir':
        workdir = at(() => absolute(workdir, value(step, step.path)));
        pending.push({ kind: 'workdir', step: number, path: workdir, owner: user !== null && user !== 'root' && mayBeGivenAway(workdir) ? user : null });
        break;
      case 'user':
        close();
        user = at(() => userName(step, value(step, step.name)));
        sudo = step.sudo || user === 'root' || user === 'user'; // the wires' own users always may
        if (user !== 'root' && !/^[0-9]+$/.test(user)) {
          pending.push({ kind: 'user', step: number, name: user });
          close(); // the guest that makes a user cannot be that user's
        }
        guestUser = user;
        guestSudo = sudo;
        break;
      case 'run':
        pending.push({ kind: 'run', step: number, command: step.command, user: user ?? 'root', cwd: workdir ?? '/', env: { ...args, ...env } });
        close();
    }
  });
  close();
  return Object.freeze({ stages: Object.freeze(stages), after: Object.freeze({ env: Object.freeze(env), user, sudo, workdir }), steps: spec.steps.length });
}

/** Numbers of steps are left out: the same work is the same, wherever in the list it stands. */
function keyOf(actions: readonly Action[]): string {
  return canonicalJson(actions.map(({ step: _step, ...rest }) => rest));
}

function numbered<T>(step: number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof BuildFailure) throw new BuildFailure(error.code, `step ${step}: ${error.message}`);
    if (error instanceof PaddockError) throw new BuildFailure('invalid_spec', `step ${step}: ${error.message}`);
    throw error;
  }
}

function userName(step: Step & { readonly kind: 'user' }, text: string): string {
  const [name = '', group] = text.split(':');
  if (group !== undefined && group !== name) throw new BuildFailure('invalid_spec', `a user with another group (${JSON.stringify(text.slice(0, 80))}) cannot be had; give the user only`);
  if (name === '0') return 'root';
  assertUser('the user', step.word === true ? name : text);
  return name;
}

/** Relative ones are taken from the directory before; `.` and `..` are resolved, and do not lead above the root. */
function absolute(before: string | null, path: string): string {
  if (path === '') throw new BuildFailure('invalid_spec', 'the directory is empty once its variables are put in');
  if (path.length > 4095 || path.includes('\0')) throw new BuildFailure('invalid_spec', 'the directory has more than 4095 characters or a NUL');
  const parts: string[] = [];
  for (const part of (path.startsWith('/') ? path : `${before ?? ''}/${path}`).split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}`;
}

const systems = new Set(['bin', 'boot', 'dev', 'etc', 'lib', 'lib32', 'lib64', 'proc', 'root', 'run', 'sbin', 'sys', 'tmp', 'usr', 'var']);

/** A directory of the system stays root's, whoever works in it. */
function mayBeGivenAway(path: string): boolean {
  const parts = path.split('/').filter((part) => part !== '');
  const [first] = parts;
  if (first === undefined) return false;
  if (systems.has(first)) return parts.length > 2;
  return parts.length > 1 || !['home', 'mnt', 'media', 'opt', 'srv'].includes(first);
}
