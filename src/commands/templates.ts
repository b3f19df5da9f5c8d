import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { parseArgs } from 'node:util';
import type { Config } from '../config.ts';
import { dataFiles, OperatorError, runningServer } from './data-dir.ts';

const usage = `Usage: paddock templates list
       paddock templates build NAME (--file DOCKERFILE | --from IMAGE_OR_TEMPLATE [--run LINE]… [--env NAME=VALUE]… [--package NAME]…)
                               [--start LINE] [--ready LINE] [--cpus N] [--memory MIB] [--disk MIB]
       paddock templates logs NAME
       paddock templates delete NAME`;

const text = { type: 'string' } as const;
const list = { ...text, multiple: true } as const;
const options = { file: text, from: text, run: list, env: list, package: list, start: text, ready: text, cpus: text, memory: text, disk: text } as const;

/** Lists, builds and deletes templates through the running server. Resolves to the exit code. */
export async function templates(config: Config, args: readonly string[]): Promise<number> {
  const { values, positionals } = parsed(args);
  const [action, name, ...more] = positionals;
  const given = Object.keys(values).length > 0;
  if (more.length > 0 || (action === 'list') !== (name === undefined) || (given && action !== 'build')) throw new OperatorError(usage);
  const server = new RunningServer(config);
  switch (action) {
    case 'list':
      return listAll(server);
    case 'build':
      return build(server, name!, values);
    case 'logs':
      return showLog(server, name!, null);
    case 'delete':
      await server.call('DELETE', `/templates/${encodeURIComponent(name!)}`);
      process.stdout.write(`${name!} is deleted.\n`);
      return 0;
    default:
      throw new OperatorError(usage);
  }
}

type Values = ReturnType<typeof parsed>['values'];

function parsed(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options });
  } catch (cause) {
    throw new OperatorError(`${(cause as Error).message}\n${usage}`, { cause });
  }
}

async function listAll(server: RunningServer): Promise<number> {
  const all = (await server.call('GET', '/superserve/templates?sort=name&order=asc')) as readonly { name: string; status: string; vcpu: number; memory_mib: number; disk_mib: number; error_message?: string }[];
  const width = Math.max(...all.map((each) => each.name.length));
  for (const { name, status, vcpu, memory_mib: memory, disk_mib: disk, error_message: error } of all) {
    process.stdout.write(`${name.padEnd(width)}  ${status.padEnd(8)}  ${vcpu} CPU  ${memory} MiB memory  ${disk} MiB disk${error === undefined ? '' : `  ${error}`}\n`);
  }
  return 0;
}

async function build(server: RunningServer, name: string, values: Values): Promise<number> {
  const { file, from, run, env, package: packages, start, ready } = values;
  if ((file === undefined) === (from === undefined)) throw new OperatorError(`Give either --file or --from.\n${usage}`);
  if (file !== undefined && (run ?? env ?? packages) !== undefined) throw new OperatorError('--run, --env and --package go with --from; with --file the Dockerfile says everything.');
  const commands = { ...(start === undefined ? {} : { start_cmd: start }), ...(ready === undefined ? {} : { ready_cmd: ready }) };
  const template = file === undefined ? { base_image: from, run_cmds: run, envs: environment(env ?? []), packages, ...commands } : { dockerfile: readDockerfile(file), ...commands };
  const body = { alias: name, template, cpu_count: count('--cpus', values.cpus), memory_mb: count('--memory', values.memory), disk_mb: count('--disk', values.disk) };
  const begun = (await server.call('POST', '/templates/build', body)) as { readonly build_id: string };
  return showLog(server, name, begun.build_id);
}

function readDockerfile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new OperatorError(`${file} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}

function environment(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      if (at < 1) throw new OperatorError(`--env must be NAME=VALUE, but is "${pair}".`);
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

function count(option: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (!/^\d{1,9}$/.test(value)) throw new OperatorError(`${option} must be a whole number, but is "${value}".`);
  return Number(value);
}

/** Follows a build to its end; exit code 1 when that is not `ready`. */
async function showLog(server: RunningServer, name: string, buildId: string | null): Promise<number> {
  const path = `/superserve/templates/${encodeURIComponent(name)}`;
  const id = buildId ?? ((await server.call('GET', `${path}/builds?limit=1`)) as readonly { id: string }[])[0]?.id;
  if (id === undefined) throw new OperatorError(`${name} has no builds.`);
  for await (const { stream, text, finished, status } of server.events(`${path}/builds/${id}/logs`)) {
    (stream === 'stderr' ? process.stderr : process.stdout).write(stream === 'system' ? `[paddock] ${text}\n` : text);
    if (finished === true) return status === 'ready' ? 0 : 1;
  }
  throw new OperatorError('The server ended before the build did; "paddock templates logs" shows what became of it.');
}

interface LogEvent {
  readonly stream: 'stdout' | 'stderr' | 'system';
  readonly text: string;
  readonly finished?: boolean;
  readonly status?: string;
}

/** The server of this data directory, through its API. */
class RunningServer {
  readonly #url: string;
  readonly #key: string;

  constructor(config: Config) {
    const url = runningServer(config.dataDir)?.url ?? null;
    if (url === null) throw new OperatorError(`No server runs on ${config.dataDir}; start it first.`);
    this.#url = url;
    this.#key = config.apiKey ?? readKey(dataFiles(config.dataDir).apiKey);
  }

  async call(method: string, path: string, body?: object): Promise<unknown> {
    const response = await this.#fetch(path, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
    const answer = await response.text();
    return answer === '' ? null : (JSON.parse(answer) as unknown);
  }

  async *events(path: string): AsyncGenerator<LogEvent> {
    const { body } = await this.#fetch(path, {});
    if (body === null) return;
    for await (const line of createInterface({ input: Readable.fromWeb(body as never) })) {
      if (line.startsWith('data: ')) yield JSON.parse(line.slice('data: '.length)) as LogEvent;
    }
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(`${this.#url}${path}`, { ...init, headers: { 'x-api-key': this.#key, 'content-type': 'application/json' } });
    } catch (cause) {
      throw new OperatorError(`The server at ${this.#url} does not answer: ${(cause as Error).message}.`, { cause });
    }
    if (response.ok) return response;
    const { message, error } = (await response.json().catch(() => ({}))) as { message?: string; error?: { message?: string } };
    throw new OperatorError(message ?? error?.message ?? `The server answered ${response.status}.`);
  }
}

function readKey(file: string): string {
  if (!existsSync(file)) throw new OperatorError('There is no API key here: set PADDOCK_API_KEY.');
  return readFileSync(file, 'utf8').trim();
}
