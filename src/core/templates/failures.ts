import { PaddockError } from '../errors.ts';
import { BuildFailure, type BuildFailureCode } from './build-host.ts';

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
