import { openPolicy, type NetworkPolicy } from '../network/rules.ts';
import type { SpecLimits } from './spec.ts';

export interface RegistryLogin {
  readonly username: string;
  readonly password: string;
}

/** The bounds of templates and their builds, and what the operator says of images. */
export interface TemplateSettings extends SpecLimits {
  /** Of a team. */
  readonly maxTemplates: number;
  /** Builds of a team that run or wait. */
  readonly maxTeamBuilds: number;
  /** Builds that run at the same time; the others wait. */
  readonly buildsAtOnce: number;
  readonly buildTimeoutSeconds: number;
  /** Unpacked. */
  readonly maxImageBytes: number;
  /** What the steps of builds may reach. */
  readonly network: NetworkPolicy;
  /** What to take when an image of this name is asked for: a built-in template, or another image, which may be a path of this machine. */
  readonly imageAliases: Readonly<Record<string, string>>;
  /** By registry, `docker.io` or `registry.example.com:5000`. */
  readonly logins: Readonly<Record<string, RegistryLogin>>;
}

export const defaultTemplateSettings: TemplateSettings = Object.freeze({
  maxVcpus: 10,
  maxMemoryMb: 20_480,
  maxDiskMb: 102_400,
  maxTemplates: 50,
  maxTeamBuilds: 5,
  buildsAtOnce: 2,
  buildTimeoutSeconds: 1800,
  maxImageBytes: 10_240 * 1_048_576,
  network: openPolicy,
  imageAliases: Object.freeze({}),
  logins: Object.freeze({}),
});

/** Where an image comes from, as its reference says. */
export function registryOf(reference: string): string {
  const [first = '', ...rest] = reference.split('/');
  return rest.length > 0 && (first.includes('.') || first.includes(':') || first === 'localhost') ? first : 'docker.io';
}
