/** What a sandbox made from a template gets. All limits hold per sandbox. */
export interface Limits {
  readonly vcpus: number;
  readonly memoryMb: number;
  readonly diskMb: number;
  /** Processes and threads at once inside the sandbox. */
  readonly pids: number;
}

/** A ready, immutable template on this host. */
export interface Template {
  /** Public id, `tpl-<name>`. */
  readonly id: string;
  readonly name: string;
  /** Content address of the root file system. */
  readonly digest: string;
  readonly description: string;
  readonly limits: Limits;
  /** Environment for every process, below the sandbox's own. */
  readonly env: Readonly<Record<string, string>>;
  /** When it was built, milliseconds since the epoch. */
  readonly builtAt?: number | null;
  /** Size of the root file system. */
  readonly sizeBytes?: number | null;
}

/** The templates that sandboxes can be created from. */
export interface TemplateCatalog {
  find(name: string): Template | undefined;
  list(): readonly Template[];
  /** Names of those that are being built for the first time. */
  pending?(): readonly string[];
  /** Names of those that are built when somebody asks for one first. */
  offered?(): readonly string[];
  /**
   * Asks for an offered one: it is then pending until it is ready, or cannot be built.
   *
   * @throws PaddockError `template_not_ready` with the reason, when that has just been tried and failed.
   */
  request?(name: string): void;
  /** What will be known of a pending or offered one. */
  announced?(name: string): Pick<Template, 'description' | 'limits'> | undefined;
  /** Also one that is no longer offered but still on this host. */
  byDigest(digest: string): Template | undefined;
}
