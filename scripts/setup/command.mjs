import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';

/** `su` without a dash and some services leave root without the sbin directories; nft and mkfs.ext4 live there. */
export function withSystemPath(env = process.env) {
  const present = (env.PATH ?? '').split(':').filter(Boolean);
  const needed = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  return [...present, ...needed.filter((directory) => !present.includes(directory))].join(':');
}

/** The full path of a command, or undefined. Looks itself: a spawned `command -v` for each would cost more than all other checks. */
export function findCommand(name, path = withSystemPath()) {
  for (const directory of path.split(':')) {
    const candidate = join(directory, name);
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      // not there
    }
  }
  return undefined;
}

/** A command that ended badly, with the end of what it said. */
export class CommandFailure extends Error {
  constructor(command, outcome, output) {
    super(`${command} ${outcome}`);
    this.name = 'CommandFailure';
    this.output = output;
  }
}

const KEPT_OUTPUT = 64 * 1024;
const running = new Set();

/** Ends what set-up started, for the signal handlers. */
export function stopCommands(signal = 'SIGTERM') {
  for (const child of running) child.kill(signal);
}

/**
 * Runs a command to its end without a shell and returns its standard output (with `both`: the end of all it said).
 * Output is held back and only shown when it fails.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {{cwd?: string, env?: Record<string, string>, input?: string, output?: 'stdout' | 'both', onOutput?: (text: string) => void}} [options] env is added to the process's own
 * @returns {Promise<string>}
 */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, PATH: withSystemPath(), ...options.env },
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    });
    running.add(child);
    let stdout = '';
    let everything = '';
    const keep = (text) => {
      options.onOutput?.(text);
      everything = (everything + text).slice(-KEPT_OUTPUT);
    };
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
      keep(text);
    });
    child.stderr.setEncoding('utf8').on('data', keep);
    if (child.stdin) child.stdin.on('error', () => {}).end(options.input);
    child.on('error', (error) => {
      running.delete(child);
      reject(new CommandFailure(command, `could not be started: ${error.message}`, ''));
    });
    child.on('close', (code, signal) => {
      running.delete(child);
      if (code === 0) resolve(options.output === 'both' ? everything : stdout);
      else reject(new CommandFailure(command, signal ? `was ended by ${signal}` : `ended with code ${code}`, everything.trim()));
    });
  });
}

/**
 * Runs a command in mount and process namespaces of its own: whatever it mounts or starts is gone when it ends, and
 * when this process is killed (`--pdeathsig`), so that no half-built root file system keeps a mount or a daemon.
 */
export function runContained(command, args, options = {}) {
  const namespaces = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--propagation', 'private'];
  return run('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...namespaces, '--', command, ...args], options);
}
