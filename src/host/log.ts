/** The part of a pino logger that the host room uses. */
export interface HostLog {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

export const silentLog: HostLog = { info: () => {}, warn: () => {}, error: () => {} };
