import { existsSync } from 'node:fs';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SetupFailure } from './failure.mjs';

/**
 * One place packages come from, as sources.list(5) knows it.
 * @typedef {{uri: string, suite: string, components: string[], signedBy?: string, checkValidUntil?: string}} AptSource
 */

const DEBIAN_KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** The one-line format: `deb [option=value …] uri suite component…`. @returns {AptSource[]} */
export function parseOneLine(text) {
  const sources = [];
  for (const raw of text.split('\n')) {
    const line = raw.replace(/#.*/, '').trim();
    const match = /^deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)$/.exec(line);
    if (!match) continue;
    const [, options = '', uri, suite, components] = match;
    const option = new Map(
      options
        .trim()
        .split(/\s+/)
        .map((pair) => pair.split(/\+?=(.*)/s)),
    );
    sources.push(
      source(uri, suite, components.split(/\s+/).filter(Boolean), option.get('signed-by'), option.get('check-valid-until')),
    );
  }
  return sources;
}

/** The deb822 format of `*.sources`: stanzas of `Field: value`, lists separated by blanks. @returns {AptSource[]} */
export function parseDeb822(text) {
  const sources = [];
  const lines = text.split('\n').filter((line) => !line.startsWith('#'));
  for (const stanza of lines.join('\n').split(/\n[ \t]*\n/)) {
    const fields = new Map();
    let name;
    for (const line of stanza.split('\n')) {
      const field = /^([A-Za-z0-9-]+):(.*)$/.exec(line);
      if (field) fields.set((name = field[1].toLowerCase()), field[2].trim());
      else if (name && /^[ \t]/.test(line)) fields.set(name, `${fields.get(name)}\n${line.trim()}`);
    }
    const list = (field) => (fields.get(field) ?? '').split(/\s+/).filter(Boolean);
    if (!list('types').includes('deb') || /^(no|false|0|off|without|disable)$/i.test(fields.get('enabled') ?? 'yes')) continue;
    for (const uri of list('uris')) {
      for (const suite of list('suites')) {
        sources.push(source(uri, suite, list('components'), fields.get('signed-by'), fields.get('check-valid-until')));
      }
    }
  }
  return sources;
}

function source(uri, suite, components, signedBy, checkValidUntil) {
  return {
    uri: uri.replace(/\/+$/, ''),
    suite,
    components,
    // Fingerprints and keys written into the file are left out: the Debian keyring has the keys that we want.
    ...(signedBy?.startsWith('/') && !/\s|,/.test(signedBy) ? { signedBy } : {}),
    ...(checkValidUntil ? { checkValidUntil } : {}),
  };
}

/** Everything the machine's apt is told, sources.list first. @returns {Promise<AptSource[]>} */
export async function readMachineSources(directory = '/etc/apt') {
  const text = (path) => readFile(path, 'utf8').catch(() => '');
  const sources = parseOneLine(await text(join(directory, 'sources.list')));
  const parts = await readdir(join(directory, 'sources.list.d')).catch(() => []);
  for (const name of parts.sort()) {
    const path = join(directory, 'sources.list.d', name);
    if (name.endsWith('.list')) sources.push(...parseOneLine(await text(path)));
    else if (name.endsWith('.sources')) sources.push(...parseDeb822(await text(path)));
  }
  return Promise.all(sources.map(resolveMirrorFile));
}

/** Debian's cloud images name their mirror in a file (`mirror+file:`); a guest has no such file, so take what it says. */
async function resolveMirrorFile(entry) {
  const match = /^mirror\+(?:file|copy):(?:\/\/)?(\/.*)$/.exec(entry.uri);
  if (!match) return entry;
  const lines = (await readFile(match[1], 'utf8').catch(() => '')).split('\n').map((line) => line.trim());
  const first = lines.find((line) => /^https?:/.test(line));
  return first ? { ...entry, uri: first.split(/\s/)[0].replace(/\/+$/, '') } : entry;
}

/**
 * Debian's own archive among the sources, and its security archive if it is there.
 *
 * Other vendors also publish a suite with the release's name, some even with a component `main`. The archive is the
 * one that also has the release's updates suite, else the one whose path ends as Debian's mirrors do.
 *
 * @param {AptSource[]} sources
 * @param {string} codename
 * @returns {{archive?: AptSource, security?: AptSource}}
 */
export function selectDebianArchive(sources, codename) {
  const usable = sources.filter((entry) => /^(https?|file):/.test(entry.uri) && entry.components.includes('main'));
  // A release may also be named by its state; the archive has it under its codename too.
  const names = [codename, 'stable', 'oldstable', 'testing', 'unstable', 'sid'];
  const rank = (entry) => {
    if (usable.some((other) => other.uri === entry.uri && other.suite === `${entry.suite}-updates`)) return 0;
    return entry.uri.endsWith('/debian') ? 1 : 2;
  };
  const candidates = usable.filter((entry) => entry.suite === codename || (names.includes(entry.suite) && rank(entry) < 2));
  const archive = candidates.sort((a, b) => names.indexOf(a.suite) - names.indexOf(b.suite) || rank(a) - rank(b))[0];
  const security = usable.find((entry) => names.some((name) => entry.suite === `${name}-security`));
  return { ...(archive ? { archive } : {}), ...(security ? { security } : {}) };
}

/**
 * Where set-up itself fetches from (`machine`) and what a sandbox's apt is told (`guest`). Both are the machine's Debian
 * archive; a mirror given by the user replaces it in the sandboxes, and here only on a machine that has none.
 *
 * @throws {SetupFailure} when neither is known
 */
export function debianArchives(sources, codename, mirror) {
  const own = selectDebianArchive(sources, codename);
  const given = mirror ? mirrorArchives(mirror, codename) : undefined;
  if (!own.archive && !given) {
    throw new SetupFailure(
      `No Debian archive for ${codename} was found in /etc/apt: add it, or set PADDOCK_TEMPLATE_APT_MIRROR to a mirror that ends in /debian.`,
    );
  }
  return { machine: own.archive ? own : given, guest: given ?? own };
}

/** A mirror `…/debian` has its security archive at `…/debian-security`; of any other layout only the archive is used. */
function mirrorArchives(mirror, codename) {
  const uri = mirror.replace(/\/+$/, '');
  const components = ['main'];
  return {
    archive: { uri, suite: codename, components },
    ...(uri.endsWith('/debian') ? { security: { uri: `${uri}-security`, suite: `${codename}-security`, components } } : {}),
  };
}

/** A line for our own sources list. Signatures are always checked; `trusted=yes` of the machine is not taken over. */
export function sourceLine({ uri, signedBy, checkValidUntil }, suite) {
  const keyring = signedBy && existsSync(signedBy) ? signedBy : DEBIAN_KEYRING;
  const options = [`signed-by=${keyring}`, ...(checkValidUntil ? [`check-valid-until=${checkValidUntil}`] : [])];
  return `deb [${options.join(' ')}] ${uri} ${suite} main`;
}
