import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Config } from '../config.ts';
import { ensureCertificates } from '../gateway/certificates.ts';
import { openGateway, type Gateway } from '../gateway/gateway.ts';
import { OperatorError, runningServer } from './data-dir.ts';

const usage = 'Usage: paddock gateway superserve [--server URL] [--dir DIRECTORY] [--port PORT] [--tls HOST:PORT] [--domain DOMAIN]…';

/** Where the clients of the Superserve API go, whatever their settings say. */
const domains = ['sandbox.superserve.ai', 'usw-sandbox.superserve.ai', 'use-sandbox.superserve.ai', 'staging-sandbox.superserve.ai'] as const;
const controlHosts = ['api.superserve.ai', 'api-usw.superserve.ai', 'usw-api.superserve.ai', 'api-staging.superserve.ai'] as const;
const defaultProxyPort = 7443;

/** Runs a gateway until it is told to stop. Needs no privileges. Resolves to the exit code. */
export async function gateway(config: Config, args: readonly string[]): Promise<number> {
  const options = read(args, config);
  const names = [...[...domains, ...options.domains].flatMap((domain) => [domain, `*.${domain}`]), ...controlHosts];
  const certificates = await prepared(ensureCertificates(options.directory, names), options.directory);
  const opened = await started(openGateway({ server: options.server, certificates, names, proxyPort: options.port, tls: options.tls }), options.port);
  process.stdout.write(greeting(opened, certificates.authorityFile, options.server));
  await stopRequested();
  await opened.close();
  return 0;
}

interface Options {
  readonly server: URL;
  readonly directory: string;
  readonly port: number;
  readonly tls: { readonly host: string; readonly port: number } | null;
  readonly domains: readonly string[];
}

function read(args: readonly string[], config: Config): Options {
  const [which, ...rest] = args;
  if (which !== 'superserve') throw new OperatorError(usage);
  const { server, dir, port, tls, domain = [] } = parsed(rest);
  return {
    server: parseServer(server ?? runningServer(config.dataDir)?.url ?? defaultServer(config)),
    directory: resolve(dir ?? (process.getuid?.() === 0 ? join(config.dataDir, 'gateway') : join(homedir(), '.paddock', 'gateway'))),
    port: parsePort('--port', port ?? String(defaultProxyPort)),
    tls: tls === undefined ? null : parseAddress(tls),
    domains: domain.map((each) => each.toLowerCase()),
  };
}

function parsed(args: string[]): { server?: string; dir?: string; port?: string; tls?: string; domain?: string[] } {
  const text = { type: 'string' } as const;
  try {
    return parseArgs({ args, options: { server: text, dir: text, port: text, tls: text, domain: { ...text, multiple: true } } }).values;
  } catch (cause) {
    throw new OperatorError(`${(cause as Error).message}\n${usage}`, { cause });
  }
}

function parseServer(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !['http:', 'https:'].includes(url.protocol)) throw new OperatorError(`--server must be a URL such as http://127.0.0.1:7070, but is "${text}".`);
  return url;
}

function defaultServer({ listen: { host, port } }: Config): string {
  const reached = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  return `http://${reached.includes(':') ? `[${reached}]` : reached}:${port}`;
}

function parsePort(option: string, text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(port <= 65_535)) throw new OperatorError(`${option} must be a port from 0 to 65535, but is "${text}".`);
  return port;
}

function parseAddress(text: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, port = ''] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined) throw new OperatorError(`--tls must be host:port, for example 0.0.0.0:443, but is "${text}".`);
  return { host, port: parsePort('--tls', port) };
}

async function prepared<T>(making: Promise<T>, directory: string): Promise<T> {
  try {
    return await making;
  } catch (cause) {
    throw new OperatorError(`The gateway's certificates in ${directory} cannot be used: ${(cause as Error).message}. Give another --dir, or remove them to have new ones made.`, { cause });
  }
}

async function started(opening: Promise<Gateway>, port: number): Promise<Gateway> {
  try {
    return await opening;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE') throw new OperatorError(`Port ${port} is taken: is a gateway running already? Give another --port.`, { cause });
    throw new OperatorError(`The gateway cannot listen: ${message}.`, { cause });
  }
}

function greeting({ proxyPort, tlsPort }: Gateway, authority: string, server: URL): string {
  const proxy = `http://127.0.0.1:${proxyPort}`;
  const base = `${server.origin}/superserve`;
  const noProxy = [...new Set(['127.0.0.1', 'localhost', server.hostname])].join(',');
  return `
Paddock's gateway for the Superserve SDKs leads to ${server.origin}.

For every client, with the API key that the server printed:

  export SUPERSERVE_BASE_URL=${base} SUPERSERVE_API_KEY=…

Node 22.21 and newer:

  export NODE_USE_ENV_PROXY=1 HTTPS_PROXY=${proxy} NO_PROXY=${noProxy} NODE_EXTRA_CA_CERTS=${authority}

Bun (all but commands.spawn, whose WebSocket takes no proxy):

  export HTTPS_PROXY=${proxy} NO_PROXY=${noProxy} NODE_EXTRA_CA_CERTS=${authority}

Python:

  export HTTPS_PROXY=${proxy} NO_PROXY=${noProxy} SSL_CERT_FILE=${authority}

It takes connections to the hosts of the Superserve API only; a program that talks to others as well needs them in NO_PROXY.
${tlsPort === null ? '' : `\nTLS without a proxy, for names that lead here: port ${tlsPort}.\n`}
`;
}

function stopRequested(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => resolve());
  return promise;
}
