// npm run bench: the numbers that users feel, on this machine, against a real server with the official SDK.
// Options: --quick (fewer samples), --only WORD (scenarios whose name contains it), --json FILE.
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Figure, type Scenario, heading, median, percentile, row } from './figures.ts';
import { commands } from './scenarios/commands.ts';
import { creates } from './scenarios/creates.ts';
import { egress } from './scenarios/egress.ts';
import { files } from './scenarios/files.ts';
import { guardrails } from './scenarios/guardrails.ts';
import { idle } from './scenarios/idle.ts';
import { interception } from './scenarios/interception.ts';
import { neighbours } from './scenarios/neighbours.ts';
import { pauses } from './scenarios/pauses.ts';
import { startup } from './scenarios/startup.ts';
import { templates } from './scenarios/templates.ts';
import { volumes } from './scenarios/volumes.ts';
import { wires } from './scenarios/wires.ts';

const scenarios: readonly Scenario[] = [startup, creates, commands, wires, files, volumes, egress, interception, guardrails, pauses, templates, idle, neighbours];

const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false }, only: { type: 'string' }, json: { type: 'string' } } });
const machine = {
  cores: availableParallelism(),
  cpu: cpus()[0]?.model ?? 'unknown',
  memoryMib: Math.round(totalmem() / 1024 / 1024),
  kernel: release(),
  node: process.version,
  at: new Date().toISOString(),
};
console.log(`${machine.cores} × ${machine.cpu}, ${machine.memoryMib} MiB, kernel ${machine.kernel}, node ${machine.node}\n\n${heading()}`);

const figures: Figure[] = [];
for (const scenario of scenarios) {
  if (values.only !== undefined && !scenario.name.includes(values.only)) continue;
  for await (const figure of scenario.run({ quick: values.quick })) {
    figures.push(figure);
    console.log(row(figure));
  }
}

const file = values.json ?? join(import.meta.dirname, 'results', `${machine.at.replaceAll(':', '-')}.json`);
mkdirSync(dirname(file), { recursive: true });
const summary = figures.map((figure) => ({ ...figure, p50: median(figure.samples), p99: percentile(figure.samples, 0.99), max: Math.max(...figure.samples) }));
writeFileSync(file, `${JSON.stringify({ machine, figures: summary }, null, 1)}\n`);
console.log(`\nEvery sample is in ${file}`);
