import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { output, sandboxOfThisFile } from '../harness/sandbox.ts';
import { serverOfThisFile } from '../harness/server.ts';

// What runs inside a sandbox looks for what it must not see. Attacks run with root's power inside unless they are about the user.

const server = serverOfThisFile();
const attacker = sandboxOfThisFile({ template: 'python' });
const victim = sandboxOfThisFile({ template: 'python', envs: { VICTIM_SECRET: 'env-of-the-victim' } });

test('files of another sandbox are invisible, wherever they lie', async () => {
  for (const directory of ['/tmp', '/home/user', '/dev/shm', '/var/tmp', '/run', '/']) await victim().files.write(join(directory, 'marker-of-the-victim'), 'secret');
  await attacker().files.write('/tmp/marker-of-the-attacker', '');
  const found = await output(attacker(), `find / -xdev -name 'marker-of-*' 2>/dev/null; find /dev/shm /run /tmp /proc/1/root/tmp -name 'marker-of-*' 2>/dev/null; true`, { user: 'root' });
  assert.ok(found.includes('marker-of-the-attacker'));
  assert.ok(!found.includes('marker-of-the-victim'), found);
});

test('files of the host are invisible', async () => {
  const marker = 'marker-of-the-host';
  writeFileSync(join(server.dataDir, marker), 'secret');
  const found = await output(attacker(), `find / -xdev \\( -name '${marker}' -o -name 'paddock.db' -o -name 'master.key' -o -name 'runsc*' \\) 2>/dev/null; true`, { user: 'root' });
  assert.equal(found, '');
  assert.equal(await attacker().files.exists(join(server.dataDir, marker)), false);
  for (const path of [`/proc/1/root${server.dataDir}/${marker}`, `/proc/self/root${server.dataDir}/${marker}`, `/../../../../${server.dataDir}/${marker}`, `/proc/1/cwd/../../..${server.dataDir}/${marker}`]) {
    assert.equal(await attacker().files.exists(path), false, path);
  }
  const mounts = await output(attacker(), 'cat /proc/mounts /proc/self/mountinfo', { user: 'root' });
  assert.ok(!mounts.includes(server.dataDir), mounts);
});

test('processes of the host and of neighbours are invisible, and their numbers mean nothing', async () => {
  await victim().commands.run('sleep 6011', { background: true });
  const own = await output(attacker(), 'ps -eo pid,args', { user: 'root' });
  assert.ok(!own.includes('6011') && !own.includes('node') && !own.includes('runsc'), own);
  assert.ok(own.trim().split('\n').length < 20, own);
  const outcome = await attacker().commands.run(`kill -9 ${server.pid} 2>&1; kill -9 -- -1 2>/dev/null; true`, { user: 'root' });
  assert.notEqual(outcome, undefined);
  assert.equal((await server.call('GET', '/health')).status, 200);
  assert.equal((await victim().commands.run('echo here')).stdout, 'here\n');
});

test('the kernel inside is not the host\'s: devices, modules and settings cannot be touched', async () => {
  assert.match(await output(attacker(), 'dmesg', { user: 'root' }), /gVisor/);
  const devices = (await output(attacker(), 'ls /dev', { user: 'root' })).split('\n');
  for (const device of ['sda', 'vda', 'nvme0n1', 'loop0', 'loop-control', 'kvm', 'mem', 'kmem', 'kmsg', 'mapper']) assert.ok(!devices.includes(device), device);
  const before = readFileSync('/proc/sys/kernel/core_pattern', 'utf8');
  for (const attack of [
    'echo "|/tmp/x" > /proc/sys/kernel/core_pattern', 'echo 1 > /proc/sys/net/ipv4/ip_forward && false', 'echo b > /proc/sysrq-trigger', 'insmod /tmp/x.ko', 'mknod /tmp/d b 7 0 && dd if=/tmp/d of=/dev/null count=1',
    'mount /dev/loop0 /mnt', 'nsenter --target 1 --mount true && ls /proc/1/root' + server.dataDir, 'swapoff -a && false', 'reboot -f',
  ]) {
    assert.notEqual((await attacker().commands.run(attack, { user: 'root' })).exitCode, 0, attack);
  }
  assert.equal(readFileSync('/proc/sys/kernel/core_pattern', 'utf8'), before);
  assert.equal((await attacker().commands.run('echo still here')).stdout, 'still here\n');
});

test('who the host is stays unknown inside', async () => {
  const inside = await output(attacker(), 'hostname; cat /etc/hostname /etc/hosts /proc/sys/kernel/hostname /etc/machine-id; env', { user: 'root' });
  if (hostname() !== 'localhost') assert.ok(!inside.includes(hostname()), inside);
  assert.ok(!inside.includes(readFileSync('/etc/machine-id', 'utf8').trim() || 'no machine id'));
  assert.ok(!inside.includes('PADDOCK'));
  const ids = [attacker(), victim()].map((sandbox) => output(sandbox, 'cat /etc/machine-id'));
  assert.notEqual(await ids[0], await ids[1]);
});

test('the agent does nothing for programs inside, on any of its addresses, and its token is nowhere to be found by the user', async () => {
  const token = attacker().envdAccessToken ?? '';
  assert.ok(token.length >= 32);
  const { guest_ip } = (await server.call('GET', `/sandboxes/${attacker().sandboxId}`)).json;
  await attacker().files.write('/tmp/agent.py', `
import http.client, json
answers = []
for address in ['127.0.0.1', '${guest_ip}', 'localhost']:
    for method, path, body, token in [
        ('GET', '/v1/processes', None, None),
        ('GET', '/v1/processes', None, 'wrong'),
        ('POST', '/v1/processes', {'cmd': 'id', 'user': 'root', 'kind': 'command'}, None),
        ('GET', '/v1/files?path=/etc/shadow', None, None),
        ('POST', '/v1/claim', {'sandbox_id': 'x', 'token': 'mine', 'hostname': 'h'}, None),
        ('POST', '/v1/claim', {}, None),
    ]:
        try:
            connection = http.client.HTTPConnection(address, 49983, timeout=10)
            connection.request(method, path, None if body is None else json.dumps(body), {} if token is None else {'Authorization': 'Bearer ' + token})
            answers.append(connection.getresponse().status)
        except ConnectionError as error: answers.append(type(error).__name__)
print(json.dumps(answers))
`);
  const answers = JSON.parse(await output(attacker(), 'python3 /tmp/agent.py')) as (string | number)[];
  assert.equal(answers.length, 18);
  for (const answer of answers) assert.match(String(answer), /^(401|409|Connection(Reset|Refused|Aborted)Error|RemoteDisconnected|BrokenPipeError)$/);
  const search = await output(attacker(), `cat /proc/1/environ /proc/1/cmdline /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; grep -rlF '${token}' /etc /home /run /tmp /var /root /proc/1/maps 2>/dev/null; true`);
  assert.ok(!search.includes(token));
  assert.notEqual((await attacker().commands.run('head -c 1 /proc/1/mem')).exitCode, 0);
});

test('without sudo there is no way to root: not for other users, not through set-uid programs', async () => {
  assert.equal(await output(attacker(), 'useradd -m other && su other -s /bin/bash -c "id -un"', { user: 'root' }), 'other\n');
  const other = await attacker().commands.run('sudo -n id -u', { user: 'other' });
  assert.notEqual(other.exitCode, 0);
  assert.ok(!other.stdout.includes('0'), other.stdout);
  await output(attacker(), 'chmod 4755 /usr/bin/id /usr/bin/cat', { user: 'root' });
  assert.notEqual(await output(attacker(), 'id -u', { user: 'other' }), '0\n');
  assert.notEqual((await attacker().commands.run('cat /etc/shadow', { user: 'other' })).exitCode, 0);
  assert.notEqual((await attacker().commands.run('echo x > /etc/passwd', { user: 'other' })).exitCode, 0);
  assert.notEqual((await attacker().commands.run('cat /etc/shadow')).exitCode, 0, 'the user itself reads it only with sudo');
});

test('the environment of one sandbox is in no file of the host that others could read, and in no log', async () => {
  assert.equal(await output(victim(), 'echo $VICTIM_SECRET'), 'env-of-the-victim\n');
  assert.ok(!server.log.includes('env-of-the-victim'));
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    let command = '';
    try {
      command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
    } catch (reason) {
      if (!['ENOENT', 'ESRCH'].includes((reason as NodeJS.ErrnoException).code ?? '')) throw reason;
    }
    assert.ok(!command.includes('env-of-the-victim'), `process ${pid}`);
  }
});
