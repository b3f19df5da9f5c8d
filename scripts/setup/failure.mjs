/** What the user is told when set-up cannot go on: one sentence that says what to do. Printed without a stack. */
export class SetupFailure extends Error {
  /** @param {string} sentence @param {{detail?: string, cause?: unknown}} [more] detail: the last output of the command that failed */
  constructor(sentence, more = {}) {
    super(sentence, { cause: more.cause });
    this.name = 'SetupFailure';
    this.detail = more.detail ?? '';
  }
}
