import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_THRESHOLD, effectiveThreshold, injectionModes, sensitivities } from './thresholds.ts';

test('a policy that says nothing, or what clients say by default, has the default threshold', () => {
  assert.equal(effectiveThreshold({}), 0.95);
  assert.equal(effectiveThreshold({ threshold: 0.95, sensitivity: 'medium' }), 0.95);
  assert.equal(effectiveThreshold({ threshold: 0.95, sensitivity: 'medium', mode: 'balanced' }), 0.95);
});

test('a threshold that somebody chose is used as it is', () => {
  for (const threshold of [0, 0.3, 0.949, 1])
    for (const mode of injectionModes) for (const sensitivity of sensitivities) assert.equal(effectiveThreshold({ threshold, sensitivity, mode }), threshold);
});

test('a higher sensitivity never has a higher threshold, and permissive to strict goes down', () => {
  for (const mode of injectionModes) {
    const [low, medium, high] = sensitivities.map((sensitivity) => effectiveThreshold({ threshold: DEFAULT_THRESHOLD, sensitivity, mode })) as [number, number, number];
    assert.ok(low > medium && medium > high && high > 0 && low < 1, mode);
  }
  for (const sensitivity of sensitivities) {
    const [strict, agentic, balanced, permissive] = (['strict', 'agentic-tool', 'balanced', 'permissive'] as const).map((mode) => effectiveThreshold({ sensitivity, mode })) as [number, number, number, number];
    assert.ok(strict < agentic && agentic < balanced && balanced < permissive, sensitivity);
  }
});
