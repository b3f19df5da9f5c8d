import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { Config } from '../config.ts';
import type { StoreKey, VolumeStoreConfig } from '../config-volume-store.ts';
import type { VolumeStorage } from '../core/volume-storage.ts';
import type { VolumeId } from '../core/ids.ts';
import type { HostLog } from '../host/log.ts';
import type { VolumeDisks } from '../host/volumes/disks.ts';
import { LocalVolumes } from '../host/volumes/storage.ts';
import { dataFiles, OperatorError } from './data-dir.ts';

interface OpenStorage {
  readonly storage: VolumeStorage;
  readonly close: () => Promise<void>;
}

/** Where the volumes of a data directory are, once they have been in an object store. */
interface Whereabouts {
  /** `s3://bucket/prefix/`; null for the disk of this machine. */
  readonly store: string | null;
  /** Stands in each store too: no two servers take the same place. */
  readonly owner: string;
}

/**
 * Opens what the settings say volumes lie in. Throws `OperatorError` when it cannot be used, and when volumes that there are lie elsewhere: nothing is
 * moved, and what cannot be found must not be taken for deleted.
 */
export async function openVolumeStorage(config: Config, rows: { ids(): Promise<readonly VolumeId[]> }, disks: VolumeDisks, log: HostLog): Promise<OpenStorage> {
  const { volumes, volumeStore: file } = dataFiles(config.dataDir);
  const onDisk = (): OpenStorage => ({ storage: new LocalVolumes(volumes, disks), close: async () => {} });
  if (config.volumeStore === 'unneeded') return onDisk();
  const wanted = config.volumeStore === null ? null : `s3://${config.volumeStore.bucket}/${config.volumeStore.prefix}`;
  const last = readWhereabouts(file);
  const { length } = await rows.ids();
  if (length > 0 && wanted !== (last?.store ?? null)) {
    const there = last === null || last.store === null ? 'lie on the disk of this machine. Start without it' : `are in ${last.store}. Start with that`;
    throw new OperatorError(`PADDOCK_VOLUME_STORE has been changed, and the ${length} volumes that there are ${there}, download and delete them, and change it then.`);
  }
  const now: Whereabouts = { store: wanted, owner: last?.owner ?? randomUUID() };
  // Before the store: what is in there without a file here would be taken for another server's.
  if (now.store !== (last?.store ?? null)) writeWhereabouts(file, now);
  if (config.volumeStore === null) return onDisk();
  const { bucket, prefix, endpoint, region, pathStyle } = config.volumeStore;
  const extraCa = config.egress.extraCaFile === null ? null : readFileSync(config.egress.extraCaFile, 'utf8');
  // The client of the store is a large package, and most servers have none.
  const { openObjectVolumes } = await import('../host/volumes/objects/open.ts');
  const storage = await openObjectVolumes({ bucket, endpoint, region, pathStyle, credentials: keyOf(config.volumeStore), extraCa }, prefix, now.owner, log);
  return { storage, close: () => storage.close() };
}

function readWhereabouts(file: string): Whereabouts | null {
  if (!existsSync(file)) return null;
  try {
    const { store, owner } = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
    if ((store === null || typeof store === 'string') && typeof owner === 'string') return { store, owner };
  } catch {
    // said below
  }
  throw new OperatorError(`${file} is damaged: it must be JSON with "store" and "owner". The object "owner" in the store has the latter.`);
}

function writeWhereabouts(file: string, now: Whereabouts): void {
  const next = `${file}.next`;
  writeFileSync(next, `${JSON.stringify(now)}\n`, { mode: 0o600, flush: true });
  renameSync(next, file);
}

/** Nothing of the file is repeated in what goes wrong. */
function keyOf({ credentialsFile, key }: VolumeStoreConfig): StoreKey {
  if (credentialsFile === null) return key!;
  try {
    const { accessKeyId, secretAccessKey, sessionToken = null } = JSON.parse(readFileSync(credentialsFile, 'utf8')) as Record<string, unknown>;
    if (typeof accessKeyId === 'string' && accessKeyId !== '' && typeof secretAccessKey === 'string' && secretAccessKey !== '' && (sessionToken === null || typeof sessionToken === 'string')) {
      return Object.freeze({ accessKeyId, secretAccessKey, sessionToken });
    }
  } catch {
    // said below
  }
  throw new OperatorError(`PADDOCK_VOLUME_STORE_CREDENTIALS: ${credentialsFile} must be JSON such as {"accessKeyId": "…", "secretAccessKey": "…"}.`);
}
