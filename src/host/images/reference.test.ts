import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { BuildFailure } from '../../core/templates/build-host.ts';
import { describeReference, parseReference } from './reference.ts';

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`;

describe('references to images', () => {
  const good: readonly [text: string, means: string][] = [
    ['debian', 'docker.io/library/debian:latest'],
    ['debian:12-slim', 'docker.io/library/debian:12-slim'],
    ['team/app', 'docker.io/team/app:latest'],
    ['docker.io/debian', 'docker.io/library/debian:latest'],
    ['index.docker.io/team/app:1', 'docker.io/team/app:1'],
    ['ghcr.io/a/b/c:v1.0_x', 'ghcr.io/a/b/c:v1.0_x'],
    ['registry.example.com:5000/app', 'registry.example.com:5000/app:latest'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app:1', 'localhost:5000/app:1'],
    ['10.0.0.1:5000/app', '10.0.0.1:5000/app:latest'],
    ['Registry.Example/app', 'registry.example/app:latest'],
    [`debian@${digest}`, `docker.io/library/debian@${digest}`],
    [`r.example/a:1@${digest}`, `r.example/a:1@${digest}`],
    ['a.b/c__d/e-f--g.h_i', 'a.b/c__d/e-f--g.h_i:latest'],
    ['oci:/images/debian', 'oci:/images/debian'],
    ['oci:/images/../x/debian:12', 'oci:/x/debian:12'],
    ['docker-archive:/x.tar', 'docker-archive:/x.tar'],
    ['docker-archive:/x.tar:debian:12', 'docker-archive:/x.tar:debian:12'],
  ];
  for (const [text, means] of good) {
    test(`${text} is ${means}`, () => assert.equal(describeReference(parseReference(text, true)), means));
  }

  const bad: readonly [text: string, problem: RegExp][] = [
    ['', /is no image/],
    ['Debian', /is no image: names of repositories/],
    ['a b', /is no image: a reference has no spaces/],
    ['a\u0000b', /a reference has no spaces/],
    ['debian:', /has a tag that cannot be/],
    ['debian:-x', /has a tag that cannot be/],
    [`debian:${'x'.repeat(129)}`, /has a tag that cannot be/],
    ['debian@sha256:abc', /has a digest that is not/],
    ['debian@md5:abc', /has a digest that is not/],
    [`debian@${digest.toUpperCase()}`, /has a digest that is not/],
    ['../etc', /has a registry that is not/],
    ['r.example/../x', /is no image/],
    ['r.example/a//b', /is no image/],
    ['r.example/', /is no image/],
    ['r.example:0/a', /has a registry/],
    ['r.example:70000/a', /has a registry/],
    ['r.example:x/a', /has a registry/],
    ['user@r.example/a', /has a digest that is not/],
    ['[::1]:5000/a', /has a registry that is not host or host:port, with a name or an IPv4 address/],
    ['0x7f.1/a', /has a registry/],
    ['127.1/a', /has a registry/],
    ['0177.0.0.1/a', /has a registry/],
    ['-r.example/a', /has a registry/],
    ['https://r.example/a', /begins with https:\/\/: leave that out/],
    ['docker://debian', /begins with docker:\/\/: leave that out/],
    ['oci:relative', /must name an absolute path/],
    ['oci:', /must name an absolute path/],
    ['docker-archive:x.tar', /must name an absolute path/],
    ['oci:/x:', /has a tag that cannot be/],
    [`a/${'b'.repeat(255)}`, /at most 255/],
    ['a'.repeat(5000), /at most 4096/],
  ];
  for (const [text, problem] of bad) {
    test(`${JSON.stringify(text.slice(0, 40))} is refused`, () => {
      assert.throws(() => parseReference(text, true), (reason) => reason instanceof BuildFailure && reason.code === 'bad_reference' && (assert.match(reason.message, problem), true));
    });
  }

  test('files of this machine are for those who may name them', () => {
    for (const text of ['oci:/x', 'docker-archive:/x.tar', 'oci:relative']) {
      assert.throws(() => parseReference(text, false), { code: 'bad_reference', message: /names a file of this machine, which only its operator may/ });
    }
  });

  test('whatever is written, a value or one kind of failure comes, and a value means itself', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-z0-9.:/@_-]{1,60}$/)), (text) => {
        let said: string;
        try {
          said = describeReference(parseReference(text, false));
        } catch (reason) {
          return reason instanceof BuildFailure && reason.code === 'bad_reference';
        }
        return describeReference(parseReference(said, false)) === said;
      }),
      { numRuns: 2000 },
    );
  });
});
