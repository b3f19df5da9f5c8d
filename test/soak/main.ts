import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

// What takes minutes. `--short` is the form for every change, about a minute and a half.

const directory = dirname(fileURLToPath(import.meta.url));
const args = process.argv.slice(2);
const short = args.includes('--short') || process.env['PADDOCK_SOAK'] === 'short';
const words = args.filter((arg) => !arg.startsWith('-'));
const files = readdirSync(directory).filter((name) => name.endsWith('.test.ts') && (words.length === 0 || words.some((word) => name.includes(word))));

const child = spawn(process.execPath, ['--test', '--test-reporter=spec', '--test-concurrency=1', '--test-timeout=1800000', ...files.map((name) => join(directory, name))], {
  stdio: 'inherit',
  env: { ...process.env, PADDOCK_SOAK: short ? 'short' : 'full' },
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
child.on('exit', (code) => {
  process.exitCode = code ?? 1;
});
