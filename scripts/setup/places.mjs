import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

/** Where set-up puts what it makes. `PADDOCK_ARTEFACTS_DIR` lets several data directories share runsc, agent and templates. */
export function places(env = process.env) {
  const data = resolve(env.PADDOCK_DATA_DIR || '/var/lib/paddock');
  const artefacts = resolve(env.PADDOCK_ARTEFACTS_DIR || data);
  return {
    data,
    artefacts,
    runsc: join(artefacts, 'runsc'),
    agent: join(artefacts, 'agent'),
    unpacker: join(artefacts, 'unpacker'),
    templates: join(artefacts, 'templates'),
    cache: join(artefacts, 'cache'),
  };
}

/** The npm packages and Debian name the same processors differently. */
const ARCHITECTURES = { x64: 'amd64', arm64: 'arm64' };

export function debianArchitecture(nodeArchitecture = process.arch) {
  return ARCHITECTURES[nodeArchitecture];
}

/** The Node that package-lock.json pins; the system's is only used to get this far. */
export function pinnedNode(root = repository) {
  return join(root, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node');
}
