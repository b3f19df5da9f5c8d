import { invalid, shown } from './faults.ts';

const secretName = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const environmentName = /^[a-z0-9][a-z0-9_-]{0,63}$/;
const variableName = /^[A-Za-z_][A-Za-z0-9_]{0,255}$/;

/** The environment of secrets whose request names none, which is always there. */
export const defaultEnvironment = 'prod';

/** @throws PaddockError `invalid_argument` for what cannot be in a `vault://` reference and in a path. */
export function assertSecretName(name: string, field = 'name'): void {
  if (!secretName.test(name)) throw invalid(field, `must have 1 to 128 characters, letters, digits, _, . and - and none of the last two in front, but is ${shown(name)}`);
}

export function assertEnvironmentName(name: string, field = 'environment'): void {
  if (!environmentName.test(name)) throw invalid(field, `must have 1 to 64 characters, lower-case letters, digits, - and _, but is ${shown(name)}`);
}

/** The environment variable that holds a stand-in. */
export function assertVariableName(name: string, field: string): void {
  if (!variableName.test(name)) throw invalid(field, `must be a name of an environment variable (letters, digits and _, no digit in front, at most 256 characters), but is ${shown(name)}`);
}
