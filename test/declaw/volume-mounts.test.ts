import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NotEnoughSpaceError, Sandbox, Volumes } from '@declaw/sdk';
import { archive } from '../harness/archives.ts';
import { output } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';

serverOfThisFile({ PADDOCK_MAX_VOLUME_MB: '64', PADDOCK_KEPT_MEMORY: '0', PADDOCK_WARM_GUESTS: '1' });

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

test('a read-only mount stays one, whatever root inside tries', async () => {
  const { volumeId } = await Volumes.create('fixed', archive({ name: 'a', data: 'original' }, { name: 'd/b', data: 'b' }));
  const sandbox = await Sandbox.create({ volumes: [{ volumeId, mountPath: '/ro', mode: 'mount-ro' }] });
  const attempts = ['echo x > /ro/a', 'echo x >> /ro/a', 'rm /ro/a', 'touch /ro/new', 'mkdir /ro/dir', 'mv /ro/a /ro/c', 'ln /ro/a /ro/link', 'ln -s /etc /ro/link', 'chmod 777 /ro/a', 'chown 0 /ro/a', 'truncate -s 0 /ro/a', 'mkfifo /ro/fifo', 'echo x > /.paddock/volumes/0/a', 'mkdir /.paddock/volumes/9', 'rm -rf /.paddock/volumes/0'];
  const remounts = ['true', 'mount -o remount,rw,bind /ro', 'mount -o remount,rw /ro', 'mount -o remount,rw /.paddock/volumes', 'mkdir -p /other && mount --bind /.paddock/volumes/0 /other && mount -o remount,rw,bind /other && echo x > /other/a', 'umount /ro'];
  for (const remount of remounts) {
    for (const attempt of attempts) {
      await sandbox.commands.run(`${remount}; ${attempt}`, { user: 'root' }).catch(() => undefined);
    }
  }
  assert.deepEqual((await Volumes.files(volumeId).list('/')).map(({ name, mode, size }) => [name, mode, size]), [['a', 0o644, 8], ['d', 0o755, 0]]);
  assert.equal(Buffer.from(await Volumes.files(volumeId).read('/a')).toString(), 'original');
  await sandbox.kill({ wait: true });
  await Volumes.delete(volumeId);
});

test('a full volume is full for who writes to it, and for nobody else', async () => {
  const [{ volumeId }, { volumeId: otherId }] = [await Volumes.empty('small'), await Volumes.empty('other')];
  const sandbox = await Sandbox.create({ volumes: [{ volumeId, mountPath: '/data', mode: 'mount' }, { volumeId: otherId, mountPath: '/other', mode: 'mount' }] });
  const { exitCode, stderr } = await sandbox.commands.run('head -c 200M /dev/zero > /data/big').catch((error) => error);
  assert.deepEqual([exitCode === 0, /No space left/.test(stderr)], [false, true]);
  assert.equal(await output(sandbox, 'echo fine > /other/a; head -c 20M /dev/zero > /home/user/own; wc -c < /home/user/own; cat /other/a'), '20971520\nfine\n');
  const { sizeBytes } = await Volumes.get(volumeId);
  assert.ok(sizeBytes > 60e6 && sizeBytes < 80e6, String(sizeBytes));
  await assert.rejects(Volumes.files(volumeId).write('/more', Buffer.alloc(5_000_000)), NotEnoughSpaceError);
  await output(sandbox, 'rm /data/big; echo again > /data/a');
  await Volumes.files(volumeId).write('/more', Buffer.alloc(5_000_000));
  await output(sandbox, 'mkdir /data/many; cd /data/many; (i=0; while echo > $i; do i=$((i+1)); [ $i -gt 300 ] && break; done); rm -rf /data/many');
  await sandbox.kill({ wait: true });
  await Volumes.delete(volumeId);
  await Volumes.delete(otherId);
});

test('a paused sandbox goes on with the files it had open, though others deleted, replaced or moved them', async () => {
  const { volumeId } = await Volumes.empty('shared');
  const attach = { volumes: [{ volumeId, mountPath: '/data', mode: 'mount' as const }] };
  const [one, two] = [await Sandbox.create(attach), await Sandbox.create(attach)];
  await output(one, 'mkdir -p /data/logs /data/gone/below; echo early > /data/early; echo late > /data/gone/late; echo kept > /data/kept; echo same > "/data/odd name (deleted)"');
  await one.files.write('/home/user/holder.sh', `cd /data/gone/below
exec 3</data/early 4</data/gone/late 5<>/data/kept 6>>/data/logs/log 7<"/data/odd name (deleted)"
echo open > /home/user/open
while ! [ -e /data/go ]; do sleep 0.1; done
cat <&3; cat <&4; cat <&5; echo "logged" >&6; cat <&7; pwd
`);
  const holder = await one.commands.run('bash /home/user/holder.sh > /home/user/said 2>&1', { background: true });
  await output(one, 'while ! [ -e /home/user/open ]; do sleep 0.1; done');
  await output(two, 'rm /data/early'); // before the pause
  await one.pause();
  await output(two, 'rm -rf /data/gone; echo replaced > /data/new; mv /data/new /data/kept; rm /data/logs/log');
  assert.deepEqual((await Volumes.files(volumeId).list('/')).map(({ name }) => name), ['kept', 'logs', 'odd name (deleted)']);
  await one.resume();
  await one.pause(); // and once more, with names that the kernel does not know any more
  await one.resume();
  assert.equal(await output(one, 'cat /data/kept; ls /data'), 'replaced\nkept\nlogs\nodd name (deleted)\n');
  await assert.rejects(one.pause(), /"kept" of a mounted volume open/); // which its kernel has noticed by now
  await output(two, 'touch /data/go');
  await holder.wait();
  assert.equal(await output(one, 'cat /home/user/said'), 'early\nlate\nkept\nsame\n/data/gone/below\n');
  assert.deepEqual((await Volumes.files(volumeId).list('/')).map(({ name }) => name), ['go', 'kept', 'logs', 'odd name (deleted)']);
  for (const sandbox of [one, two]) await sandbox.kill({ wait: true });
  await Volumes.delete(volumeId);
});
