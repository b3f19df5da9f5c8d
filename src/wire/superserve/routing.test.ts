import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Routing } from './routing.ts';

const id = '0f8fad5b-d9cb-469f-a165-70867728950e';
const routing = new Routing('box.example');
const route = (host: string, url: string, sandbox?: string): ReturnType<Routing['route']> => routing.route({ url, headers: { host, ...(sandbox === undefined ? {} : { 'x-superserve-sandbox-id': sandbox }) } });

for (const [what, host, url, header, expected] of [
  ['the shared host with the header', 'sandbox.superserve.ai', '/exec', id, { to: 'agent', target: { id, path: '/exec' }, url: '/.superserve-agent/exec' }],
  ['a port and capitals in the host', 'SANDBOX.superserve.ai:443', '/files?path=%2Fa//b', id, { to: 'agent', target: { id, path: '/files' }, url: '/.superserve-agent/files?path=%2Fa//b' }],
  ['an id with a region', 'usw-sandbox.superserve.ai', '/exec', `sb-usw-${id}`, { to: 'agent', target: { id, path: '/exec' }, url: '/.superserve-agent/exec' }],
  ['the shared host without the header', 'sandbox.superserve.ai', '/exec', undefined, { to: 'agent', target: { id: null, path: '/exec' }, url: '/.superserve-agent/exec' }],
  ['the own domain with the header', 'box.example', '/exec', id, { to: 'agent', target: { id, path: '/exec' }, url: '/.superserve-agent/exec' }],
  ['the own domain without the header is for everybody', 'box.example', '/sandboxes', undefined, null],
  ['the agent by its name', `boxd-${id}.sandbox.superserve.ai`, '/exec/connect', undefined, { to: 'agent', target: { id, path: '/exec/connect' }, url: '/.superserve-agent/exec/connect' }],
  ['the agent by its name on the own domain, with a region', `boxd-sb-usw-${id}.box.example`, '/x', undefined, { to: 'agent', target: { id, path: '/x' }, url: '/.superserve-agent/x' }],
  ['a preview', `3000-${id}.sandbox.superserve.ai`, '/a', undefined, { to: 'preview', target: { id, port: 3000 } }],
  ['a preview with a region on the own domain', `8080-sb-usw-${id}.box.example`, '/a', undefined, { to: 'preview', target: { id, port: 8080 } }],
  ['the other wire\'s ports are its own', '3000-a1b2c3d4.box.example', '/', undefined, null],
  ['the control plane by its host', 'api.superserve.ai', '/sandboxes?x=1', undefined, { to: 'control', url: '/superserve/sandboxes?x=1' }],
  ['the control plane by its path', '127.0.0.1:7070', '/superserve/sandboxes', undefined, { to: 'control', url: '/superserve/sandboxes' }],
  ['double slashes', '127.0.0.1', '/superserve//sandboxes//?q=a//b', undefined, { to: 'control', url: '/superserve/sandboxes/?q=a//b' }],
  ['the data plane by hand', '127.0.0.1', '/exec', id, { to: 'agent', target: { id, path: '/exec' }, url: '/.superserve-agent/exec' }],
  ['the data plane by hand below the prefix', '127.0.0.1', '/superserve/files?path=/a', id, { to: 'agent', target: { id, path: '/files' }, url: '/.superserve-agent/files?path=/a' }],
  ['a header alone does not take other calls away', '127.0.0.1', '/sandboxes', id, null],
  ['an id that is none', 'sandbox.superserve.ai', '/exec', '../../etc', { to: 'agent', target: { id: null, path: '/exec' }, url: '/.superserve-agent/exec' }],
  ['a name that only ends alike', `boxd-${id}.evilsandbox.superserve.ai`, '/exec', undefined, null],
  ['the inner prefix from outside', '127.0.0.1', '/.superserve-agent/exec', undefined, null],
] as const) {
  test(what, () => assert.deepEqual(route(host, url, header), expected));
}

test('the host in the first line counts, as in a request for a proxy', () => {
  assert.deepEqual(routing.route({ url: `http://3000-${id}.box.example/a?b`, headers: { host: 'else.example' } }), { to: 'preview', target: { id, port: 3000 } });
});
