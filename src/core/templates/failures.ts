import { PaddockError } from '../errors.ts';
import { BuildFailure, type BuildFailureCode } from './build-host.ts';
import type { LogLine } from './template.ts';

/** Any thrown value as the failure of a build; what says nothing of its own gets this code. */
export function failureOf(thrown: unknown, code: BuildFailureCode, signal: AbortSignal): BuildFailure {
  // Why it was ended says more than what the end made fail.
  if (signal.aborted && signal.reason instanceof BuildFailure) return signal.reason;
  if (thrown instanceof BuildFailure) return thrown;
  const error = PaddockError.from(thrown);
  return new BuildFailure(code, error.message, { cause: thrown });
}

/** Runs part of a build: whatever fails in it fails with this code. */
export async function failingAs<T>(code: BuildFailureCode, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw failureOf(thrown, code, signal);
  }
}

/** The last line of a log that ends well. */
export const readyLine = 'template ready';

const endings = /^(bad_reference|unsupported_platform|image_pull_failed|image_unsafe|image_too_large|step_failed|boot_failed|start_cmd_failed|ready_cmd_failed|snapshot_failed|build_failed|template_gone|invalid_spec|cancelled|timeout): /;

/** Whether a line of a log says how its build ended. */
export function isEnding({ stream, text }: Pick<LogLine, 'stream' | 'text'>): boolean {
  return stream === 'system' && (text === readyLine || endings.test(text));
}
