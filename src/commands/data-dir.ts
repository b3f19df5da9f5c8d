import Database from 'better-sqlite3';
import { chmodSync, closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config.ts';

/** The files of one instance, by name. */
export interface DataFiles {
  readonly database: string;
  readonly masterKey: string;
  readonly apiKey: string;
  readonly lock: string;
  readonly running: string;
  readonly volumes: string;
  /** Says which object store volumes lie in, when it is not this directory. */
  readonly volumeStore: string;
}

export function dataFiles(dataDir: string): DataFiles {
  return {
    database: join(dataDir, 'paddock.db'),
    masterKey: join(dataDir, 'master.key'),
    apiKey: join(dataDir, 'api-key'),
    lock: join(dataDir, 'paddock.lock'),
    running: join(dataDir, 'paddock.pid'),
    volumes: join(dataDir, 'volumes'),
    volumeStore: join(dataDir, 'volume-store.json'),
  };
}

/** The durable state's own files, the master key where the operator wants it. */
export function storeFiles({ dataDir, masterKeyFile }: Pick<Config, 'dataDir' | 'masterKeyFile'>): { readonly database: string; readonly masterKey: string } {
  const { database, masterKey } = dataFiles(dataDir);
  return { database, masterKey: masterKeyFile ?? masterKey };
}

/** What a running server says about itself, for `paddock stop` and for people. */
export interface RunningServer {
  readonly pid: number;
  /** When the process began, in clock ticks since boot: tells it from a later process with the same number. */
  readonly startedTicks: string;
  /** Where it is reached from this machine. */
  readonly url: string | null;
}

/** A failure that the operator can do something about; shown as its sentence, without a stack. */
export class OperatorError extends Error {
  override name = 'OperatorError';
}

/** Makes the data directory, for its owner only. */
export function ensureDataDir(dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new OperatorError(`The data directory ${dataDir} cannot be made (${(cause as Error).message}). Run as root, or set PADDOCK_DATA_DIR to a directory you may write to.`, { cause });
  }
}

/**
 * Takes the data directory for this process, or returns null when another one has it. The kernel gives the lock back when the process
 * ends, however it ends, so nothing stale is ever in the way.
 */
export function lockDataDir(dataDir: string): Disposable | null {
  // SQLite is here for its lock: Node has no other way to one that dies with its holder.
  const db = new Database(dataFiles(dataDir).lock, { timeout: 0 });
  try {
    db.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    db.close();
    if ((error as { code?: string }).code?.startsWith('SQLITE_BUSY')) return null;
    throw error;
  }
  return { [Symbol.dispose]: () => void db.close() };
}

/** The same, with a sentence that says who has it. */
export function claimDataDir(dataDir: string): Disposable {
  const lock = lockDataDir(dataDir);
  if (lock !== null) return lock;
  const server = runningServer(dataDir);
  const who = server === null ? 'Another paddock process' : `A server (process ${server.pid})`;
  throw new OperatorError(`${who} is using the data directory ${dataDir}. Stop it with "paddock stop", or give this one a PADDOCK_DATA_DIR of its own.`);
}

export function announceServer(dataDir: string, url: string | null = null): void {
  const server: RunningServer = { pid: process.pid, startedTicks: startTicks(process.pid) ?? '', url };
  writeWhole(dataFiles(dataDir).running, `${JSON.stringify(server)}\n`, 0o644);
}

export function withdrawServer(dataDir: string): void {
  rmSync(dataFiles(dataDir).running, { force: true });
}

/** The server that runs on this data directory, if its process is still the one that said so. */
export function runningServer(dataDir: string): RunningServer | null {
  let said: Partial<RunningServer> | null;
  try {
    said = JSON.parse(readFileSync(dataFiles(dataDir).running, 'utf8')) as Partial<RunningServer> | null;
  } catch {
    return null; // none, or one that was half-written by hand
  }
  const { pid, startedTicks, url } = said ?? {};
  if (!Number.isSafeInteger(pid) || pid! <= 1 || startedTicks === undefined || startTicks(pid!) !== startedTicks) return null;
  return { pid: pid!, startedTicks, url: typeof url === 'string' ? url : null };
}

/** Field 22 of /proc/<pid>/stat (proc_pid_stat(5)); null when there is no such process. */
function startTicks(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

/** Writes a file so that it is there whole or not at all, also after a crash of the machine. */
export function writeWhole(file: string, text: string, mode: number): void {
  const beside = `${file}.${process.pid}.tmp`;
  const handle = openSync(beside, 'w', mode);
  try {
    writeSync(handle, text);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
  chmodSync(beside, mode);
  renameSync(beside, file);
}
