import { setTimeout as sleep } from 'node:timers/promises';
import type { TeamId } from '../ids.ts';
import type { Template } from '../template.ts';
import type { BuildLog } from './build-log.ts';
import { BuildFailure, type BuildHost, type ImageConfig, type RootLayers } from './build-host.ts';
import { failingAs } from './failures.ts';
import type { Stage, Surroundings } from './plan.ts';
import { registryOf, type TemplateSettings } from './settings.ts';
import { notReady, type TemplateShelf } from './shelf.ts';
import { canonicalJson } from './spec.ts';
import type { TemplateId } from './template.ts';

const awaitEveryMs = 500;

/** What a build begins with. Until it is disposed nothing of it goes away. */
export interface Source extends Disposable {
  readonly root: RootLayers;
  readonly surroundings: Surroundings;
  /** What makes an image fit for sandboxes. */
  readonly preparation: readonly Stage[];
}

/** Where the roots of builds come from: a team's template, a built-in one, or an image. */
export class Sources {
  readonly #shelf: TemplateShelf;
  readonly #buildHost: BuildHost;
  readonly #settings: TemplateSettings;

  constructor(shelf: TemplateShelf, buildHost: BuildHost, settings: TemplateSettings) {
    this.#shelf = shelf;
    this.#buildHost = buildHost;
    this.#settings = settings;
  }

  /** Throws `template_not_ready` for a template that cannot be built upon yet; whether an image is there shows in the build. */
  async assertUsable(teamId: TeamId, from: string, self: TemplateId | null): Promise<void> {
    const own = await this.#shelf.findOwn(teamId, from);
    if (own !== null && own.id !== self && own.status !== 'ready') throw notReady(own);
  }

  /** @param self the template that is built: it does not begin with itself. */
  async open(teamId: TeamId, from: string, self: TemplateId, log: BuildLog, signal: AbortSignal): Promise<Source> {
    for (let tries = 0; tries < 5; tries++) {
      const own = await this.#shelf.findOwn(teamId, from);
      if (own === null || own.id === self) break;
      if (own.artefactId === null) throw new BuildFailure('template_gone', `the template ${from} is not ready`);
      const kept = await this.#shelf.keepArtefact(own);
      if (kept === null) continue; // replaced just now
      const { root, env, user, sudo, workdir } = kept.artefact;
      log.say(`from the template ${own.name}`);
      return { root, surroundings: { env, user, sudo, workdir }, preparation: [], [Symbol.dispose]: () => kept.hold[Symbol.dispose]() };
    }
    const builtIn = await this.#builtIn(from, log, signal);
    if (builtIn !== undefined) return ofBuiltIn(builtIn, log);
    const alias = Object.hasOwn(this.#settings.imageAliases, from) ? this.#settings.imageAliases[from] : undefined;
    const meant = alias === undefined ? undefined : await this.#builtIn(alias, log, signal);
    if (meant !== undefined) {
      log.say(`${from} stands for the template ${meant.name} on this server`);
      return ofBuiltIn(meant, log);
    }
    return this.#image(alias ?? from, alias !== undefined, log, signal);
  }

  /** One that is built when it is asked for first is asked for, and waited for. */
  async #builtIn(name: string, log: BuildLog, signal: AbortSignal): Promise<Template | undefined> {
    const { system } = this.#shelf;
    for (let told = false; ; told = true) {
      const found = system.find(name) ?? system.list().find(({ id }) => id === name);
      if (found !== undefined || !this.#shelf.isBuiltIn(name)) return found;
      if (system.offered?.().includes(name) === true) await failingAs('template_gone', signal, async () => system.request?.(name));
      if (!told) log.say(`waiting for the built-in template ${name}, which is being built`);
      await sleep(awaitEveryMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }

  async #image(reference: string, fromOperator: boolean, log: BuildLog, signal: AbortSignal): Promise<Source> {
    const { maxImageBytes, logins } = this.#settings;
    const login = Object.hasOwn(logins, registryOf(reference)) ? logins[registryOf(reference)] : undefined;
    log.say(`from the image ${reference}`);
    const request = { reference, allowPaths: fromOperator, maxBytes: maxImageBytes, onProgress: (line: string) => log.say(line), ...(login === undefined ? {} : { login }) };
    const image = await failingAs('image_pull_failed', signal, () => this.#buildHost.importImage(request, signal));
    log.say(`the image is ${image.digest}`);
    const surroundings = surroundingsOf(image.config);
    return { root: { base: null, layers: [image.layer.id] }, surroundings, preparation: [preparing(surroundings.workdir ?? '/')], [Symbol.dispose]: () => undefined };
  }
}

function ofBuiltIn(template: Template, log: BuildLog): Source {
  log.say(`from the built-in template ${template.name}`);
  return { root: { base: template.digest, layers: [] }, surroundings: { env: template.env, user: null, sudo: true, workdir: null }, preparation: [], [Symbol.dispose]: () => undefined };
}

/** An image's root is taken for no user at all: then each wire's own is the default. */
function surroundingsOf({ env, user, workdir }: ImageConfig): Surroundings {
  const name = (user ?? '').split(':')[0] ?? '';
  const own = name === '' || name === 'root' || name === '0' ? null : name;
  return { env, user: own, sudo: own === null || own === 'user', workdir: workdir === null || workdir === '' || workdir === '/' ? null : workdir.startsWith('/') ? workdir : `/${workdir}` };
}

/**
 * The agent has made the user and the home when this runs. Without a shell there is no step and no command; what else an image may lack
 * comes from here. POSIX sh, since that may be all there is.
 */
const prepareScript = `set -eu
for d in /tmp /var/tmp; do mkdir -p "$d"; chmod 1777 "$d"; done
mkdir -p /home/user /root /run /var/log "$IMAGE_WORKDIR"
if [ -d /etc/dpkg/dpkg.cfg.d ]; then echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/paddock; fi
if [ -d /etc/apt/apt.conf.d ]; then echo 'Acquire::Languages "none";' >/etc/apt/apt.conf.d/90paddock; fi
if [ -d /etc/apt ]; then mkdir -p /var/lib/apt/lists/partial /var/cache/apt/archives/partial; fi
if [ -x /usr/sbin/policy-rc.d ]; then rm -f /usr/sbin/policy-rc.d; fi
rm -f /.dockerenv`;

function preparing(workdir: string): Stage {
  const action = { kind: 'run', step: 0, command: prepareScript, user: 'root', cwd: '/', env: { IMAGE_WORKDIR: workdir } } as const;
  return Object.freeze({ actions: [action], user: 'root', sudo: true, key: canonicalJson(['prepare', prepareScript, workdir]) });
}
