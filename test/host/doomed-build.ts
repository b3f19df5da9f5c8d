// A host process that a test kills in the middle of a build: finishes a layer, brings the next into the state asked for, and says so.
import { setTimeout as sleep } from 'node:timers/promises';
import { BuildLaboratory } from './build-laboratory.ts';

const [dataDir, state, waitMs] = process.argv.slice(2) as [string, 'step' | 'seal' | 'import' | 'sandbox', string];
const laboratory = new BuildLaboratory({}, dataDir);
await laboratory.open();
const finished = await laboratory.layer(laboratory.onBase, 'echo finished > /srv/file');
const root = laboratory.over(laboratory.onBase, finished);
const template = await laboratory.install(root);
const say = (): void => void process.stdout.write(`${JSON.stringify({ finished, template: template.digest })}\n`);
if (state === 'sandbox') await laboratory.create(template);
if (state === 'import') {
  laboratory.images.add('slow', '1', async (tree) => {
    const { writeFile } = await import('node:fs/promises');
    await writeFile(`${tree}/part`, Buffer.alloc(1 << 20));
    say();
    await sleep(60_000);
  });
  void laboratory.import('slow');
} else {
  if (state !== 'sandbox') {
    const step = await laboratory.step(root);
    await laboratory.run(step, 'head -c 300000000 /dev/urandom > /srv/large');
    if (state === 'seal') {
      void laboratory.seal(step);
      await sleep(Number(waitMs));
    }
  }
  say();
}
setInterval(() => {}, 1000);
