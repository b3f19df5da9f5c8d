import { setImmediate as nextTurn } from 'node:timers/promises';
import type { CodeSecurityRules } from '../../core/guardrails/guardrails.ts';
import { RuleCodeSecurity } from '../scanners/code-security.ts';
import { shippedModel } from '../scanners/injection/model-file.ts';
import { ModelScorer } from '../scanners/injection/model-scorer.ts';
import { LexiconToxicity } from '../scanners/toxicity.ts';
import type { Judge } from './scores.ts';

let model: ModelScorer | null = null;

/** Read when it is needed first: most sandboxes never ask. */
export const injectionJudge: Judge = async (text) => {
  model ??= new ModelScorer(shippedModel());
  const judged = await model.score(text);
  return judged.scanned ? { score: judged.score, label: 'injection' } : { unscanned: judged.reason };
};

const lexicon = new LexiconToxicity();

/** Others have their turn between two texts. */
export const toxicityJudge: Judge = async (text) => {
  await nextTurn();
  return lexicon.score(text);
};

export function codeJudge({ excludedLanguages, detectSuspiciousImports }: CodeSecurityRules): Judge {
  const rules = new RuleCodeSecurity({ excludedLanguages, detectSuspiciousImports });
  return async (text) => {
    await nextTurn();
    return rules.score(text);
  };
}
