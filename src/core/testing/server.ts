import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openStore, type SqlStore } from '../../store/store.ts';
import { Access } from '../access.ts';
import type { Clock } from '../clock.ts';
import type { CreateSandbox } from '../create-input.ts';
import { EventLog } from '../events.ts';
import { Idempotency } from '../idempotency.ts';
import { Files } from '../files.ts';
import type { NamingTable } from '../identity.ts';
import { Networks } from '../networks.ts';
import { Ports } from '../ports.ts';
import { Previews } from '../previews.ts';
import type { Principal } from '../principal.ts';
import { Processes } from '../processes.ts';
import { Sandboxes } from '../sandboxes.ts';
import { SecretAttachments } from '../secrets/attachments.ts';
import { Authorities, type CertificateMaker } from '../secrets/authorities.ts';
import { SecretBindings } from '../secrets/bindings.ts';
import { Secrets } from '../secrets/secrets.ts';
import { logInspections } from '../inspection-log.ts';
import { defaultSettings, type CoreSettings } from '../settings.ts';
import type { SandboxStore } from '../store.ts';
import type { Template, TemplateCatalog } from '../template.ts';
import { LocalVolumes } from '../../host/volumes/storage.ts';
import { Tokens } from '../tokens.ts';
import { VolumeAttachments } from '../volume-attachments.ts';
import { VolumeCaptures } from '../volume-captures.ts';
import { VolumeFiles } from '../volume-files.ts';
import { VolumeLocks } from '../volume-locks.ts';
import { Volumes } from '../volumes.ts';
import { TemplateShelf } from '../templates/shelf.ts';
import { defaultTemplateSettings, type TemplateSettings } from '../templates/settings.ts';
import { Templates } from '../templates/templates.ts';
import { MemoryBuildHost } from './memory-build-host.ts';
import { MemoryHost } from './memory-host.ts';

/** A clock that tests move. */
export class TestClock implements Clock {
  offset = 0;
  now(): number {
    return Date.now() + this.offset;
  }
}

export const base: Template = {
  id: 'tpl-base',
  name: 'base',
  digest: 'd'.repeat(64),
  description: 'the base',
  limits: { vcpus: 1, memoryMb: 512, diskMb: 1024, pids: 256 },
  env: { LANG: 'C.UTF-8' },
};


const naming: NamingTable = {
  declaw: { hostname: ({ shortId }) => `sbx-${shortId}`, env: ({ shortId }) => ({ DECLAW_SANDBOX: 'true', DECLAW_SANDBOX_ID: `sbx-${shortId}` }) },
};

/** One server's core on a real database, whose machine is made of memory. `restart` is a new server on both. */
export class Server {
  readonly directory = mkdtempSync(join(tmpdir(), 'paddock-core-'));
  readonly clock = new TestClock();
  readonly host = new MemoryHost();
  readonly buildHost = new MemoryBuildHost(this.host);
  readonly builtIn: Template[] = [base];
  /** Built when somebody asks first; what was asked for is pending until a test adds it to `builtIn`. */
  readonly offered = new Set<string>();
  readonly pending = new Set<string>();
  /** The built-in templates, and those installed. */
  readonly catalog: TemplateCatalog = {
    find: (name) => this.builtIn.find((each) => each.name === name),
    list: () => this.builtIn,
    offered: () => [...this.offered],
    pending: () => [...this.pending],
    request: (name) => {
      if (this.offered.delete(name)) this.pending.add(name);
    },
    byDigest: (digest) => (digest === base.digest ? base : this.buildHost.byDigest(digest)),
  };
  readonly settings: CoreSettings;
  readonly templateSettings: TemplateSettings;
  /** Waited for before and after every step of the store, as a database in another place would need. */
  storeDelay: () => Promise<void> = async () => undefined;
  store!: SqlStore;
  events!: EventLog;
  sandboxes!: Sandboxes;
  processes!: Processes;
  files!: Files;
  networks!: Networks;
  ports!: Ports;
  previews!: Previews;
  shelf!: TemplateShelf;
  templates!: Templates;
  volumes!: Volumes;
  volumeFiles!: VolumeFiles;
  volumeLocks!: VolumeLocks;
  volumeCaptures!: VolumeCaptures;
  secrets!: Secrets;
  secretAttachments!: SecretAttachments;
  /** Quicker than keys, and told apart. */
  certificates: CertificateMaker = { authority: async () => ({ certificate: `certificate ${++this.#authorities}`, privateKey: `key ${this.#authorities}` }) };
  access!: Access;
  idempotency!: Idempotency;
  principal!: Principal;

  #session: ReturnType<MemoryHost['session']> | null = null;
  #authorities = 0;
  #buildSession: ReturnType<MemoryBuildHost['session']> | null = null;

  private constructor(settings: Partial<CoreSettings>, templateSettings: Partial<TemplateSettings>) {
    this.templateSettings = { ...defaultTemplateSettings, ...templateSettings };
    this.settings = { ...defaultSettings, ...settings };
  }

  static async start(settings: Partial<CoreSettings> = {}, templateSettings: Partial<TemplateSettings> = {}): Promise<Server> {
    const server = new Server(settings, templateSettings);
    await server.#open();
    return server;
  }

  create(input: Partial<CreateSandbox> = {}, signal: AbortSignal = new AbortController().signal): ReturnType<Sandboxes['create']> {
    return this.sandboxes.create(this.principal, createInput(input), signal);
  }

  /** What the Superserve wire needs besides. */
  get superserve() {
    const settings = { timeout: 'hard_cap', previews: 'legacy_public', origins: ['https://console.example'], addressRate: null, teamRate: null } as const;
    return { events: this.store.events, previews: this.previews, settings, keys: { accessTokens: this.store.deriveKey('access'), previewTokens: this.store.deriveKey('previews') } };
  }

  /** The process of the server is gone, as after SIGKILL: nothing is stopped in order. */
  async crash(): Promise<void> {
    this.#session?.cut();
    this.#buildSession?.cut();
    this.#buildSession = null;
    this.#session = null;
    await this.store.close();
  }

  async restart(): Promise<void> {
    await this.crash();
    await this.#open();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.host.onProvision = async () => undefined;
    this.host.onDestroy = async () => undefined;
    this.host.onCheckpoint = async () => undefined;
    this.host.onSaved = async () => undefined;
    this.host.onRestore = async () => undefined;
    Object.assign(this.buildHost, { onStep: async () => undefined, onSeal: async () => undefined, onInstall: async () => undefined, onImport: async () => undefined });
    await this.templates.stop();
    await this.sandboxes.stop();
    this.processes.stop();
    await this.events.stop();
    await this.store.close();
    rmSync(this.directory, { recursive: true });
  }

  async #open(): Promise<void> {
    const { clock, settings } = this;
    const host = this.host.session();
    this.#session = host;
    const buildHost = this.buildHost.session();
    this.#buildSession = buildHost;
    const store = await openStore({ database: join(this.directory, 'paddock.db'), masterKey: join(this.directory, 'master.key') });
    const events = new EventLog({ store: store.events, clock });
    const tokens = new Tokens(store.deriveKey('sandbox tokens'));
    this.volumes = new Volumes({ store, storage: new LocalVolumes(join(this.directory, 'volumes')), clock, events, settings });
    this.volumeFiles = new VolumeFiles(this.volumes);
    this.volumeLocks = new VolumeLocks({ store, volumes: this.volumes, clock });
    await this.volumes.start();
    const slow = { ...store, close: () => store.close(), sandboxes: delayed(store.sandboxes, () => this.storeDelay()) };
    const shelf = new TemplateShelf(store.templates, this.catalog);
    const bindings = new SecretBindings({ store: slow, clock, events, authorities: new Authorities({ maker: this.certificates, clock }), unscanned: 'refuse' });
    const sandboxes = new Sandboxes({ store: slow, host, templates: this.catalog, shelf, clock, tokens, settings, events, naming, bindings, volumes: new VolumeAttachments(this.volumes) });
    this.shelf = shelf;
    this.templates = new Templates({ store, host, buildHost, shelf, clock, tokens, events, settings: this.templateSettings, times: { pollEvery: 10, readyWithin: 400, settle: 100 }, report: () => undefined });
    sandboxes.onEnd((_id, { template }) => this.templates.ended(template));
    this.secrets = new Secrets({ store: slow, clock, events, settings, arming: sandboxes.arming });
    this.secretAttachments = new SecretAttachments({ store: slow, clock, events, bindings, arming: sandboxes.arming, find: (principal, ref) => sandboxes.get(principal, ref) });
    logInspections({ store: slow, host, events });
    this.volumeCaptures = new VolumeCaptures({ volumes: this.volumes, sandboxes });
    this.networks = new Networks({ sandboxes, store: slow, host, clock, events, settings });
    this.store = store;
    this.events = events;
    this.sandboxes = sandboxes;
    this.processes = new Processes({ sandboxes, store, clock, settings, events });
    this.files = new Files({ sandboxes, settings, events });
    this.ports = new Ports({ sandboxes });
    this.previews = new Previews({ sandboxes, store, events });
    this.idempotency = new Idempotency({ store, clock, secret: store.deriveKey('idempotency') });
    this.access = new Access({ store, clock, events });
    this.principal = { teamId: await store.keys.defaultTeam(), keyId: 'key-test' };
    await sandboxes.start();
    await this.templates.start();
    await this.processes.start();
  }
}

function delayed(store: SandboxStore, delay: () => Promise<void>): SandboxStore {
  const slow =
    <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      await delay();
      const result = await call.apply(store, args);
      await delay();
      return result;
    };
  return {
    insert: slow(store.insert),
    find: slow(store.find),
    list: slow(store.list),
    inStates: slow(store.inStates),
    countByState: slow(store.countByState),
    transition: slow(store.transition),
    transitionWith: slow(store.transitionWith),
    remove: slow(store.remove),
    purge: slow(store.purge),
  };
}

export function createInput(input: Partial<CreateSandbox> = {}): CreateSandbox {
  return {
    wire: 'declaw',
    templateName: 'base',
    timeoutSeconds: 300,
    metadata: {},
    envs: {},
    lifecycle: { onTimeout: 'kill', autoResume: false, maxLifetimeSeconds: null, autoDeleteSeconds: null },
    declared: {},
    defaultUser: 'user',
    ...input,
  };
}

/** Waits until something holds, at most two seconds. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`did not happen within two seconds: ${what}`);
}

export const never: AbortSignal = new AbortController().signal;
