import { findAddresses } from './address.ts';
import { findApiKeys } from './api-key.ts';
import { findCreditCards } from './credit-card.ts';
import { DigitRuns } from './digits.ts';
import { findEmails } from './email.ts';
import { findIpAddresses } from './ip-address.ts';
import { findPersonNames } from './person-name.ts';
import { findPhones, type PhoneOptions } from './phone.ts';
import { findSsns } from './ssn.ts';
import { type Hit, longestHit, type PiiType } from './types.ts';

export interface PiiOptions {
  readonly types: ReadonlySet<PiiType>;
  readonly phone: PhoneOptions;
}

/** Where two kinds claim the same characters, the first of these has them. */
const rank: Readonly<Record<PiiType, number>> = { api_key: 0, email: 1, credit_card: 2, ssn: 3, ip_address: 4, phone: 5, address: 6, person_name: 7 };

/** Everything that is looked for in a text, in order and without overlaps. */
export function findPii(text: string, { types, phone }: PiiOptions): Hit[] {
  const hits: Hit[] = [];
  const found = (hit: Hit): void => {
    if (hit.end - hit.start <= longestHit) hits.push(hit);
  };
  if (types.has('api_key')) findApiKeys(text, found);
  if (types.has('email')) findEmails(text, found);
  const runs = new DigitRuns(text);
  if (types.has('credit_card')) findCreditCards(runs, found);
  if (types.has('ssn')) findSsns(runs, found);
  if (types.has('ip_address')) findIpAddresses(runs, found);
  if (types.has('phone')) findPhones(runs, phone, found);
  if (types.has('address')) findAddresses(runs, found);
  if (types.has('person_name')) findPersonNames(text, found);
  return withoutOverlaps(hits);
}

function withoutOverlaps(hits: Hit[]): Hit[] {
  if (hits.length < 2) return hits;
  hits.sort((a, b) => a.start - b.start || rank[a.type] - rank[b.type] || b.end - a.end);
  const kept: Hit[] = [];
  for (const hit of hits) {
    const last = kept.at(-1);
    if (last === undefined || hit.start >= last.end) kept.push(hit);
    else if (rank[hit.type] < rank[last.type]) kept[kept.length - 1] = hit;
  }
  return kept;
}
