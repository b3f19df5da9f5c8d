import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PaddockError } from '../../core/errors.ts';
import { HostEntrance, PortEntrance, parsePort, parsePortHost, parsePortPath } from './ports.ts';

const paths: [string, [string, string, string] | null][] = [
  ['/sandboxes/sbx-1/ports/8000', ['sbx-1', '8000', '/']],
  ['/sandboxes/sbx-1/ports/8000/', ['sbx-1', '8000', '/']],
  ['/sandboxes/sbx-1/ports/8000?a=b', ['sbx-1', '8000', '/?a=b']],
  ['/sandboxes/sbx-1/ports/8000/a%2fb/../c//?x=%zz#y', ['sbx-1', '8000', '/a%2fb/../c//?x=%zz#y']],
  ['/sandboxes/sbx-1/ports/', ['sbx-1', '', '/']],
  ['/sandboxes/sbx-1/ports/80x/', ['sbx-1', '80x', '/']],
  ['/sandboxes/sbx-1/ports', null],
  ['/sandboxes//ports/80', null],
  ['/sandboxes/sbx-1/commands?x=/sandboxes/a/ports/1', null],
  ['/sandboxes/a?/ports/1', null],
  ['//sandboxes/a/ports/1', null],
];
for (const [url, expected] of paths) {
  test(`${url} is ${expected === null ? 'not a port' : 'taken apart'}`, () => {
    const target = parsePortPath(url);
    assert.deepEqual(target === null ? null : [target.sandbox, target.port, target.path], expected);
  });
}

test('whatever follows the port reaches the program as it is', () => {
  fc.assert(
    fc.property(fc.webPath(), fc.webQueryParameters(), (path, query) => {
      const rest = `${path === '' ? '/' : path}?${query}`;
      assert.equal(parsePortPath(`/sandboxes/sbx-1/ports/80${rest}`)?.path, rest);
    }),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 50 }), (rest) => {
      assert.equal(parsePortPath(`/sandboxes/sbx-1/ports/80/${rest}`)?.path, `/${rest}`);
    }),
  );
});

test('a port is plain digits from 1 to 65535 and nothing else', () => {
  for (const port of [1, 80, 65535]) assert.equal(parsePort(String(port)), port);
  for (const text of ['', '0', '080', '65536', '99999', '100000', '-1', '+80', '8e1', '80 ', '0x50', '8000x', '%38']) assert.throws(() => parsePort(text), /^PaddockError: port must be a whole number from 1 to 65535/, text);
});

test('the key never reaches the program, an Authorization of its own does', async () => {
  const access = {
    authenticate: async (key: string) => {
      if (key !== 'own-key-0123456789') throw new PaddockError('unauthenticated', 'no');
      return {};
    },
  };
  const entrance = new PortEntrance({ access } as never);
  const program = 'Bearer the-program-s-own';
  const cases: [Record<string, string>, boolean][] = [
    [{ authorization: 'Bearer dcl_key' }, false],
    [{ 'x-api-key': 'dcl_key' }, false],
    [{ authorization: program }, false],
    [{ 'x-api-key': 'dcl_key', authorization: program }, true],
    [{ 'x-traffic-access-token': 'traffic-x', authorization: program }, true],
    [{ 'x-traffic-access-token': 'traffic-x', authorization: 'Basic dTpw' }, true],
    [{ 'x-api-key': 'dcl_key', authorization: 'Bearer dcl_another' }, false],
    [{ 'x-traffic-access-token': 'traffic-x', authorization: 'Bearer dcl_key' }, false],
    [{ 'x-api-key': 'own-key-0123456789', authorization: 'Bearer own-key-0123456789' }, false],
    [{ 'x-traffic-access-token': 'wrong', authorization: 'bearer  own-key-0123456789' }, false],
  ];
  for (const [headers, passed] of cases) {
    const withheld = await entrance.privateHeaders(headers);
    assert.ok(withheld.has('x-api-key') && withheld.has('x-traffic-access-token'));
    assert.equal(!withheld.has('authorization') && headers['authorization'] !== undefined, passed, JSON.stringify(headers));
  }
});

const hosts: [string, [string, string] | null][] = [
  ['3000-ab12cd34.box.example', ['3000', 'sbx-ab12cd34']],
  ['3000-sbx-ab12cd34.box.example', ['3000', 'sbx-ab12cd34']],
  ['3000-AB12CD34.Box.Example:7070', ['3000', 'sbx-ab12cd34']],
  ['3000-ab12cd34.box.example.:443', ['3000', 'sbx-ab12cd34']],
  ['3000-0f8fad5b-d9cb-469f-a165-70867728950e.box.example', ['3000', '0f8fad5b-d9cb-469f-a165-70867728950e']],
  ['99999-nobody.box.example', ['99999', 'sbx-nobody']],
  ['box.example', null],
  ['api.box.example', null],
  ['3000-ab12cd34.box.example.evil.com', null],
  ['3000-ab12cd34.evilbox.example', null],
  ['3000-ab12cd34box.example', null],
  ['a.3000-ab12cd34.box.example', null],
  ['-ab12cd34.box.example', null],
  ['3000-.box.example', null],
  ['3000-ab12cd34.box.example, box.example', null],
  ['127.0.0.1:7070', null],
  ['', null],
];
for (const [host, expected] of hosts) {
  test(`the host ${JSON.stringify(host)} is ${expected === null ? 'not a port' : 'taken apart'}`, () => {
    const target = parsePortHost(host, 'box.example');
    assert.deepEqual(target === null ? null : [target.port, target.sandbox], expected);
  });
}

test('by host the whole path is the program\'s, and the first line counts more than the header', () => {
  const entrance = new HostEntrance({ domain: 'box.example' } as never);
  const claimed = (url: string, host = '80-ab12cd34.box.example'): unknown => entrance.claims({ url, headers: { host } } as never);
  const target = { port: '80', sandbox: 'sbx-ab12cd34', prefix: '' };
  assert.deepEqual(claimed('/sandboxes/sbx-1/ports/1/?a'), { ...target, path: '/sandboxes/sbx-1/ports/1/?a' });
  assert.deepEqual(claimed('*'), { ...target, path: '*' });
  assert.deepEqual(claimed('http://80-ab12cd34.box.example?a', 'api.example'), { ...target, path: '/?a' });
  assert.equal(claimed('http://api.example/sandboxes'), null);
});
