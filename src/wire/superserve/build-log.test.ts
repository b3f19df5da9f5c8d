import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { LogLine, TemplateBuild } from '../../core/templates/template.ts';
import { logFrames } from './build-log.ts';

const line = (seq: number, stream: LogLine['stream'], text: string): LogLine => ({ seq, at: Date.UTC(2026, 0, 1) + seq, stream, text });

async function frames(lines: AsyncIterable<LogLine>, build: () => Partial<TemplateBuild>, signal = new AbortController().signal): Promise<any[]> {
  const all: any[] = [];
  for await (const frame of logFrames(lines, async () => build() as TemplateBuild, signal)) {
    assert.match(frame, /^data: \{[^\n]*\}\n\n$/);
    all.push(JSON.parse(frame.slice(6)));
  }
  return all;
}

async function* of(...lines: readonly LogLine[]): AsyncGenerator<LogLine> {
  yield* lines;
}

it('every line is an event of its time, and the last one says how the build ended', async () => {
  const all = await frames(of(line(1, 'system', 'step 1/1: run true'), line(2, 'stdout', 'out\u2028put'), line(3, 'stderr', 'template ready'), line(4, 'system', 'template ready')), () => ({ status: 'ready' }));
  assert.deepEqual(all.slice(0, 3), [
    { timestamp: '2026-01-01T00:00:00.001Z', stream: 'system', text: 'step 1/1: run true' },
    { timestamp: '2026-01-01T00:00:00.002Z', stream: 'stdout', text: 'out\u2028put\n' },
    { timestamp: '2026-01-01T00:00:00.003Z', stream: 'stderr', text: 'template ready\n' },
  ]);
  const { timestamp, ...last } = all[3];
  assert.match(timestamp, /^\d{4}-.*Z$/);
  assert.deepEqual(last, { stream: 'system', text: 'template ready', finished: true, status: 'ready' });
});

it('a failure is told once, whole', async () => {
  const errorMessage = 'step_failed: step 1/1 failed after 0s: exited with code 1';
  const all = await frames(of(line(1, 'system', errorMessage), line(2, 'system', 'more of it')), () => ({ status: 'failed', errorMessage }));
  assert.deepEqual(all.map(({ text, finished, status }) => [text, finished, status]), [[errorMessage, true, 'failed']]);
});

it('a log without an end gets one from the build', async () => {
  const all = await frames(of(line(1, 'stdout', 'x')), () => ({ status: 'cancelled', errorMessage: 'cancelled: the build was cancelled' }));
  assert.deepEqual(all.map(({ text }) => text), ['x\n', 'cancelled: the build was cancelled']);
});

it('a build that waits says so every two seconds', async (t) => {
  t.mock.timers.enable({ apis: ['Date'] });
  const go = Promise.withResolvers<void>();
  async function* waiting(): AsyncGenerator<LogLine> {
    await go.promise;
    yield line(1, 'stdout', 'at last');
  }
  let status: TemplateBuild['status'] = 'pending';
  setTimeout(() => {
    status = 'ready';
    go.resolve();
  }, 2500);
  const all = await frames(waiting(), () => ({ status }));
  assert.deepEqual(all.map(({ text }) => text), ['build queued, waiting for dispatch', 'at last\n', 'template ready']);
});

it('a reader that leaves, and a server that stops, get no end', async () => {
  const left = new AbortController();
  left.abort();
  assert.deepEqual(await frames(of(line(1, 'stdout', 'x')), () => ({ status: 'building' }), left.signal), []);
});
