import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from './command.mjs';

/**
 * An apt of our own in `directory`: own sources, package lists and cache, so that the machine's stay as they are.
 * How to reach the network (proxy, timeouts, credentials) is taken from the machine; its hooks are not.
 */
export class PrivateApt {
  #directory;
  #configuration;

  constructor(directory) {
    this.#directory = directory;
    this.#configuration = join(directory, 'apt.conf');
  }

  /** @param {string[]} lines of a sources list @param {string[]} [settings] more lines of apt.conf(5) */
  async configure(lines, settings = []) {
    const at = (name) => join(this.#directory, name);
    for (const name of ['lists/partial', 'cache/archives/partial', 'state'])
      await mkdir(at(name), { recursive: true, mode: 0o700 });
    await writeFile(at('sources.list'), `${lines.join('\n')}\n`);
    await writeFile(at('status'), '');
    const quoted = (name) => `"${at(name)}"`;
    await writeFile(
      this.#configuration,
      [
        ...(await machineAcquireSettings()),
        'Dir::Etc::main "/dev/null";',
        'Dir::Etc::parts "/dev/null";',
        'Dir::Etc::sourceparts "/dev/null";',
        'Dir::Etc::preferences "/dev/null";',
        'Dir::Etc::preferencesparts "/dev/null";',
        'Dir::Log "/dev/null";',
        `Dir::Etc::sourcelist ${quoted('sources.list')};`,
        `Dir::State ${quoted('state')};`,
        `Dir::State::lists ${quoted('lists')};`,
        `Dir::State::status ${quoted('status')};`,
        `Dir::Cache ${quoted('cache')};`,
        // apt would change to a user that may not enter the data directory.
        'APT::Sandbox::User "root";',
        'APT::Install-Recommends "false";',
        'Acquire::Languages "none";',
        'Acquire::Retries "3";',
        ...settings,
      ].join('\n'),
    );
  }

  /** @returns {Promise<string>} standard output */
  run(command, args, options = {}) {
    return run(command, args, { ...options, env: this.environment });
  }

  get environment() {
    return { APT_CONFIG: this.#configuration, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' };
  }
}

/** The machine's `Acquire` settings as configuration lines. */
export async function machineAcquireSettings() {
  const dump = await run('apt-config', ['dump', 'Acquire']);
  return dump.split('\n').filter((line) => /^Acquire::[^ ]+ ".*";$/.test(line));
}
