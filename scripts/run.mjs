// What the scripts of package.json call. Runs on the system's Node (18 or newer), before anything is installed.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import os, { constants } from 'node:os';
import { join } from 'node:path';
import { setup } from './setup.mjs';
import { stopCommands, withSystemPath } from './setup/command.mjs';
import { SetupFailure } from './setup/failure.mjs';
import { pinnedNode, repository } from './setup/places.mjs';
import { runTests } from './tests.mjs';

const ENTRIES = {
  start: ['src/main.ts', 'start'],
  soak: ['test/soak/main.ts'],
  bench: ['bench/main.ts'],
};

/** Of the output of a command that failed. */
const DETAIL_LINES = 30;

/** Signals that reach this process, to be passed to whatever it is waiting for. */
let onSignal = (signal) => {
  stopCommands();
  process.exit(128 + constants.signals[signal]);
};
let lastSignal = { name: '', at: 0 };
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(name, () => {
    // A terminal signals the whole process group and npm passes the same signal on: one Ctrl-C must arrive once.
    const repeated = lastSignal.name === name && Date.now() - lastSignal.at < 500;
    lastSignal = { name, at: Date.now() };
    if (!repeated) onSignal(name);
  });
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof SetupFailure)) throw error;
  if (error.detail) process.stderr.write(`${error.detail.trim().split('\n').slice(-DETAIL_LINES).join('\n')}\n\n`);
  process.stderr.write(`paddock: ${error.message}\n`);
  process.exitCode = 1;
}

async function main([command = '', ...args]) {
  const entry = ENTRIES[command];
  if (!entry && command !== 'test' && command !== 'setup') {
    throw new SetupFailure(`There is no command "${command}": use start, test, soak, bench or setup.`);
  }
  // A server can begin to serve while the templates that its recipes call `later` are still being built.
  const { places } = await setup({ later: command !== 'start', tests: command === 'test', wanted: command === 'setup' ? args : [] });
  if (command === 'setup') return 0;
  const env = { PADDOCK_ARTEFACTS_DIR: places.artefacts };
  if (command === 'test')
    return runTests({
      args,
      places,
      start: (program, parts, options) => runChild(program, parts, { ...options, env: { ...env, ...options?.env } }),
    });
  const [script, ...first] = entry;
  if (!existsSync(join(repository, script)))
    throw new SetupFailure(`${script} is not in this copy of Paddock: get a complete one.`);
  if (command !== 'start') return runChild(pinnedNode(), [script, ...first, ...args], { env });
  const served = runChild(pinnedNode(), [script, ...first, ...args]);
  let over = false;
  const building = buildTheRest(() => over);
  const code = await served;
  over = true;
  // Again and again, because the next command may begin between two; killed, because what waits inside a namespace hears nothing else.
  const stopping = setInterval(() => stopCommands('SIGKILL'), 50);
  await building;
  clearInterval(stopping);
  return code;
}

/** What a server can do without at first. A failure is shown, and tried again at the next start. */
async function buildTheRest(isOver) {
  os.setPriority(19); // the server and its sandboxes come first; only what is started from here on is affected
  try {
    await setup();
  } catch (error) {
    if (!(error instanceof SetupFailure)) throw error;
    if (!isOver()) process.stderr.write(`paddock: ${error.message}\n`);
  }
}

/**
 * Runs a program in this terminal and returns its exit code, 128 + n after signal n.
 * It leads a session of its own so that only what is forwarded reaches it.
 */
function runChild(program, args, { env = {}, cwd = repository } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd,
      stdio: 'inherit',
      detached: true,
      env: { ...process.env, PATH: withSystemPath(), ...env },
    });
    onSignal = (signal) => child.kill(signal);
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  });
}
