import { parseArgs } from 'node:util';
import type { Config } from '../config.ts';
import { PaddockError } from '../core/errors.ts';
import { parseSandboxId, parseShortId, type SandboxRef } from '../core/ids.ts';
import { parsePolicy } from '../core/network/parse.ts';
import type { NetworkPolicy } from '../core/network/rules.ts';
import { explain, type Explanation } from '../core/network/target.ts';
import { ensureDataDir, OperatorError } from './data-dir.ts';
import { openDataStore } from './services.ts';

const usage = 'Usage: paddock policy explain [--allow RULE]… [--deny RULE]… TARGET | paddock policy explain SANDBOX TARGET';

/** Exit code for a target that is blocked, so that scripts can ask. */
const blockedCode = 2;

/** Explains what outbound rules do with a target, those given or those of a sandbox, whether a server runs or not. Resolves to the exit code. */
export async function policy(config: Config, args: readonly string[]): Promise<number> {
  const { allow, deny, subject, target } = readArguments(args);
  try {
    const rules = subject === null ? parsePolicy({ allow, deny }, { allow: '--allow', deny: '--deny' }) : await rulesOf(config, subject);
    const explanation = explain(rules, target);
    process.stdout.write(describe(explanation));
    return explanation.verdict.allowed ? 0 : blockedCode;
  } catch (error) {
    if (error instanceof PaddockError && error.code === 'invalid_argument') throw new OperatorError(`${error.message}.`, { cause: error });
    throw error;
  }
}

function readArguments(args: readonly string[]): { allow: readonly string[]; deny: readonly string[]; subject: string | null; target: string } {
  const [action, ...rest] = args;
  const { values, positionals } = parsed(rest);
  const [first, second, ...more] = positionals;
  const given = values.allow !== undefined || values.deny !== undefined;
  if (action !== 'explain' || first === undefined || more.length > 0 || (given && second !== undefined)) throw new OperatorError(usage);
  return { allow: values.allow ?? [], deny: values.deny ?? [], subject: second === undefined ? null : first, target: second ?? first };
}

function parsed(args: string[]): { values: { allow?: string[]; deny?: string[] }; positionals: string[] } {
  try {
    return parseArgs({ args, allowPositionals: true, options: { allow: { type: 'string', multiple: true }, deny: { type: 'string', multiple: true } } });
  } catch (cause) {
    throw new OperatorError(`${(cause as Error).message}\n${usage}`, { cause });
  }
}

async function rulesOf(config: Config, subject: string): Promise<NetworkPolicy> {
  ensureDataDir(config.dataDir);
  const store = await openDataStore(config);
  try {
    const ref = sandboxRef(subject);
    const sandbox = ref === null ? null : await store.sandboxes.find(null, ref);
    if (sandbox === null) throw new OperatorError(`There is no sandbox ${subject} in ${config.dataDir}.`);
    return sandbox.policy.network;
  } finally {
    await store.close();
  }
}

function sandboxRef(text: string): SandboxRef | null {
  const shortId = parseShortId(text.replace(/^sbx-/, ''));
  const id = parseSandboxId(text);
  return shortId !== null ? { shortId } : id !== null ? { id } : null;
}

function describe({ host, address, port, verdict, dials, notes }: Explanation): string {
  const lines = [
    `${verdict.allowed ? 'allowed' : 'blocked'}  ${host ?? address ?? 'IPv6 address'}:${port}`,
    `  because  ${verdict.matchRule}${verdict.rule === null ? '' : `, rule ${verdict.rule}`}`,
    ...(verdict.reason === '' ? [] : [`           ${verdict.reason}`]),
    ...(dials === null ? [] : [`  dials    ${dials}`]),
    ...notes.map((note) => `  but      ${note}`),
  ];
  return `${lines.join('\n')}\n`;
}
