import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { goEnvironment } from './setup/go-programs.mjs';
import { withSystemPath } from './setup/command.mjs';
import { pinnedNode, repository } from './setup/places.mjs';

const UNIT_TIMEOUT_MS = 60_000;
const SYSTEM_TIMEOUT_MS = 180_000;

/**
 * All checks and tests, or only the test files whose path contains one of the words in `args`.
 * Arguments that start with a dash go to Node's test runner.
 *
 * @param {{args: string[], places: object, start: (program: string, args: string[], options?: object) => Promise<number>}} run
 * @returns {Promise<number>} 0 when everything passed
 */
export async function runTests({ args, places, start }) {
  const words = args.filter((arg) => !arg.startsWith('-'));
  const options = args.filter((arg) => arg.startsWith('-'));
  const chosen = (file) => words.length === 0 || words.some((word) => file.includes(word.replace(/^\.\//, '')));
  const unit = (await testFiles(['src', 'scripts'])).filter(chosen);
  const system = (await testFiles(['test'])).filter(chosen);
  const node = pinnedNode();
  const test = (files, timeout, concurrency) => {
    // A test that leaves a socket open must not keep everybody waiting.
    const own = [
      '--test',
      '--test-force-exit',
      '--test-reporter=spec',
      `--test-timeout=${timeout}`,
      ...(concurrency ? [`--test-concurrency=${concurrency}`] : []),
    ];
    return start(node, [...own, ...options, ...files]);
  };
  // The tools' launchers ask for "node" and need a newer one than the system may have.
  const check = { env: { PATH: `${dirname(node)}:${withSystemPath()}` } };
  const go = (program) => ({ cwd: join(repository, program), env: goEnvironment(places) });
  const everything = words.length === 0;

  const parts = [
    everything && ['types and lint', () => start(...npmRunCheck(), check)],
    ...['agent', 'unpacker'].flatMap((program) => [
      everything && [`${program}: go vet`, () => start('go', ['vet', './...'], go(program))],
      everything && [`${program}: go test`, () => start('go', ['test', './...'], go(program))],
    ]),
    unit.length > 0 && ['unit tests', () => test(unit, UNIT_TIMEOUT_MS)],
    // One after another: they measure times and fill the machine with sandboxes.
    system.length > 0 && ['system tests', () => test(system, SYSTEM_TIMEOUT_MS, 1)],
  ].filter(Boolean);

  const lines = [];
  let failed = parts.length === 0;
  if (failed) lines.push(`No test file has ${words.join(' or ')} in its path.`);
  for (const [name, work] of parts) {
    process.stderr.write(`\n── ${name}\n`);
    const started = Date.now();
    const code = await work();
    lines.push(`${code === 0 ? '✓' : '✗'} ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
    if (code !== 0) failed = true;
    if (code > 128) break;
  }
  process.stderr.write(`\n${lines.join('\n')}\n`);
  return failed ? 1 : 0;
}

/** npm on the Node it was installed for, wherever the checks' own launchers run. */
function npmRunCheck() {
  const script = process.env.npm_execpath;
  const args = ['run', '--silent', 'check'];
  return script?.endsWith('.js') ? [process.execPath, [script, ...args]] : ['npm', args];
}

/** The soak test has a command of its own. */
async function testFiles(directories) {
  const found = [];
  for (const directory of directories) {
    for (const entry of await readdir(join(repository, directory), { withFileTypes: true }).catch(() => [])) {
      const path = `${directory}/${entry.name}`;
      if (entry.isDirectory()) found.push(...(path === 'test/soak' ? [] : await testFiles([path])));
      else if (/\.test\.(ts|mjs)$/.test(entry.name)) found.push(path);
    }
  }
  return found.sort();
}
