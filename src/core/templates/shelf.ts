import { chooseTemplate } from '../create-input.ts';
import { PaddockError } from '../errors.ts';
import type { TeamId } from '../ids.ts';
import type { CoreSettings } from '../settings.ts';
import type { SandboxTemplate } from '../sandbox.ts';
import type { Template, TemplateCatalog } from '../template.ts';
import { Holds } from './holds.ts';
import { parseTemplateId, publicTemplateId, type Artefact, type OwnTemplate, type StartState, type TemplateStore } from './template.ts';

/** What a sandbox is to be made from. Until it is disposed nothing of it goes away. */
export interface Chosen extends Disposable {
  readonly template: Template;
  /** How the sandbox names it. */
  readonly named: SandboxTemplate;
  /** Instead of the wire's own. */
  readonly user: string | null;
  /** Null: an empty guest is booted. */
  readonly start: StartState | null;
}

/** The templates that sandboxes are made from: a team's own, then the built-in ones. */
export class TemplateShelf {
  readonly holds = new Holds();
  readonly system: TemplateCatalog;
  readonly #store: TemplateStore;

  constructor(store: TemplateStore, system: TemplateCatalog) {
    this.#store = store;
    this.system = system;
  }

  /** By name or id; empty means `base`. Throws `not_found`, `template_not_ready`. */
  async choose(teamId: TeamId, requested: string, settings: CoreSettings): Promise<Chosen> {
    // A rebuild may put another artefact in the place of the one that was read.
    for (let tries = 0; tries < 5; tries++) {
      const own = requested === '' ? null : await this.findOwn(teamId, requested);
      if (own === null) return this.#builtIn(requested, settings);
      const chosen = await this.#take(own);
      if (chosen !== null) return chosen;
    }
    throw new PaddockError('conflict', `the template ${requested.slice(0, 128)} is being replaced or deleted; try again`, { field: 'template' });
  }

  /** A team's template by its name or id. */
  async findOwn(teamId: TeamId, nameOrId: string): Promise<OwnTemplate | null> {
    const id = parseTemplateId(nameOrId);
    return id === null ? this.#store.findByName(teamId, nameOrId) : this.#store.find(teamId, id);
  }

  /** Whether a built-in template has this name or id, or will have it. */
  isBuiltIn(name: string): boolean {
    const { system } = this;
    return system.find(name) !== undefined || system.list().some(({ id }) => id === name) || (system.pending?.() ?? []).includes(name) || (system.offered?.() ?? []).includes(name);
  }

  /** The artefact a ready template makes sandboxes from, kept until it is disposed; null when it went away just now. */
  async keepArtefact(own: OwnTemplate): Promise<{ readonly artefact: Artefact; readonly hold: Disposable } | null> {
    if (own.artefactId === null) return null;
    const hold = this.holds.share(`artefact:${own.artefactId}`);
    if (hold === null) return null;
    const artefact = await this.#store.artefact(own.artefactId);
    if (artefact !== null) return { artefact, hold };
    hold[Symbol.dispose]();
    return null;
  }

  /** Whether a checkpoint is a template's, or about to be. */
  async sparedCheckpoints(): Promise<(checkpointId: string) => boolean> {
    // First what is held, then the rows: whoever lets go of one has written its row by then.
    const held = this.holds.sharedUnder('checkpoint:');
    const rows = new Set((await this.#store.artefacts()).flatMap(({ start }) => (start === null ? [] : [start.checkpoint.id])));
    return (id) => rows.has(id) || held.has(`checkpoint:${id}`);
  }

  async #take(own: OwnTemplate): Promise<Chosen | null> {
    if (own.status !== 'ready' || own.artefactId === null) throw notReady(own);
    const template = this.holds.share(`template:${own.id}`);
    if (template === null) return null;
    const kept = await this.keepArtefact(own);
    const digest = kept === null ? null : this.holds.share(`digest:${kept.artefact.digest}`);
    const release = (): void => {
      for (const hold of [template, kept?.hold, digest]) hold?.[Symbol.dispose]();
    };
    if (kept === null || digest === null) {
      release();
      return null;
    }
    const { artefact } = kept;
    return {
      template: templateOf(own, artefact),
      named: Object.freeze({ id: publicTemplateId(own.id), name: own.name, digest: artefact.digest, runtime: Object.freeze({ workdir: artefact.workdir, sudo: artefact.sudo }) }),
      user: artefact.user,
      start: artefact.start,
      [Symbol.dispose]: release,
    };
  }

  #builtIn(requested: string, settings: CoreSettings): Chosen {
    const { template, id, name } = chooseTemplate(requested, this.system, settings);
    return { template, named: Object.freeze({ id, name, digest: template.digest }), user: null, start: null, [Symbol.dispose]: () => undefined };
  }
}

/** A built template in the words of those who make guests. */
export function templateOf(own: Pick<OwnTemplate, 'id' | 'name' | 'builtAt'>, artefact: Pick<Artefact, 'digest' | 'limits' | 'env' | 'sizeBytes'>): Template {
  return Object.freeze({
    id: publicTemplateId(own.id), name: own.name, digest: artefact.digest, description: '', limits: artefact.limits, env: artefact.env, builtAt: own.builtAt, sizeBytes: artefact.sizeBytes,
  });
}

export function notReady(own: OwnTemplate): PaddockError {
  const failed = own.status === 'failed';
  const what = failed ? `is failed (${own.errorMessage ?? 'its build did not end well'}); build it again` : 'is building; try again when its build is ready';
  return new PaddockError('template_not_ready', `the template ${own.name} ${what}`, { field: 'template', ...(failed ? {} : { retryAfterSeconds: 5 }) });
}
