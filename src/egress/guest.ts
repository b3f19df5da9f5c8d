import { parseIpv4 } from '../core/network/addresses.ts';
import { decide, mayResolve, shape, type Destination, type PolicyShape, type Verdict } from '../core/network/decide.ts';
import type { EgressEntry } from '../core/network/egress.ts';
import type { Inspection } from '../core/network/inspection.ts';
import { parsePolicy } from '../core/network/parse.ts';
import type { NetworkPolicy } from '../core/network/rules.ts';
import type { SandboxId } from '../core/ids.ts';
import { Inspector } from './inspector.ts';
import type { TokenTables } from './scanners/pii/token-tables.ts';
import type { EgressLimits } from './settings.ts';
import { SyntheticNames } from './synthetic-names.ts';
import { TokenBucket } from './token-bucket.ts';

const closed = shape(parsePolicy({ allow: [], deny: ['0.0.0.0/0'] }));
/** What a connection that a pause ends was, all the same. */
const saved: Verdict = { allowed: true, matchRule: 'default', rule: null, reason: '' };

/** Something open on behalf of a guest, which new rules may end. */
export interface Flow {
  /** Where it goes, as far as that is known. */
  destinations(): readonly Destination[];
  /** Ends it at once with a reset. What the verdict allows ends for no fault of its own. */
  cut(verdict: Verdict): void;
}

/** A sandbox whose traffic is judged. Its rules are replaced as a whole; everything else about it stays. */
export class Guest {
  readonly id: SandboxId;
  /** IPv4, as text and as an unsigned 32-bit number. */
  readonly address: string;
  readonly source: number;
  readonly names: SyntheticNames;
  readonly questions: TokenBucket;
  readonly flows = new Set<Flow>();
  readonly #tokens: TokenTables;
  #policy: NetworkPolicy;
  #shape: PolicyShape;
  #inspector: Inspector | null = null;
  #gone = false;
  #secluded = false;

  /** @throws Error when the entry's address is none. */
  constructor(entry: EgressEntry, limits: EgressLimits, tokens: TokenTables) {
    const source = parseIpv4(entry.address);
    if (source === null) throw new Error(`"${entry.address}" is not an IPv4 address.`);
    this.id = entry.sandboxId;
    this.address = entry.address;
    this.source = source;
    this.#tokens = tokens;
    this.names = new SyntheticNames(entry.sandboxId, limits.namesPerSandbox);
    this.questions = new TokenBucket(limits.questionsPerSecond);
    this.#policy = entry.policy;
    this.#shape = shape(entry.policy);
  }

  get shape(): PolicyShape {
    return this.#secluded ? closed : this.#shape;
  }

  /** Whether the name behind each connection has to be known. */
  get namesMatter(): boolean {
    return this.#shape.names || this.#inspector !== null;
  }

  /** What looks into its traffic; null when nothing does. Asked anew for each connection and request. */
  get inspector(): Inspector | null {
    return this.#inspector;
  }

  /** How many inspected requests are under way. */
  exchanges = 0;

  /** Whether it was expelled: what still waits on its behalf must not go on. */
  get gone(): boolean {
    return this.#gone;
  }

  decide(destination: Destination): Verdict {
    if (this.#gone) return { allowed: false, matchRule: 'protocol', rule: null, reason: 'The sandbox is not running.' };
    if (this.#secluded) return { allowed: false, matchRule: 'protocol', rule: null, reason: 'The sandbox is being saved; try again in a moment.' };
    return decide(this.#policy, destination);
  }

  mayResolve(name: string): boolean {
    return !this.#gone && !this.#secluded && mayResolve(this.#policy, name);
  }

  /** Whether a connection of its own still goes to the name. */
  uses(name: string): boolean {
    for (const flow of this.flows) if (flow.destinations().some((destination) => destination.name === name)) return true;
    return false;
  }

  /** Puts other rules in force and ends the flows that they deny. @throws Error when a pattern is none; then no rules are in force. */
  rule(policy: NetworkPolicy): void {
    // Each pattern is compiled now: later nobody could answer for it.
    for (const rule of [...policy.allow, ...policy.deny]) if (rule.kind === 'regex') decide({ allow: [rule], deny: [] }, { name: 'example.com', address: null, port: 0 });
    this.#policy = policy;
    this.#shape = shape(policy);
    this.cutDenied();
  }

  /** Puts another inspection in force, from the next request on. @throws Error when it must not be; then its traffic must end. */
  inspect(inspection: Inspection | undefined): void {
    const empty = inspection === undefined || (inspection.secrets.length === 0 && inspection.guardrails === null);
    this.#inspector = empty ? null : new Inspector(inspection, this.#inspector, this.#tokens.of(this.id));
  }

  /** Ends what is open and lets nothing leave, or takes that back. Its rules and names stay. */
  seclude(secluded: boolean): void {
    this.#secluded = secluded;
    if (secluded) for (const flow of this.flows) flow.cut(saved);
  }

  cutDenied(): void {
    for (const flow of this.flows) {
      const denied = flow.destinations().map((destination) => this.decide(destination)).find((verdict) => !verdict.allowed);
      if (denied !== undefined) flow.cut(denied);
    }
  }

  /** Ends everything of it. */
  end(): void {
    this.#gone = true;
    this.cutDenied();
    for (const flow of this.flows) flow.cut(this.decide({ name: null, address: null, port: 0 }));
  }
}
