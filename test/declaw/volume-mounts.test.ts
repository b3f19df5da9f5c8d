import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox, Volumes } from '@declaw/sdk';
import { archive } from '../harness/archives.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';

const server = serverOfThisFile({ PADDOCK_MAX_VOLUME_MB: '64' });

test('what one sandbox writes to a mounted volume, another one and the server see at once, and the other way round', async () => {
  const { volumeId } = await Volumes.create('shared', archive({ name: 'run.sh', data: '#!/bin/sh\necho ran\n', mode: 0o755 }, { name: 'deep/a', data: 'a' }));
  const [one, two] = [await Sandbox.create({ volumes: [{ volumeId, mountPath: '/data', mode: 'mount' }] }), await Sandbox.create({ volumes: [{ volumeId, mountPath: '/home/user/work', mode: 'mount' }, { volumeId, mountPath: '/only', mode: 'mount-ro', subpath: 'deep' }] })];
  assert.equal(await output(one, '/data/run.sh; stat -c "%U %a" /data /data/run.sh'), 'ran\nuser 755\nuser 755\n');
  await output(one, 'echo from one > /data/deep/one');
  assert.equal(await output(two, 'cat work/deep/one /only/one; ls /only; echo from two >> work/deep/one'), 'from one\nfrom one\na\none\n');
  assert.equal(await output(one, 'cat /data/deep/one'), 'from one\nfrom two\n');
  assert.equal(Buffer.from(await Volumes.files(volumeId).read('/deep/one')).toString(), 'from one\nfrom two\n');
  await Volumes.files(volumeId).write('/deep/api', Buffer.from('from the API'));
  assert.equal(await output(two, 'cat /only/api; echo more >> work/deep/api; cat /only/api'), 'from the APIfrom the APImore\n');
  await one.kill({ wait: true });
  await two.kill({ wait: true });
  await Volumes.delete(volumeId);
});
