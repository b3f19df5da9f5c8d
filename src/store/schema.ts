import type { Generated } from 'kysely';

/**
 * The tables as rows. Times are integers of milliseconds, structured values are JSON in text, and nothing here is
 * particular to SQLite, so that the same schema serves PostgreSQL.
 */
export interface Schema {
  schema_version: SchemaVersionRow;
  store_facts: StoreFactRow;
  teams: TeamRow;
  api_keys: ApiKeyRow;
  sandboxes: SandboxRow;
  sandbox_metadata: SandboxMetadataRow;
  process_deadlines: ProcessDeadlineRow;
  events: EventRow;
  preview_ports: PreviewPortRow;
  network_events: NetworkEventRow;
  snapshots: SnapshotRow;
  volumes: VolumeRow;
  volume_locks: VolumeLockRow;
  authorities: AuthorityRow;
  secret_environments: SecretEnvironmentRow;
  secrets: SecretRow;
  secret_bindings: SecretBindingRow;
  secret_uses: SecretUseRow;
  templates: TemplateRow;
  template_builds: TemplateBuildRow;
  template_artefacts: TemplateArtefactRow;
  build_logs: BuildLogRow;
  layer_cache: LayerCacheRow;
  idempotency_keys: IdempotencyKeyRow;
}

/** A create that may be repeated; key and body are keyed hashes, hex. */
export interface IdempotencyKeyRow {
  /** Team and key. */
  id: string;
  team_id: string;
  key_hash: string;
  body_hash: string;
  run: string;
  sandbox_id: string | null;
  answer_sealed: string | null;
  created_at: number;
}

export interface SchemaVersionRow {
  version: number;
  name: string;
  applied_at: number;
}

/** Facts about the database itself, such as the key that seals its secrets. */
export interface StoreFactRow {
  name: string;
  value: string;
}

export interface TeamRow {
  id: string;
  name: string;
  created_at: number;
}

export interface ApiKeyRow {
  id: string;
  team_id: string;
  name: string;
  /** SHA-256 of the key, hex. */
  hash: string;
  created_at: number;
  revoked_at: number | null;
  scope: string;
  expires_at: number | null;
  last_used_at: number | null;
}

export interface SandboxRow {
  id: string;
  short_id: string;
  team_id: string;
  wire: string;
  name: string;
  state: string;
  template_id: string;
  template_name: string;
  template_digest: string;
  template_runtime: string | null;
  limits: string;
  default_user: string;
  /** The whole map, for reading; `sandbox_metadata` is its index. */
  metadata: string;
  envs_sealed: string;
  lifecycle: string;
  declared: string;
  policy: string;
  timeout_seconds: number;
  created_at: number;
  started_at: number | null;
  end_at: number | null;
  generation: number;
  guest: string | null;
  ended_at: number | null;
  end_reason: string | null;
  end_detail: string | null;
  period_started_at: number | null;
  paused_at: number | null;
  pause_cause: string | null;
  auto_delete_at: number | null;
  snapshot_id: string | null;
  source_snapshot_id: string | null;
  authority_id: string | null;
}

export interface SnapshotRow {
  id: string;
  team_id: string;
  sandbox_id: string;
  source: string;
  name: string | null;
  idempotency_key: string | null;
  /** The whole reference as JSON; null while it is being made. */
  checkpoint: string | null;
  checkpoint_id: string | null;
  bytes: number;
  created_at: number;
  ready_at: number | null;
  captured: string;
  policy: string;
  envs_sealed: string;
  authority_id: string | null;
}

/**
 * One row per metadata entry, so that a listing filters by an index. JSON functions differ between databases and would
 * read every row of the team.
 */
export interface SandboxMetadataRow {
  sandbox_id: string;
  team_id: string;
  key: string;
  value: string;
}

export interface ProcessDeadlineRow {
  sandbox_id: string;
  process_id: string;
  team_id: string;
  at: number;
}

export interface PreviewPortRow {
  sandbox_id: string;
  port: number;
  access: string;
  token_version: number;
}

export interface EventRow {
  seq: Generated<number>;
  at: number;
  team_id: string;
  sandbox_id: string | null;
  category: string;
  name: string;
  detail: string;
}

export interface NetworkEventRow {
  seq: Generated<number>;
  at: number;
  team_id: string;
  sandbox_id: string;
  host: string | null;
  address: string | null;
  port: number;
  protocol: string;
  verdict: string;
  match_rule: string;
  rule: string | null;
  reason: string;
  bytes_sent: number;
  bytes_received: number;
  duration_ms: number;
  count: number;
}

export interface VolumeRow {
  id: string;
  team_id: string;
  name: string;
  bytes: number;
  entries: number;
  metadata: string;
  created_at: number;
  updated_at: number;
}

export interface VolumeLockRow {
  volume_id: string;
  path: string;
  /** SHA-256 of the token, hex. */
  token_hash: string;
  expires_at: number;
}

export interface AuthorityRow {
  id: string;
  certificate: string;
  key_sealed: string;
  created_at: number;
}

export interface SecretEnvironmentRow {
  team_id: string;
  name: string;
  created_at: number;
}

export interface SecretRow {
  id: string;
  team_id: string;
  environment: string;
  name: string;
  provider: string | null;
  /** The whole list as JSON; the sealed value opens with exactly this text only. */
  rules: string;
  /** Null when it was deleted. */
  value_sealed: string | null;
  created_at: number;
  updated_at: number;
  rotated_at: number | null;
  rotation_interval_days: number | null;
  last_used_at: number | null;
  deleted_at: number | null;
}

export interface SecretBindingRow {
  id: string;
  team_id: string;
  sandbox_id: string;
  secret_id: string;
  variable: string;
  stand_in_sealed: string;
  when_used: string;
  inherited: number;
  created_at: number;
  detached_at: number | null;
}

export interface SecretUseRow {
  seq: Generated<number>;
  at: number;
  team_id: string;
  secret_id: string;
  sandbox_id: string;
  method: string;
  host: string;
  path: string;
  status: number;
  upstream_status: number | null;
  latency_ms: number;
  error_code: string | null;
}

export interface TemplateRow {
  id: string;
  team_id: string;
  name: string;
  status: string;
  spec_sealed: string;
  spec_hash: string;
  error_message: string | null;
  artefact_id: string | null;
  latest_build_id: string;
  created_at: number;
  built_at: number | null;
  size_bytes: number | null;
}

export interface TemplateBuildRow {
  id: string;
  template_id: string;
  team_id: string;
  status: string;
  spec_hash: string;
  error_message: string | null;
  created_at: number;
  started_at: number | null;
  finalized_at: number | null;
}

export interface TemplateArtefactRow {
  id: string;
  template_id: string;
  team_id: string;
  digest: string;
  root: string;
  limits: string;
  surroundings_sealed: string;
  size_bytes: number;
  spec_hash: string;
  start: string | null;
  created_at: number;
}

export interface BuildLogRow {
  build_id: string;
  seq: number;
  at: number;
  stream: string;
  text: string;
}

export interface LayerCacheRow {
  team_id: string;
  key: string;
  layer_id: string;
  used_at: number;
}
