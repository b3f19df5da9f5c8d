import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox, Volumes } from '@declaw/sdk';
import { buildOver } from '../harness/builds.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';

// Volumes in sandboxes that go on from a saved one, whose start command runs already.

const server = serverOfThisFile();

test('a sandbox of a template with a start command has its volumes, copied and mounted', async () => {
  const { json } = await server.call('POST', '/templates/build', { json: { alias: 'started', template: { base_image: 'base', start_cmd: 'while true; do date +%s.%N > /tmp/beat; sleep 0.2; done' } } });
  assert.equal((await buildOver(server, json.build_id)).status, 'completed');
  const volume = await Volumes.empty('shared');
  await Volumes.files(volume.volumeId).write('/in', Buffer.from('from the volume'));
  const attached = { volumeId: volume.volumeId };
  const one = await Sandbox.create({ template: 'started', volumes: [{ ...attached, mountPath: '/live', mode: 'mount' }, { ...attached, mountPath: '/copy', mode: 'copy' }] });
  const two = await Sandbox.create({ template: 'started', volumes: [{ ...attached, mountPath: '/live', mode: 'mount' }] });
  assert.equal(await output(one, 'cat /live/in /copy/in'), 'from the volumefrom the volume');
  await output(one, 'echo seen > /live/out');
  assert.equal(await output(two, 'cat /live/out'), 'seen\n');
  assert.equal(Buffer.from(await Volumes.files(volume.volumeId).read('/out')).toString(), 'seen\n');
  const beat = await output(two, 'cat /tmp/beat');
  assert.notEqual(await output(two, 'sleep 0.5; cat /tmp/beat'), beat);
  for (const sandbox of [one, two]) {
    await sandbox.pause();
    await sandbox.resume();
    assert.equal(await output(sandbox, 'cat /live/out'), 'seen\n');
    await sandbox.kill();
  }
});
