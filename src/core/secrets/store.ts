import type { AuthorityId, SandboxId, SecretId, TeamId } from '../ids.ts';
import type { SecretRule } from '../network/inspection.ts';
import type { Authority, Binding, ListedUse, LoggedUse, NamedBinding, OpenedSecret, Secret, SecretUsage } from './secret.ts';

export interface SecretPage {
  readonly items: readonly Secret[];
  readonly total: number;
}

/** What a listing asks for; newest first. */
export interface SecretQuery {
  readonly environment?: string;
  readonly limit: number;
  readonly offset: number;
}

/** Secrets that are not deleted, but for `open`. */
export interface SecretStore {
  /** Throws `conflict` when the name is taken in its environment. */
  insert(secret: Secret, value: string): Promise<void>;
  find(teamId: TeamId, id: SecretId): Promise<Secret | null>;
  findByName(teamId: TeamId, environment: string, name: string): Promise<Secret | null>;
  list(teamId: TeamId, query: SecretQuery): Promise<SecretPage>;
  /** Null when there is none. */
  rotate(teamId: TeamId, id: SecretId, value: string, at: number): Promise<Secret | null>;
  replaceRules(teamId: TeamId, id: SecretId, rules: readonly SecretRule[], at: number): Promise<Secret | null>;
  /** Takes the value away for good and frees the name; false when there is none. */
  delete(teamId: TeamId, id: SecretId, at: number): Promise<boolean>;
  /** With their values, deleted ones too. One that cannot be opened says why, and keeps no other from being opened. */
  open(teamId: TeamId, ids: readonly SecretId[]): Promise<ReadonlyMap<SecretId, OpenedSecret>>;
  used(ids: readonly SecretId[], at: number): Promise<void>;
  environments(teamId: TeamId): Promise<readonly string[]>;
  /** False when it is there already. */
  addEnvironment(teamId: TeamId, name: string, at: number): Promise<boolean>;
  /** Forgets what was deleted before and is bound nowhere. */
  purge(deletedBefore: number): Promise<number>;
}

export interface BindingStore {
  /** Throws `conflict` when the sandbox has another one for the variable. */
  insert(binding: Binding): Promise<void>;
  /** All of a sandbox with their stand-ins, oldest first. A row that was altered is left out and counted. */
  ofSandbox(sandboxId: SandboxId): Promise<{ readonly bindings: readonly Binding[]; readonly altered: number }>;
  /** What a sandbox's owner sees: neither detached nor inherited. By variable. */
  list(sandboxId: SandboxId): Promise<readonly NamedBinding[]>;
  /** Of the variable, with what was inherited for it; false when there is none. */
  detach(sandboxId: SandboxId, variable: string, at: number): Promise<boolean>;
  remove(id: string): Promise<void>;
  /** Sandboxes that have the secret in whatever way. */
  sandboxesOf(secretId: SecretId): Promise<readonly SandboxId[]>;
  /** Sandboxes that have not ended, newest binding first. */
  usage(teamId: TeamId, secretId: SecretId): Promise<readonly SecretUsage[]>;
  /** Which secrets bindings are of. */
  secretsOf(ids: readonly string[]): Promise<ReadonlyMap<string, { readonly secretId: SecretId; readonly teamId: TeamId }>>;
  /** Forgets those of sandboxes that neither a row nor a snapshot remembers. */
  purge(): Promise<number>;
}

/** What a listing of uses asks for; newest first. */
export interface UseQuery {
  readonly limit: number;
  /** Exclusive. */
  readonly before?: number;
  /** First and last status, inclusive. */
  readonly status?: readonly [number, number];
}

/** What a listing of a sandbox's requests asks for; newest first. */
export interface SandboxUseQuery {
  readonly limit: number;
  /** Inclusive. */
  readonly since?: number;
  /** With `seq`: after the entry of the page before; without: before this time. */
  readonly before?: { readonly at: number; readonly seq?: number };
}

export interface SecretUseStore {
  append(uses: readonly LoggedUse[]): Promise<void>;
  list(teamId: TeamId, secretId: SecretId, query: UseQuery): Promise<readonly ListedUse[]>;
  /** Of whatever secrets. */
  ofSandbox(teamId: TeamId, sandboxId: SandboxId, query: SandboxUseQuery): Promise<readonly ListedUse[]>;
  /** Removes what is older than `before`, and the oldest beyond about `keepNewest`; returns how many. */
  purge(before: number, keepNewest: number): Promise<number>;
}

export interface AuthorityStore {
  insert(authority: Authority): Promise<void>;
  /** Throws `internal` when the row was altered. */
  find(id: AuthorityId): Promise<Authority | null>;
  /** Forgets those that neither a sandbox nor a snapshot names. */
  purge(createdBefore: number): Promise<number>;
}
