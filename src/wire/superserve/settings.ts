/** Requests per second, and how many may come at once after a silence. */
export interface Rate {
  readonly perSecond: number;
  readonly burst: number;
}

/** What an operator can choose about this wire. */
export interface SuperserveSettings {
  /** What `timeout_seconds` means (contract, section 9.3). */
  readonly timeout: 'hard_cap' | 'auto_pause';
  /** What a create without `preview_access` gets. */
  readonly previews: 'legacy_public' | 'public';
  /** Origins of web pages that may use the data plane. */
  readonly origins: readonly string[];
  /** Of the control plane; null for no limit. */
  readonly addressRate: Rate | null;
  readonly teamRate: Rate | null;
}
