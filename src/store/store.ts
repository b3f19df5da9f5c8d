import type { Kysely } from 'kysely';
import type { EventStore, KeyStore, NetworkEventStore, PreviewPortStore, ProcessDeadlineStore, SandboxStore, SnapshotStore, Store, VolumeLockStore, VolumeStore } from '../core/store.ts';
import type { AuthorityStore, BindingStore, SecretStore, SecretUseStore } from '../core/secrets/store.ts';
import { SqlAuthorities } from './authorities.ts';
import { openDatabase } from './database.ts';
import { SqlEvents } from './events.ts';
import { stored } from './fault.ts';
import type { IdempotencyStore } from '../core/idempotency.ts';
import { SqlIdempotency } from './idempotency.ts';
import { SqlKeys } from './keys.ts';
import { SqlNetworkEvents } from './network-events.ts';
import { SqlPreviewPorts } from './preview-ports.ts';
import { SqlProcessDeadlines } from './process-deadlines.ts';
import { Policies } from './policies.ts';
import { SqlSandboxes } from './sandboxes.ts';
import type { Schema } from './schema.ts';
import { SqlSecretBindings } from './secret-bindings.ts';
import { SqlSecretUses } from './secret-uses.ts';
import { SqlSecrets } from './secrets.ts';
import { loadSealer, type Sealer } from './sealer.ts';
import { SqlSnapshots } from './snapshots.ts';
import type { BuildLogStore, LayerCache, TemplateStore } from '../core/templates/template.ts';
import { SqlBuildLogs } from './build-logs.ts';
import { SqlLayerCache } from './layer-cache.ts';
import { SqlTemplates } from './templates.ts';
import { SqlVolumeLocks, SqlVolumes } from './volumes.ts';

export interface StoreFiles {
  /** The SQLite database. */
  readonly database: string;
  /** The master key; keep it out of backups of the database, or they hold both halves. */
  readonly masterKey: string;
}

/**
 * Opens the durable state of one server; both files are made when missing.
 *
 *     const store = await openStore({ database: `${data}/paddock.db`, masterKey: `${data}/master.key` });
 */
export async function openStore(files: StoreFiles): Promise<SqlStore> {
  const db = await openDatabase(files.database);
  try {
    return new SqlStore(db, await openSealer(db, files.masterKey));
  } catch (error) {
    await db.destroy();
    return stored('open the store', () => Promise.reject(error));
  }
}

/** The key that the rows are sealed with, made when there are none yet. */
export async function openSealer(db: Kysely<Schema>, masterKey: string): Promise<Sealer> {
  const facts = new Map((await db.selectFrom('store_facts').selectAll().execute()).map(({ name, value }) => [name, value]));
  const known = facts.get('master_key_id');
  const sealer = loadSealer(masterKey, known ?? null);
  if (known === undefined) await db.insertInto('store_facts').values({ name: 'master_key_id', value: sealer.keyId }).execute();
  const root = facts.get('derivation_root');
  return root === undefined ? sealer : sealer.withRoot(root);
}

export class SqlStore implements Store {
  readonly sandboxes: SandboxStore;
  readonly snapshots: SnapshotStore;
  readonly events: EventStore;
  readonly networkEvents: NetworkEventStore;
  readonly processDeadlines: ProcessDeadlineStore;
  readonly previewPorts: PreviewPortStore;
  readonly volumes: VolumeStore;
  readonly volumeLocks: VolumeLockStore;
  readonly templates: TemplateStore;
  readonly buildLogs: BuildLogStore;
  readonly layerCache: LayerCache;
  readonly keys: KeyStore;
  readonly secrets: SecretStore;
  readonly secretBindings: BindingStore;
  readonly secretUses: SecretUseStore;
  readonly authorities: AuthorityStore;
  readonly idempotency: IdempotencyStore;
  readonly #db: Kysely<Schema>;
  readonly #sealer: Sealer;

  constructor(db: Kysely<Schema>, sealer: Sealer) {
    this.#db = db;
    this.#sealer = sealer;
    const policies = new Policies();
    this.sandboxes = new SqlSandboxes(db, sealer, policies);
    this.snapshots = new SqlSnapshots(db, sealer, policies);
    this.events = new SqlEvents(db);
    this.networkEvents = new SqlNetworkEvents(db);
    this.processDeadlines = new SqlProcessDeadlines(db);
    this.previewPorts = new SqlPreviewPorts(db);
    this.volumes = new SqlVolumes(db);
    this.volumeLocks = new SqlVolumeLocks(db);
    this.templates = new SqlTemplates(db, sealer);
    this.buildLogs = new SqlBuildLogs(db);
    this.layerCache = new SqlLayerCache(db);
    this.keys = new SqlKeys(db);
    this.secrets = new SqlSecrets(db, sealer);
    this.secretBindings = new SqlSecretBindings(db, sealer);
    this.secretUses = new SqlSecretUses(db);
    this.authorities = new SqlAuthorities(db, sealer);
    this.idempotency = new SqlIdempotency(db, sealer);
  }

  /** A 32-byte key for one purpose, derived from the master key: the same after every start. */
  deriveKey(purpose: string): Buffer {
    return this.#sealer.derive(purpose);
  }

  async close(): Promise<void> {
    await this.#db.destroy();
  }
}
