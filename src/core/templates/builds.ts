import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import { PaddockError } from '../errors.ts';
import type { EventLog } from '../events.ts';
import type { Host } from '../host.ts';
import type { TeamId } from '../ids.ts';
import type { Store } from '../store.ts';
import type { Limits } from '../template.ts';
import type { Tokens } from '../tokens.ts';
import type { BuildLog, BuildLogs } from './build-log.ts';
import { BuildFailure, type BuildHost, type RootLayers } from './build-host.ts';
import { failingAs, failureOf, readyLine } from './failures.ts';
import { planOf, type Surroundings } from './plan.ts';
import type { TemplateSettings } from './settings.ts';
import { templateOf, type TemplateShelf } from './shelf.ts';
import { Sources } from './sources.ts';
import { Stages } from './stages.ts';
import { startState, startTimes, type StartTimes } from './start-command.ts';
import { canonicalJson } from './spec.ts';
import { buildsInFlight, type Artefact, type ArtefactId, type BuildId, type OwnTemplate, type TemplateBuild, type TemplateId } from './template.ts';

export interface BuildsDeps {
  readonly store: Pick<Store, 'templates' | 'layerCache'>;
  readonly host: Host;
  readonly buildHost: BuildHost;
  readonly shelf: TemplateShelf;
  readonly logs: BuildLogs;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly events: EventLog;
  readonly settings: TemplateSettings;
  readonly times?: StartTimes;
  /** Called when a build is over: something may have become superfluous. */
  readonly over: () => void;
}

interface Active {
  readonly build: TemplateBuild;
  readonly template: OwnTemplate;
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

/** Of all teams. */
const mostWaiting = 200;
/** Processes and threads in a sandbox of a built template. */
const pids = 1024;

/** The builds under way: a bounded queue, so many at once, each with a deadline, each ended whenever somebody asks. */
export class Builds {
  readonly #deps: BuildsDeps;
  readonly #sources: Sources;
  readonly #stages: Stages;
  readonly #active = new Map<BuildId, Active>();
  readonly #starting = new Map<TeamId, number>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  #stopped = false;

  constructor(deps: BuildsDeps) {
    this.#deps = deps;
    this.#sources = new Sources(deps.shelf, deps.buildHost, deps.settings);
    this.#stages = new Stages({ host: deps.host, buildHost: deps.buildHost, cache: deps.store.layerCache, clock: deps.clock, tokens: deps.tokens });
  }

  /** What a build was doing when the server ended is gone: it has failed. Called once, when the guests of before have been removed. */
  async start(): Promise<void> {
    const { store, clock, logs } = this.#deps;
    for (const build of await store.templates.unfinishedBuilds()) {
      const message = 'build_failed: the server was restarted while the template was being built; build it again';
      await store.templates.finishFailed(build.id, 'failed', message, clock.now());
      const log = await logs.reopen(build.id);
      log.say(message);
      await logs.close(build.id);
    }
  }

  /** Ends every build, and resolves when nothing of them is left. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const { abort } of this.#active.values()) abort.abort(new BuildFailure('build_failed', 'the server was stopped while the template was being built; build it again'));
    await Promise.all([...this.#active.values()].map((active) => active.done));
  }

  /** Throws `template_not_ready` when it begins with a template that is not. */
  assertUsable(teamId: TeamId, from: string, self: TemplateId | null): Promise<void> {
    return this.#sources.assertUsable(teamId, from, self);
  }

  /** A place among the builds of a team, until it is disposed. Throws `concurrency_limit`. */
  reserve(teamId: TeamId): Disposable {
    if (this.#stopped) throw new PaddockError('no_capacity', 'the server is stopping; try again in a moment', { retryAfterSeconds: 5 });
    const { maxTeamBuilds } = this.#deps.settings;
    const starting = this.#starting.get(teamId) ?? 0;
    const count = starting + [...this.#active.values()].filter(({ build }) => build.teamId === teamId).length;
    if (count >= maxTeamBuilds || this.#active.size >= mostWaiting) {
      throw new PaddockError('concurrency_limit', `${count} builds of this team are under way, and the limit is ${maxTeamBuilds}; wait for them, or cancel some`, { reason: 'too_many_builds', retryAfterSeconds: 10 });
    }
    this.#starting.set(teamId, starting + 1);
    return {
      [Symbol.dispose]: () => {
        const left = (this.#starting.get(teamId) ?? 1) - 1;
        if (left > 0) this.#starting.set(teamId, left);
        else this.#starting.delete(teamId);
      },
    };
  }

  /** Begins a build that the store has as `pending`. */
  begin(template: OwnTemplate, build: TemplateBuild): void {
    const abort = new AbortController();
    const log = this.#deps.logs.open(build.id);
    log.say('build queued, waiting for dispatch');
    const { promise, resolve } = Promise.withResolvers<void>();
    const active: Active = { build, template, abort, done: promise };
    this.#active.set(build.id, active);
    void this.#carryOut(active, log).finally(async () => {
      await this.#deps.logs.close(build.id);
      this.#active.delete(build.id);
      this.#deps.over();
      resolve();
    });
  }

  /** False when it was over already. What it holds is taken back afterwards. */
  async cancel(build: TemplateBuild): Promise<boolean> {
    const cancelled = await this.#deps.store.templates.finishFailed(build.id, 'cancelled', 'cancelled: the build was cancelled', this.#deps.clock.now());
    if (cancelled) this.#active.get(build.id)?.abort.abort(new BuildFailure('cancelled', 'the build was cancelled'));
    return cancelled;
  }

  /** Resolves when nothing of a build is left, at once when it is over. */
  async settled(id: BuildId): Promise<void> {
    await this.#active.get(id)?.done;
  }

  get count(): number {
    return this.#active.size;
  }

  async #carryOut({ build, template, abort }: Active, log: BuildLog): Promise<void> {
    const { store, clock, settings, events } = this.#deps;
    const { signal } = abort;
    const begun = clock.now();
    let timer: NodeJS.Timeout | undefined;
    try {
      await this.#turn(signal);
      try {
        signal.throwIfAborted();
        const overdue = new BuildFailure('timeout', `the build took longer than ${settings.buildTimeoutSeconds} s, which is as long as a build may take here`);
        timer = setTimeout(() => abort.abort(overdue), settings.buildTimeoutSeconds * 1000);
        if ((await store.templates.moveBuild(build.id, ['pending'], 'building', clock.now())) === null) throw new BuildFailure('cancelled', 'the build was cancelled');
        await this.#make(template, build, log, signal);
      } finally {
        this.#pass();
      }
      log.say(readyLine);
      events.ofTeam(build.teamId, 'template_built', { templateId: template.id, template: template.name, buildId: build.id, durationMs: clock.now() - begun }, 'template');
    } catch (thrown) {
      const { code, message } = failureOf(thrown, 'build_failed', signal);
      const text = `${code}: ${message}`;
      log.closeLines();
      log.say(text);
      events.ofTeam(build.teamId, 'template_build_failed', { templateId: template.id, template: template.name, buildId: build.id, code, message }, 'template');
      // When the store cannot take it now, the next start does it.
      await store.templates.finishFailed(build.id, code === 'cancelled' ? 'cancelled' : 'failed', text, clock.now()).catch(() => false);
    } finally {
      clearTimeout(timer);
    }
  }

  async #make(template: OwnTemplate, build: TemplateBuild, log: BuildLog, signal: AbortSignal): Promise<void> {
    const { shelf, settings, store, clock } = this.#deps;
    const { spec } = template;
    using held = new DisposableStack();
    held.use(await untilShared(() => shelf.holds.share('layers'), signal)); // layers are not tidied up meanwhile
    for (const note of spec.notes) log.say(note);
    const source = held.use(await this.#sources.open(build.teamId, spec.from, template.id, log, signal));
    const limits: Limits = Object.freeze({ vcpus: spec.vcpus, memoryMb: spec.memoryMb, diskMb: spec.diskMb, pids });
    const setting = { teamId: build.teamId, limits, network: settings.network, steps: spec.steps.length, log };
    const prepared = await this.#stages.over(source.root, source.preparation, setting, signal);
    const plan = planOf(spec, source.surroundings);
    const root = await this.#stages.over(prepared, plan.stages, setting, signal);
    const artefact = (await this.#unchanged(template, root, plan.after, held)) ?? (await this.#install(template, build, root, limits, plan.after, log, signal, held));
    signal.throwIfAborted();
    if (!(await store.templates.finishReady(build.id, artefact, clock.now()))) throw new BuildFailure('cancelled', 'the build was cancelled');
  }

  /** The artefact of before, when everything that went into it is the same and all of it is there. */
  async #unchanged(template: OwnTemplate, root: RootLayers, after: Surroundings, held: DisposableStack): Promise<Artefact | null> {
    const { shelf, buildHost, host, store } = this.#deps;
    const now = await store.templates.find(template.teamId, template.id);
    const kept = now === null ? null : await shelf.keepArtefact(now);
    if (kept === null) return null;
    held.use(kept.hold);
    const { artefact } = kept;
    const { env, user, sudo, workdir } = artefact;
    if (artefact.specHash !== template.specHash || canonicalJson([artefact.root, { env, user, sudo, workdir }]) !== canonicalJson([root, after])) return null;
    if (!(await buildHost.installedTemplates()).includes(artefact.digest)) return null;
    const { start } = artefact;
    return start === null || (await host.checkpoints()).some(({ id }) => id === start.checkpoint.id) ? artefact : null;
  }

  async #install(template: OwnTemplate, build: TemplateBuild, root: RootLayers, limits: Limits, after: Surroundings, log: BuildLog, signal: AbortSignal, held: DisposableStack): Promise<Artefact> {
    const { shelf, buildHost, store, clock, settings } = this.#deps;
    const { spec } = template;
    const saving = async (): Promise<void> => {
      if ((await store.templates.moveBuild(build.id, buildsInFlight, 'snapshotting', clock.now())) === null) throw new BuildFailure('cancelled', 'the build was cancelled');
    };
    const needsStart = spec.startCommand !== null || spec.readyCommand !== null;
    if (!needsStart) await saving();
    let installed = await failingAs('snapshot_failed', signal, () => buildHost.installTemplate({ name: template.name, root, limits, env: after.env }));
    // Its equal may be on the way out at this very moment.
    for (let hold = shelf.holds.share(`digest:${installed.digest}`); ; hold = shelf.holds.share(`digest:${installed.digest}`)) {
      if (hold !== null) {
        held.use(hold);
        break;
      }
      await sleep(50, undefined, { signal }).catch(() => signal.throwIfAborted());
      installed = await failingAs('snapshot_failed', signal, () => buildHost.installTemplate({ name: template.name, root, limits, env: after.env }));
    }
    const basics = { digest: installed.digest, sizeBytes: installed.sizeBytes, limits, ...after };
    const input = { template: templateOf(template, basics), teamId: build.teamId, network: settings.network, surroundings: after, defaultUser: spec.defaultUser, startCommand: spec.startCommand, readyCommand: spec.readyCommand, log, saving };
    const started = needsStart ? await startState({ ...this.#deps, holds: shelf.holds, times: this.#deps.times ?? startTimes }, input, signal) : null;
    if (started !== null) held.use(started.hold);
    return Object.freeze({
      ...basics, id: randomUUID() as ArtefactId, templateId: template.id, teamId: build.teamId, root, specHash: template.specHash, start: started?.state ?? null, createdAt: clock.now(),
    });
  }

  /** Waits for its turn among those that run. */
  async #turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#running < this.#deps.settings.buildsAtOnce) {
      this.#running++;
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = (): void => {
      const at = this.#waiting.indexOf(resolve);
      if (at < 0) return; // its turn came first
      this.#waiting.splice(at, 1);
      reject(signal.reason as Error);
    };
    this.#waiting.push(resolve);
    signal.addEventListener('abort', leave, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  /** The turn goes to the next one, or is free. */
  #pass(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#running--;
    else next();
  }
}

async function untilShared(share: () => Disposable | null, signal: AbortSignal): Promise<Disposable> {
  for (;;) {
    const hold = share();
    if (hold !== null) return hold;
    await sleep(100, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
