import { createHash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { PaddockError } from '../errors.ts';
import type { Guest, Host, ProcessExit } from '../host.ts';
import { newSandboxId, type TeamId } from '../ids.ts';
import type { NetworkPolicy } from '../network/rules.ts';
import type { Limits } from '../template.ts';
import type { Tokens } from '../tokens.ts';
import type { BuildLog } from './build-log.ts';
import { BuildFailure, type BuildHost, type LayerId, type RootLayers } from './build-host.ts';
import { failingAs } from './failures.ts';
import type { Action, Stage } from './plan.ts';
import type { LayerCache } from './template.ts';

export interface StagesDeps {
  readonly host: Pick<Host, 'guest' | 'destroy'>;
  readonly buildHost: BuildHost;
  readonly cache: LayerCache;
  readonly clock: Clock;
  readonly tokens: Tokens;
}

/** What the stages of one build have in common. */
export interface StageSetting {
  readonly teamId: TeamId;
  readonly limits: Limits;
  readonly network: NetworkPolicy;
  /** Of the whole spec, for what is said of one step. */
  readonly steps: number;
  readonly log: BuildLog;
}

/** Carries out the stages of builds: each in a guest of its own, whose writes become a layer; one that was done before is not done again. */
export class Stages {
  readonly #deps: StagesDeps;

  constructor(deps: StagesDeps) {
    this.#deps = deps;
  }

  /** The root with the layers of all stages over it. */
  async over(root: RootLayers, stages: readonly Stage[], setting: StageSetting, signal: AbortSignal): Promise<RootLayers> {
    const { cache, clock } = this.#deps;
    let { layers } = root;
    let key = digest(`root ${root.base ?? ''} ${root.layers.join(' ')}`);
    for (const stage of stages) {
      signal.throwIfAborted();
      key = digest(`${key} ${stage.key}`);
      let layer = await this.#cached(setting.teamId, key);
      if (layer === null) {
        layer = await this.#run({ base: root.base, layers }, stage, setting, signal);
        await cache.put(setting.teamId, key, layer, clock.now());
      } else for (const action of stage.actions) setting.log.say(`${titleOf(action, setting)} (as before)`);
      layers = [...layers, layer];
    }
    return { base: root.base, layers };
  }

  async #cached(teamId: TeamId, key: string): Promise<LayerId | null> {
    const { cache, buildHost, clock } = this.#deps;
    const layer = await cache.find(teamId, key, clock.now());
    if (layer === null) return null;
    if ((await buildHost.knownLayers([layer])).has(layer)) return layer;
    await cache.remove(teamId, key);
    return null;
  }

  async #run(root: RootLayers, stage: Stage, setting: StageSetting, signal: AbortSignal): Promise<LayerId> {
    const { host, buildHost, tokens } = this.#deps;
    const { limits, teamId, network, log } = setting;
    const id = newSandboxId();
    // Variables come with each process: what a step does not have yet, it must not see.
    const identity = { sandboxId: id, hostname: `build-${id.slice(0, 8)}`, agentToken: tokens.agent({ id, generation: 1 }), defaultUser: stage.user, sudo: stage.sudo, env: {} };
    try {
      await failingAs('boot_failed', signal, () => buildHost.provisionStep({ root, limits, identity, teamId, network }, signal));
      const guest = host.guest(id);
      for (const action of stage.actions) await this.#act(guest, action, setting, signal);
      return (await failingAs('build_failed', signal, () => buildHost.sealStep(id, signal))).id;
    } finally {
      log.closeLines();
      // Nothing of it may be left, also when the build has failed or its time is up.
      await host.destroy(id);
    }
  }

  async #act(guest: Guest, action: Action, setting: StageSetting, signal: AbortSignal): Promise<void> {
    const { log, steps } = setting;
    const begun = this.#deps.clock.now();
    log.say(titleOf(action, setting));
    const failed = (what: string): BuildFailure =>
      action.step === 0
        ? new BuildFailure('boot_failed', `the image could not be prepared, which takes a shell at /bin/sh and the usual small tools: ${what}`)
        : new BuildFailure('step_failed', `step ${action.step}/${steps} failed after ${Math.round((this.#deps.clock.now() - begun) / 1000)}s: ${what}`);
    let exit: ProcessExit | null = null;
    try {
      for await (const event of guest.run({ ...processOf(action), kind: 'command', stdin: false }, signal)) {
        if (event.type === 'stdout' || event.type === 'stderr') log.write(event.type, event.data);
        else if (event.type === 'gap') log.say(`... ${event.lostBytes} bytes of output were lost`);
        else if (event.type === 'exit') exit = event.exit;
      }
    } catch (error) {
      if (signal.aborted) throw error;
      const { code, message, detail } = PaddockError.from(error);
      throw failed(code === 'gone' ? `its guest ended${detail.reason === undefined ? '' : `: ${reasons[detail.reason] ?? detail.reason}`}` : message);
    }
    log.closeLines();
    signal.throwIfAborted();
    if (exit === null) throw failed('its guest was lost');
    if (exit.exitCode === 0) return;
    if (exit.reason === 'out_of_memory') throw failed(`it ran out of memory; the template has ${setting.limits.memoryMb} MiB`);
    throw failed(exit.signal === null ? `exited with code ${exit.exitCode}` : `ended by ${exit.signal}`);
  }
}

const reasons: Readonly<Record<string, string>> = { out_of_memory: 'it ran out of memory' };

/** What the guest runs, always as root but for a `run`. */
function processOf(action: Action): { readonly cmd: string; readonly argv: readonly string[]; readonly user: string; readonly cwd: string; readonly env?: Readonly<Record<string, string>> } {
  if (action.kind === 'run') return { cmd: action.command, argv: ['/bin/sh', '-c', action.command], user: action.user, cwd: action.cwd, env: action.env };
  const [script, ...args] = action.kind === 'workdir' ? [makeDirectory, action.path, action.owner ?? ''] : [makeUser, action.name];
  return { cmd: script!, argv: ['/bin/sh', '-ec', script!, 'sh', ...args], user: 'root', cwd: '/' };
}

const makeDirectory = `mkdir -p "$1"
if [ -n "$2" ]; then chown "$2:$(id -g "$2" 2>/dev/null || echo "$2")" "$1"; fi`;

/** With the tools of Debian's kind, or busybox's, or none. */
const makeUser = `if id -u "$1" >/dev/null 2>&1; then exit 0; fi
shell=/bin/sh
if [ -x /bin/bash ]; then shell=/bin/bash; fi
if command -v useradd >/dev/null 2>&1; then useradd -m -s "$shell" "$1"; exit 0; fi
if command -v adduser >/dev/null 2>&1; then adduser -D -s "$shell" "$1"; exit 0; fi
n=1001
while cut -d: -f3 /etc/passwd | grep -qx "$n"; do n=$((n + 1)); done
echo "$1:x:$n:$n::/home/$1:$shell" >>/etc/passwd
echo "$1:x:$n:" >>/etc/group
mkdir -p "/home/$1"
chown "$n:$n" "/home/$1"`;

function titleOf(action: Action, { steps }: StageSetting): string {
  if (action.step === 0) return 'preparing the image';
  const [first = '', ...more] = action.kind === 'run' ? action.command.split('\n') : [];
  const what = action.kind === 'run' ? `run ${first.slice(0, 200)}${more.length > 0 || first.length > 200 ? ' …' : ''}` : action.kind === 'workdir' ? `workdir ${action.path}` : `user ${action.name}`;
  return `step ${action.step}/${steps}: ${what}`;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
