import { BuildFailure, type ImageConfig } from '../../core/templates/build-host.ts';
import { type Digest, parseDigest } from './digest.ts';
import { isObject, parseObject, type Platform } from './manifest.ts';

export interface ConfigDocument {
  readonly config: ImageConfig;
  readonly platform: Platform;
  /** Of the layers' tars, lowest first. */
  readonly diffIds: readonly Digest[];
}

/** @throws BuildFailure `image_pull_failed` */
export function parseConfigDocument(bytes: Uint8Array, from: string): ConfigDocument {
  const fault = (problem: string): BuildFailure => new BuildFailure('image_pull_failed', `the configuration of the image from ${from} ${problem}`);
  const json = parseObject(bytes, () => fault('is no JSON object'));
  const { os, architecture, variant } = json;
  const rootfs = isObject(json['rootfs']) ? json['rootfs'] : {};
  const listed = rootfs['diff_ids'] ?? [];
  const diffIds = Array.isArray(listed) ? listed.map(parseDigest) : [null];
  if (typeof os !== 'string' || typeof architecture !== 'string') throw fault('does not say what machines it is for');
  if (!diffIds.every((id) => id !== null)) throw fault('has no list of the digests of its layers');
  const { Env, WorkingDir, User, Entrypoint, Cmd } = isObject(json['config']) ? json['config'] : {};
  const config = Object.freeze({
    env: parseEnv(strings(Env, 'Env', fault)),
    workdir: text(WorkingDir, 'WorkingDir', fault),
    user: text(User, 'User', fault),
    entrypoint: strings(Entrypoint, 'Entrypoint', fault),
    cmd: strings(Cmd, 'Cmd', fault),
  });
  return Object.freeze({ config, diffIds: Object.freeze(diffIds), platform: Object.freeze({ os, architecture, variant: typeof variant === 'string' ? variant : null }) });
}

/** The later of two wins. What no shell could set is left out: images have such lines, and run. */
function parseEnv(lines: readonly string[]): Readonly<Record<string, string>> {
  const env = new Map<string, string>();
  for (const line of lines) {
    const [, name, value] = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/s.exec(line) ?? [];
    if (name !== undefined && value !== undefined) env.set(name, value);
  }
  return Object.freeze(Object.fromEntries(env));
}

function strings(value: unknown, field: string, fault: (problem: string) => Error): readonly string[] {
  if (value === undefined || value === null) return Object.freeze([]);
  if (!Array.isArray(value) || !value.every((each) => typeof each === 'string' && !each.includes('\0'))) throw fault(`has something else than texts in ${field}`);
  return Object.freeze(value as string[]);
}

function text(value: unknown, field: string, fault: (problem: string) => Error): string | null {
  if (value === undefined || value === null || value === '') return null;
  if (typeof value !== 'string' || value.includes('\0')) throw fault(`has no text in ${field}`);
  return value;
}
