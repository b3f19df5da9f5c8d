import type { SecretsInput } from '../../core/create-input.ts';
import { PaddockError } from '../../core/errors.ts';
import type { TeamId } from '../../core/ids.ts';

/**
 * The secrets that a create asks for, `{OPENAI_API_KEY: 'vault://<team>/<environment>/<name>'}`. Their variables hold one text that says
 * nothing, and the secret goes into every request to its hosts.
 *
 * @throws PaddockError `invalid_argument` for what is no reference, or one to another team's secret.
 */
export function secretsOf(refs: Readonly<Record<string, string>>, teamId: TeamId): SecretsInput {
  return {
    field: 'vault_refs',
    bindings: Object.entries(refs).map(([variable, ref]) => {
      const field = `vault_refs.${variable.slice(0, 80)}`;
      const [, team, environment = '', name = ''] = /^vault:\/\/([^/]+)\/([^/]+)\/([^/]+)$/.exec(ref) ?? [];
      if (team === undefined) throw new PaddockError('invalid_argument', `${field} must be vault://<team>/<environment>/<name>, not ${JSON.stringify(ref.slice(0, 128))}.`, { field });
      // No word about whether there is such a team.
      if (team !== teamId) throw new PaddockError('invalid_argument', `${field} names a secret that is not there: ${JSON.stringify(ref.slice(0, 300))}.`, { field, reason: 'secret_not_found' });
      return { variable, environment, name, when: 'always' };
    }),
  };
}
