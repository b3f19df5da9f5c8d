import { readFileSync } from 'node:fs';
import type { TemplateConfig } from '../config.ts';
import { PaddockError } from '../core/errors.ts';
import { parsePolicy } from '../core/network/parse.ts';
import { openPolicy, type NetworkPolicy } from '../core/network/rules.ts';
import type { RegistryLogin, TemplateSettings } from '../core/templates/settings.ts';
import { OperatorError } from './data-dir.ts';

/** What the operator says of templates, in the words of the core. Throws `OperatorError` for what cannot be used. */
export function templateSettings(config: TemplateConfig): TemplateSettings {
  return Object.freeze({
    maxVcpus: config.maxVcpus,
    maxMemoryMb: config.maxMemoryMb,
    maxDiskMb: config.maxDiskMb,
    maxTemplates: config.max,
    maxTeamBuilds: config.buildsPerTeam,
    buildsAtOnce: config.buildsAtOnce,
    buildTimeoutSeconds: config.buildSeconds,
    maxImageBytes: config.maxImageMb * 1024 * 1024,
    network: buildNetwork(config.allowOut),
    imageAliases: config.imageAliases,
    logins: config.registryLoginsFile === null ? {} : readLogins(config.registryLoginsFile),
  });
}

function buildNetwork(allow: readonly string[]): NetworkPolicy {
  if (allow.length === 0) return openPolicy;
  try {
    return parsePolicy({ allow, deny: [] }, { allow: 'PADDOCK_BUILD_ALLOW_OUT', deny: '' });
  } catch (cause) {
    if (cause instanceof PaddockError) throw new OperatorError(`${cause.message}.`, { cause });
    throw cause;
  }
}

/** Nothing of the file is repeated in what goes wrong: it holds passwords. */
function readLogins(file: string): Readonly<Record<string, RegistryLogin>> {
  const wrong = (): OperatorError => new OperatorError(`PADDOCK_REGISTRY_LOGINS: ${file} must be JSON such as {"registry.example.com": {"username": "…", "password": "…"}}.`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    throw wrong();
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw wrong();
  return Object.freeze(
    Object.fromEntries(
      Object.entries(parsed).map(([registry, login]: [string, unknown]) => {
        const { username, password } = (login ?? {}) as Partial<Record<keyof RegistryLogin, unknown>>;
        if (typeof username !== 'string' || typeof password !== 'string') throw wrong();
        return [registry, Object.freeze({ username, password })];
      }),
    ),
  );
}
