import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { HostSetupError } from './setup-error.ts';

/** One file that set-up has built, with the name of what it was built from. */
export interface Artefact {
  readonly path: string;
  readonly digest: string;
}

/**
 * What runs guests on this machine. New guests get the current runtime and agent; a saved one needs those it was saved with, and set-up
 * leaves them in place: `<artefacts>/<kind>/<digest>/<kind>`.
 */
export interface Artefacts {
  readonly runsc: Artefact;
  readonly agent: Artefact;
  /** Applies the layers of container images. */
  readonly unpacker: Artefact;
  /** The one with this digest, whether current or not; null when this machine does not have it. */
  findRunsc(digest: string): Artefact | null;
  findAgent(digest: string): Artefact | null;
}

export function openArtefacts(dir: string): Artefacts {
  const runsc = current(dir, 'runsc', 'sha256');
  const agent = current(dir, 'agent', 'sha');
  const unpacker = current(dir, 'unpacker', 'sha');
  const find = (known: Artefact, kind: string, digest: string): Artefact | null => {
    if (digest === known.digest) return known;
    if (!/^[0-9a-f]{64}$/.test(digest)) return null;
    const path = join(dir, kind, digest, kind);
    return existsSync(path) ? Object.freeze({ path, digest }) : null;
  };
  return Object.freeze({ runsc, agent, unpacker, findRunsc: (digest: string) => find(runsc, 'runsc', digest), findAgent: (digest: string) => find(agent, 'agent', digest) });
}

function current(dir: string, kind: string, digestField: string): Artefact {
  const file = join(dir, kind, 'current.json');
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  } catch (cause) {
    throw new HostSetupError(`${kind} is not set up (${file} is missing or unreadable): run "npm start", which sets everything up.`, { cause });
  }
  const { path, [digestField]: digest } = json;
  if (typeof path !== 'string' || typeof digest !== 'string') throw new HostSetupError(`${file} names no ${kind}: run "npm start", which sets everything up.`);
  return Object.freeze({ path, digest });
}
