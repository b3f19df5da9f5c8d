import { randomUUID } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { PaddockError } from '../errors.ts';
import type { EventLog } from '../events.ts';
import type { Host } from '../host.ts';
import type { TeamId } from '../ids.ts';
import type { SandboxTemplate } from '../sandbox.ts';
import type { Principal } from '../principal.ts';
import type { Store } from '../store.ts';
import type { Tokens } from '../tokens.ts';
import { Turns } from '../turns.ts';
import { BuildLogs } from './build-log.ts';
import { Builds } from './builds.ts';
import type { BuildHost } from './build-host.ts';
import type { TemplateSettings } from './settings.ts';
import type { TemplateShelf } from './shelf.ts';
import { assertTemplateName, parseSpec, plainFields, specHash, type SpecFields, type SpecInput, type TemplateSpec } from './spec.ts';
import type { StartTimes } from './start-command.ts';
import { TemplateSweep } from './sweep.ts';
import { buildsInFlight, parseTemplateId, publicTemplateId, type BuildId, type LogLine, type OwnTemplate, type TemplateBuild, type TemplateId } from './template.ts';

export interface TemplatesDeps {
  readonly store: Store;
  readonly host: Host;
  readonly buildHost: BuildHost;
  readonly shelf: TemplateShelf;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly events: EventLog;
  readonly settings: TemplateSettings;
  /** Of start commands; tests have shorter ones. */
  readonly times?: StartTimes;
  /** Gets what fails with nobody waiting. */
  readonly report: (error: PaddockError) => void;
}

export interface CreateTemplate {
  readonly name: string;
  readonly spec: SpecInput;
  /** What the caller calls the fields. */
  readonly fields?: SpecFields;
  readonly nameField?: string;
}

/** The templates of teams: made by builds, never changed, each the team's own. */
export class Templates {
  readonly settings: TemplateSettings;
  readonly #deps: TemplatesDeps;
  readonly #logs: BuildLogs;
  readonly #builds: Builds;
  readonly #sweep: TemplateSweep;
  readonly #turns = new Turns<TeamId>();

  constructor(deps: TemplatesDeps) {
    this.#deps = deps;
    this.settings = deps.settings;
    this.#logs = new BuildLogs(deps.store.buildLogs, deps.clock);
    this.#sweep = new TemplateSweep(deps);
    this.#builds = new Builds({ ...deps, logs: this.#logs, over: () => this.#sweep.soon() });
  }

  async start(): Promise<void> {
    await this.#builds.start();
    this.#sweep.start();
  }

  async stop(): Promise<void> {
    await this.#builds.stop();
    await this.#sweep.stop();
  }

  /** Removes what no template and no sandbox needs, the layers that would make builds faster included; resolves to the bytes of those. */
  async collect(): Promise<number> {
    return this.#sweep.run({ forgetLayers: true });
  }

  /** Takes the request and begins the first build. Throws `invalid_argument`, `conflict` for a name that is taken, `concurrency_limit`. */
  async create(principal: Principal, { name, spec: input, fields = plainFields, nameField = 'name' }: CreateTemplate): Promise<{ readonly template: OwnTemplate; readonly build: TemplateBuild }> {
    const { store, shelf, events, settings } = this.#deps;
    assertTemplateName(name, nameField);
    const spec = parseSpec(input, settings, fields);
    if (shelf.isBuiltIn(name)) {
      throw new PaddockError('conflict', `${nameField} ${name} is a built-in template of this server; choose another`, { field: nameField });
    }
    const taken = await store.templates.findByName(principal.teamId, name);
    if (taken !== null) throw nameTaken(nameField, taken);
    await this.#builds.assertUsable(principal.teamId, spec.from, null);
    const made = await this.#turns.take(principal.teamId, () => this.#insert(principal, name, spec, nameField));
    events.ofTeam(principal.teamId, 'template_created', { template: name, templateId: made.template.id }, 'template');
    return made;
  }

  /** One after another, so that two together do not go beyond the limit. */
  async #insert(principal: Principal, name: string, spec: TemplateSpec, nameField: string): Promise<{ readonly template: OwnTemplate; readonly build: TemplateBuild }> {
    const { store, clock, settings } = this.#deps;
    using _place = this.#builds.reserve(principal.teamId);
    const count = await store.templates.count(principal.teamId);
    if (count >= settings.maxTemplates) {
      throw new PaddockError('concurrency_limit', `there are ${count} templates, and the limit is ${settings.maxTemplates}; delete some`, { reason: 'too_many_templates' });
    }
    const [id, buildId, now] = [randomUUID() as TemplateId, randomUUID() as BuildId, clock.now()];
    const hash = specHash(spec);
    const template: OwnTemplate = Object.freeze({
      id, teamId: principal.teamId, name, status: 'building', spec, specHash: hash, errorMessage: null, artefactId: null, latestBuildId: buildId, createdAt: now, builtAt: null, sizeBytes: null,
    });
    const build = newBuild(template, buildId, now);
    try {
      await store.templates.insert(template, build);
    } catch (error) {
      const other = PaddockError.from(error).code === 'conflict' ? await store.templates.findByName(principal.teamId, name) : null;
      throw other === null ? error : nameTaken(nameField, other);
    }
    this.#builds.begin(template, build);
    return { template, build };
  }

  /** The same spec again. Until it is ready, sandboxes are made from what the build before made. `begun` is false when one of the same spec is under way: that one is returned. */
  async rebuild(principal: Principal, nameOrId: string, options: { readonly onlyFailed?: boolean } = {}): Promise<{ readonly template: OwnTemplate; readonly build: TemplateBuild; readonly begun: boolean }> {
    const { store, clock } = this.#deps;
    const template = await this.get(principal, nameOrId);
    if (options.onlyFailed === true && template.status !== 'failed') {
      throw new PaddockError('conflict', `the template ${template.name} is ${template.status}; only a failed one can be built again. Build one under another name instead`);
    }
    const inFlight = (await store.templates.builds(template.id, 1)).find(({ status }) => buildsInFlight.includes(status));
    if (inFlight !== undefined) return { template, build: inFlight, begun: false };
    await this.#builds.assertUsable(principal.teamId, template.spec.from, template.id);
    using _place = this.#builds.reserve(principal.teamId);
    const { build, inserted } = await store.templates.insertBuild(newBuild(template, randomUUID() as BuildId, clock.now()));
    if (inserted) this.#builds.begin(template, build);
    return { template, build, begun: inserted };
  }

  /** Newest first. */
  async list(principal: Principal): Promise<readonly OwnTemplate[]> {
    return this.#deps.store.templates.list(principal.teamId);
  }

  /** By name or id. */
  async find(principal: Principal, nameOrId: string): Promise<OwnTemplate | null> {
    return this.#deps.shelf.findOwn(principal.teamId, nameOrId);
  }

  /** By name or id. Throws `not_found`. */
  async get(principal: Principal, nameOrId: string): Promise<OwnTemplate> {
    const found = await this.find(principal, nameOrId);
    if (found === null) throw noTemplate(nameOrId);
    return found;
  }

  /** Throws `conflict` while a sandbox or snapshot needs it, or it is being built. */
  async delete(principal: Principal, nameOrId: string): Promise<void> {
    const { store, shelf, events } = this.#deps;
    const template = await this.get(principal, nameOrId);
    using taken = shelf.holds.take(`template:${template.id}`);
    if (taken === null) throw new PaddockError('conflict', `a sandbox is being made from the template ${template.name}; try again when it has ended`);
    if (await store.templates.isNeeded(principal.teamId, publicTemplateId(template.id))) {
      throw new PaddockError('conflict', `the template ${template.name} is in use: end the sandboxes that were made from it, and delete their snapshots, first`);
    }
    if (!(await store.templates.remove(principal.teamId, template.id))) {
      await this.get(principal, nameOrId); // says that it is gone
      throw new PaddockError('conflict', `the template ${template.name} is being built; cancel the build, or wait for its end, first`);
    }
    events.ofTeam(principal.teamId, 'template_deleted', { template: template.name, templateId: template.id }, 'template');
    this.#sweep.soon();
  }

  /** Newest first. */
  async builds(principal: Principal, nameOrId: string, limit: number): Promise<readonly TemplateBuild[]> {
    return this.#deps.store.templates.builds((await this.get(principal, nameOrId)).id, limit);
  }

  /** Throws `not_found`, also when it is of another template than the one named. */
  async build(principal: Principal, id: BuildId | null, nameOrId: string | null = null): Promise<TemplateBuild> {
    const template = nameOrId === null ? null : await this.get(principal, nameOrId);
    const build = id === null ? null : await this.#deps.store.templates.findBuild(principal.teamId, id);
    if (build === null || (template !== null && build.templateId !== template.id)) throw new PaddockError('not_found', 'there is no such build; it may have been deleted with its template');
    return build;
  }

  /** Ends a build at whatever it is doing; nothing happens to one that is over. */
  async cancel(principal: Principal, id: BuildId | null, nameOrId: string | null = null): Promise<void> {
    await this.#builds.cancel(await this.build(principal, id, nameOrId));
  }

  /** Everything that is kept of the output, and what is to come. */
  follow(build: TemplateBuild, signal: AbortSignal): AsyncIterable<LogLine> {
    return this.#logs.follow(build.id, signal);
  }

  /** The newest lines at this moment. */
  async lines(build: TemplateBuild, count: number): Promise<{ readonly lines: readonly LogLine[]; readonly truncated: boolean }> {
    return this.#logs.tail(build.id, count);
  }

  /** A sandbox has ended: what it was made from may have become superfluous. */
  ended(template: SandboxTemplate): void {
    if (parseTemplateId(template.id) !== null) this.#sweep.soon();
  }
}

function newBuild(template: OwnTemplate, id: BuildId, now: number): TemplateBuild {
  return Object.freeze({ id, templateId: template.id, teamId: template.teamId, status: 'pending', specHash: template.specHash, errorMessage: null, createdAt: now, startedAt: null, finalizedAt: null });
}

function nameTaken(field: string, taken: OwnTemplate): PaddockError {
  return new PaddockError('conflict', `${field} ${taken.name} is taken by the template ${publicTemplateId(taken.id)}; delete that one, or choose another`, { field });
}

function noTemplate(nameOrId: string): PaddockError {
  return new PaddockError('not_found', `there is no template ${nameOrId.slice(0, 128)}; it may have been deleted, or belong to another team`);
}
