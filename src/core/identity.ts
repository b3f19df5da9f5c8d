import type { GuestIdentity } from './host.ts';
import type { SandboxId, ShortId } from './ids.ts';
import type { Sandbox, WireName } from './sandbox.ts';
import type { Equipment } from './secrets/bindings.ts';
import type { TemplateCatalog } from './template.ts';
import type { Tokens } from './tokens.ts';

export interface SandboxNames {
  readonly id: SandboxId;
  readonly shortId: ShortId;
}

/** What a wire calls its sandboxes from within. */
export interface Naming {
  hostname(sandbox: SandboxNames): string;
  /** Variables that say where a program runs, such as DECLAW_SANDBOX; the owner's own win. */
  env(sandbox: SandboxNames): Readonly<Record<string, string>>;
}

/** One for each wire that makes sandboxes here. */
export type NamingTable = Readonly<Partial<Record<WireName, Naming>>>;

const plain: Naming = { hostname: ({ shortId }) => `sandbox-${shortId}`, env: () => ({}) };

/** Who a guest is to be, for a sandbox as its row says: the same for a create, a resume and a fork. */
export class Identities {
  readonly #tokens: Tokens;
  readonly #templates: TemplateCatalog;
  readonly #naming: NamingTable;

  constructor(deps: { readonly tokens: Tokens; readonly templates: TemplateCatalog; readonly naming: NamingTable }) {
    this.#tokens = deps.tokens;
    this.#templates = deps.templates;
    this.#naming = deps.naming;
  }

  /** @param given what its secrets bring: stand-ins and the certificate. */
  of(sandbox: Sandbox, given: Pick<Equipment, 'env' | 'certificate'>): GuestIdentity {
    const naming = this.#naming[sandbox.wire] ?? plain;
    const template = this.#templates.byDigest(sandbox.template.digest);
    return {
      sandboxId: sandbox.id,
      hostname: naming.hostname(sandbox),
      agentToken: this.#tokens.agent(sandbox),
      defaultUser: sandbox.defaultUser,
      sudo: sandbox.template.runtime?.sudo ?? true,
      env: { ...template?.env, ...naming.env(sandbox), ...sandbox.envs, ...given.env },
      certificate: given.certificate,
    };
  }
}
