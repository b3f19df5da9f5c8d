import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config.ts';
import { BuiltInTemplates } from './built-in-templates.ts';
import { systemClock } from '../core/clock.ts';
import type { FrontDoor } from '../front-door.ts';
import { Metrics } from '../metrics/prometheus.ts';
import { buildServer, openDoor, type ServerDependencies } from '../server.ts';
import { ensureStartKey, type StartKey } from './api-key.ts';
import { announceServer, claimDataDir, ensureDataDir, OperatorError, withdrawServer } from './data-dir.ts';
import { openLog } from './log.ts';
import type { Logger } from 'pino';
import { openServices, type Services } from './services.ts';
import { version } from './version.ts';

/** Milliseconds a stop may take before the process ends all the same; the sandboxes are not affected. */
const stopWithinMs = 20_000;

/** Runs the server until it is told to stop. Resolves to the exit code. */
export async function start(config: Config, warnings: readonly string[]): Promise<number> {
  ensureDataDir(config.dataDir);
  using _lock = claimDataDir(config.dataDir);
  const { log, flush } = openLog(config.logLevel);
  for (const warning of warnings) log.warn(warning);
  process.on('uncaughtExceptionMonitor', (error) => {
    log.fatal({ err: error }, 'the server has a fault and ends; sandboxes keep running');
    flush();
  });
  process.stdout.on('error', () => {}); // whoever read it has left
  const stop = stopRequested();
  try {
    const builtIn = new BuiltInTemplates(config, log);
    // Open before anything is found again, so that whoever asks hears that it comes.
    const door = openDoor(version);
    const url = await listen(door, config);
    const metrics = config.metrics === 'off' ? null : new Metrics(version);
    const services = await openServices(config, log, (name) => builtIn.build(name), metrics ?? undefined);
    metrics?.ask({ sandboxes: () => services.store.sandboxes.countByState(), occupancy: () => services.host.occupancy() });
    try {
      const key = await ensureStartKey(services.access, config);
      const server = await buildServer({
        ...services,
        templates: services.host.templates,
        clock: systemClock,
        domain: config.domain,
        maxTimeoutSeconds: config.maxTimeoutSeconds,
        superserve: {
          events: services.store.events,
          settings: config.superserve,
          previews: services.previews,
          keys: { accessTokens: services.store.deriveKey('superserve-access-tokens'), previewTokens: services.store.deriveKey('superserve-preview-tokens') },
        },
        cursorKey: services.store.deriveKey('list-cursors'),
        log,
        version,
        door,
        ...(metrics === null ? {} : { metrics: figuresOf(metrics, config.metrics === 'open') }),
      });
      try {
        announceServer(config.dataDir, url);
        process.stdout.write(greeting(url, key));
        log.info({ url, dataDir: config.dataDir, version }, 'ready');
        bringBack(services, log).catch((error: unknown) => log.error({ err: error }, 'sandboxes that were paused with the server could not be resumed; they stay paused'));
        const signal = await stop;
        log.info({ signal }, 'stopping; sandboxes keep running');
        void sleep(stopWithinMs, undefined, { ref: false }).then(() => {
          log.fatal('stopping took too long; leaving');
          flush();
          process.exit(1);
        });
      } finally {
        withdrawServer(config.dataDir);
        await server.close();
      }
    } finally {
      await builtIn.close();
      await services.close();
    }
    return 0;
  } finally {
    flush();
  }
}

/** What was paused for a reboot goes on, beside the first requests. */
async function bringBack({ sandboxes }: Services, log: Logger): Promise<void> {
  const { resumed, failed } = await sandboxes.resumeAll();
  if (resumed > 0) log.info({ resumed }, 'sandboxes that were paused with the server go on');
  for (const { sandbox, error } of failed) log.error({ err: error, sandbox: sandbox.id }, 'a sandbox could not be resumed; it stays paused');
}

/** The figures as the wires know them. */
function figuresOf(metrics: Metrics, open: boolean): NonNullable<ServerDependencies['metrics']> {
  return { contentType: metrics.contentType, text: () => metrics.text(), requests: metrics.requests, open };
}

async function listen(door: FrontDoor, { listen: { host, port } }: Config): Promise<string> {
  try {
    const address = new URL(await door.listen(host, port));
    // A server on all addresses is reached through loopback from here.
    if (['0.0.0.0', '[::]'].includes(address.hostname)) address.hostname = '127.0.0.1';
    return address.origin;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE') throw new OperatorError(`Port ${port} on ${host} is taken by another program. Stop that one, or set PADDOCK_LISTEN to another address, for example ${host}:${port + 1}.`, { cause });
    if (code === 'EACCES' || code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') throw new OperatorError(`PADDOCK_LISTEN ${host}:${port} cannot be used: ${message}.`, { cause });
    throw cause;
  }
}

/** Resolves with the name of the first signal to stop; a second one ends the process at once. */
function stopRequested(): Promise<NodeJS.Signals> {
  const { promise, resolve } = Promise.withResolvers<NodeJS.Signals>();
  let asked = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (asked) process.exit(130);
    asked = true;
    resolve(signal);
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  process.on('SIGHUP', onSignal); // the terminal was closed
  return promise;
}

function greeting(url: string, key: StartKey): string {
  const shownKey = key.fromEnvironment ? '$PADDOCK_API_KEY' : key.raw;
  return `
Paddock ${version} is ready.

  URL      ${url}
  API key  ${key.fromEnvironment ? 'the one in PADDOCK_API_KEY' : key.raw}

Try it from another terminal, in an empty directory:

  npm install @declaw/sdk
  export DECLAW_DOMAIN=${new URL(url).host} DECLAW_API_KEY=${shownKey}
  node --input-type=module -e "
    import { Sandbox } from '@declaw/sdk';
    const sandbox = await Sandbox.create();
    console.log(await sandbox.commands.run('uname -a'));
    await sandbox.kill({ wait: true });
  "

The Superserve API is at ${url}/superserve; "paddock gateway superserve" brings its SDKs here.

`;
}
