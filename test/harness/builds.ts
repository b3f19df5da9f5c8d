import type { TestServer } from './server.ts';
import { eventually } from './wait.ts';

/** Waits for the end of a build of the Declaw API, and returns its last status. */
export async function buildOver(server: TestServer, buildId: string): Promise<{ status: string; template_id: string; logs: string[]; error?: string }> {
  let last: any;
  await eventually(async () => {
    last = (await server.call('GET', `/templates/builds/${buildId}`)).json;
    return last.status !== 'building';
  }, { withinMs: 120_000 });
  return last;
}
