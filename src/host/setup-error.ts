/** This machine cannot be a host as things are; the message is a sentence that says what the operator can do. */
export class HostSetupError extends Error {
  override name = 'HostSetupError';
}
