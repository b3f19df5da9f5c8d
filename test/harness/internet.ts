import { createHash } from 'node:crypto';
import { after } from 'node:test';
import { Internet } from '../../src/egress/testing/internet.ts';
import { prepare, serverOfThisFile, type TestServer } from './server.ts';

/**
 * A server whose sandboxes resolve names at, and reach, an internet of this file's own. What the first function returns can be used once
 * the tests run.
 */
export function serverWithInternet(settings: Readonly<Record<string, string>> = {}): { server: TestServer; internet: () => Internet } {
  const id = createHash('sha256').update(`${process.pid} ${process.argv[1] ?? ''}`).digest('hex').slice(0, 8);
  let internet: Internet | undefined;
  prepare(async () => {
    internet = await Internet.open(id);
  });
  after(() => internet?.close());
  const server = serverOfThisFile({ PADDOCK_DNS_UPSTREAM: Internet.nameServerOf(id), ...settings });
  return {
    server,
    internet: () => {
      if (internet === undefined) throw new Error('the internet has not been built');
      return internet;
    },
  };
}
