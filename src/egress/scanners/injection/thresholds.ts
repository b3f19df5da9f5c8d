import { defaultInjectionThreshold as DEFAULT_THRESHOLD, type InjectionMode, sensitivities, type Sensitivity } from '../../../core/guardrails/guardrails.ts';

export { defaultInjectionThreshold as DEFAULT_THRESHOLD, injectionModes, sensitivities } from '../../../core/guardrails/guardrails.ts';

/** Columns: low, medium, high. The figures that belong to them are in metrics.json. */
const table: Readonly<Record<InjectionMode, readonly [number, number, number]>> = {
  strict: [0.9, 0.8, 0.6],
  balanced: [0.985, DEFAULT_THRESHOLD, 0.8],
  permissive: [0.995, 0.985, DEFAULT_THRESHOLD],
  'agentic-tool': [DEFAULT_THRESHOLD, 0.9, 0.7],
  'data-egress-sensitive': [DEFAULT_THRESHOLD, 0.9, 0.7],
};

export interface ThresholdChoice {
  /** 0 to 1. */
  readonly threshold?: number;
  readonly sensitivity?: Sensitivity;
  readonly mode?: InjectionMode;
}

/**
 * The score from which a text counts as an injection. A threshold other than the default is meant: it is used as it is. Otherwise
 * sensitivity and mode decide; "medium" and "balanced" where they are absent, which is the default again.
 */
export function effectiveThreshold({ threshold, sensitivity = 'medium', mode = 'balanced' }: ThresholdChoice): number {
  return threshold !== undefined && threshold !== DEFAULT_THRESHOLD ? threshold : tabledThreshold(sensitivity, mode);
}

export function tabledThreshold(sensitivity: Sensitivity, mode: InjectionMode): number {
  return table[mode][sensitivities.indexOf(sensitivity)]!;
}
