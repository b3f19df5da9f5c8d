import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config.ts';
import { claimDataDir, lockDataDir, OperatorError, runningServer } from './data-dir.ts';
import { openLog } from './log.ts';
import { openServices } from './services.ts';

/** Milliseconds a server has to end after it was asked to. */
const stopWithinMs = 30_000;

export interface StopOptions {
  /** Ends every sandbox too, and takes everything of this instance off the machine. */
  readonly all: boolean;
  /** Saves every sandbox with its memory first, so that the machine can be rebooted. */
  readonly pause: boolean;
}

/** Stops the server of the data directory, if one runs, and with `all` everything else. Resolves to the exit code. */
export async function stop(config: Config, options: StopOptions): Promise<number> {
  const wasRunning = await stopServer(config);
  if (options.pause) return pauseAll(config);
  if (!options.all) {
    process.stdout.write(wasRunning ? 'The server has stopped. Its sandboxes keep running; "paddock stop --all" ends them.\n' : `No server is running on ${config.dataDir}.\n`);
    return 0;
  }
  using _lock = claimDataDir(config.dataDir);
  const { log, flush } = openLog('warn');
  try {
    const services = await openServices({ ...config, volumeStore: 'unneeded', warmGuests: 0 }, log);
    let ended: number;
    try {
      ended = await services.sandboxes.killAll('stopped');
      await services.host.teardown();
    } finally {
      await services.close();
    }
    process.stdout.write(`${ended === 0 ? 'No sandbox was running' : `${ended} ${ended === 1 ? 'sandbox was' : 'sandboxes were'} ended`}. Nothing of ${config.dataDir} is left on this machine but its files.\n`);
    return 0;
  } finally {
    flush();
  }
}

/** What can be saved is; the rest runs on, is named, and makes the exit code 1. */
async function pauseAll(config: Config): Promise<number> {
  using _lock = claimDataDir(config.dataDir);
  const { log, flush } = openLog('warn');
  try {
    const services = await openServices({ ...config, volumeStore: 'unneeded', warmGuests: 0, kept: { memoryMb: 0, seconds: 0 } }, log);
    try {
      const { paused, failed } = await services.sandboxes.pauseAll();
      process.stdout.write(`${paused} ${paused === 1 ? 'sandbox was' : 'sandboxes were'} paused; the next start brings them back.\n`);
      for (const { sandbox, error } of failed) process.stderr.write(`Sandbox ${sandbox.id} could not be paused and keeps running: ${error.message}\n`);
      return failed.length === 0 ? 0 : 1;
    } finally {
      await services.close();
    }
  } finally {
    flush();
  }
}

/** False when none was running. */
async function stopServer(config: Config): Promise<boolean> {
  const server = runningServer(config.dataDir);
  if (server === null) return false;
  process.kill(server.pid, 'SIGTERM');
  const end = Date.now() + stopWithinMs;
  while (Date.now() < end) {
    const lock = runningServer(config.dataDir) === null ? lockDataDir(config.dataDir) : null;
    if (lock !== null) {
      lock[Symbol.dispose]();
      return true;
    }
    await sleep(50);
  }
  throw new OperatorError(`The server (process ${server.pid}) has not stopped within ${stopWithinMs / 1000} s. Look at its log; as a last resort end it with "kill -9 ${server.pid}": sandboxes and data survive that.`);
}
