import { randomInt } from 'node:crypto';
import { plainStandIn, providerOf } from './providers.ts';

/** What stands in for every secret on the wire whose clients expect this text. */
export const vaultManaged = 'declaw:vault-managed';

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** A text that looks like a key of the provider and opens nothing. */
export function newStandIn(provider: string | null): string {
  const { prefix, length } = (provider === null ? undefined : providerOf(provider)?.standIn) ?? plainStandIn;
  let text = prefix;
  for (let i = 0; i < length; i++) text += alphabet[randomInt(alphabet.length)];
  return text;
}

/** How the stand-ins of a provider look, for people. */
export function shapeOf({ prefix }: { readonly prefix: string }): string {
  return `${prefix}...`;
}
