import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EnvMask } from './env-masking.ts';

test('what is assigned to a secret name is masked, in every manner of writing', () => {
  const mask = new EnvMask({});
  assert.equal(mask.apply('API_KEY=abc MODE=x'), 'API_KEY=*** MODE=x');
  assert.equal(mask.apply('{"DB_PASSWORD": "a b\\"c", "PORT": 1}'), '{"DB_PASSWORD": "***", "PORT": 1}');
  assert.equal(mask.apply("export my_token='x y'; run"), "export my_token='***'; run");
  assert.equal(mask.apply('AWS_SECRET: abc, next'), 'AWS_SECRET: ***, next');
  assert.equal(mask.apply('curl -d k=1&API_KEY=abc&x=2'), 'curl -d k=1&API_KEY=***&x=2');
});

test('names are matched by the patterns given', () => {
  assert.equal(new EnvMask({ patterns: ['my*'] }).apply('MYSELF=1 API_KEY=2'), 'MYSELF=*** API_KEY=2');
});

test('values of secret variables are masked wherever they stand, short ones are not', () => {
  const mask = new EnvMask({ envs: { API_KEY: 'hunter2hunter2', OTHER_KEY: 'abc', MODE: 'production' }, sensitive: [{ name: 'x', value: 'hunter2hunter2-long' }] });
  assert.equal(mask.apply('sent hunter2hunter2-long and hunter2hunter2, abc, production'), 'sent *** and ***, abc, production');
});

test('attack: a quote that never closes, and names without values', () => {
  const mask = new EnvMask({});
  assert.equal(mask.apply('API_KEY="abc def'), 'API_KEY="***"');
  assert.equal(mask.apply('API_KEY= API_KEY'), 'API_KEY= ***');
  assert.equal(mask.apply('the API_KEY is missing'), 'the API_KEY is missing');
});
