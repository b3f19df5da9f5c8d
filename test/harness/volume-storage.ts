import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { TestObjectStore } from './object-store.ts';
import type { TestServer } from './server.ts';

/** Where the volumes of a file's server are, for tests that hold whatever it is. */
export interface VolumeStorageUnderTest {
  readonly settings: Readonly<Record<string, string>>;
  /** Ids of those of which there is anything, sorted. */
  readonly kept: (server: TestServer) => readonly string[];
  readonly store: TestObjectStore | null;
}

/** The disk, unless the file that imports this one's importer has chosen the object store: `volumes in an object store` do so. */
export const volumeStorage: VolumeStorageUnderTest = process.env['PADDOCK_TEST_VOLUMES'] === 'object-store' ? await inObjectStore() : onDisk();

function onDisk(): VolumeStorageUnderTest {
  const kept = ({ dataDir }: TestServer): readonly string[] => (existsSync(join(dataDir, 'volumes')) ? readdirSync(join(dataDir, 'volumes')).sort() : []);
  return { settings: {}, kept, store: null };
}

async function inObjectStore(): Promise<VolumeStorageUnderTest> {
  const store = await TestObjectStore.open();
  const kept = (): readonly string[] => [...new Set(store.objects.map((name) => /^paddock\/volumes\/([^/]+)\//.exec(name)?.[1] ?? []).flat())].sort();
  return { settings: store.settings(), kept, store };
}
