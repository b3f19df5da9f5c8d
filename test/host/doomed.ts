// A host process that a test kills: makes a sandbox, brings it into the state asked for, says so, and waits for its end.
import { randomUUID } from 'node:crypto';
import { Laboratory, openNetwork } from './laboratory.ts';

const [dataDir, state] = process.argv.slice(2) as [string, 'running' | 'held' | 'kept' | 'saving'];
const laboratory = new Laboratory({}, dataDir);
await laboratory.open();
const subject = await laboratory.create();
await laboratory.fillMemory(subject, 100);
await laboratory.start(subject, 'i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.02; done');
await laboratory.run(subject, 'while [ ! -s /tmp/count ]; do sleep 0.02; done');
const checkpointId = randomUUID();
const say = (): void => void process.stdout.write(`${JSON.stringify({ subject, checkpointId, network: openNetwork })}\n`);
if (state === 'held') await laboratory.save(subject, true, checkpointId);
else if (state === 'kept') await laboratory.pause(subject, checkpointId);
else if (state === 'saving') void laboratory.save(subject, true, checkpointId, (stage) => stage === 'hold' && setTimeout(say, 40));
if (state !== 'saving') say();
setInterval(() => {}, 1000);
