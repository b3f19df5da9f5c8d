import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { PaddockError } from '../errors.ts';
import { BuildFailure } from './build-host.ts';
import { parseDockerfile, words } from './dockerfile.ts';
import { planOf } from './plan.ts';
import { defaultSizes, parseSpec, specHash, type Step } from './spec.ts';
import { defaultTemplateSettings } from './settings.ts';
import { resolveWord } from './words.ts';

/** What a Dockerfile comes to over an image with these variables. */
function plan(text: string, env: Record<string, string> = {}) {
  const { from, steps } = parseDockerfile(text);
  const spec = parseSpec({ from, steps }, defaultTemplateSettings);
  return planOf(spec, { env, user: null, sudo: true, workdir: null });
}

const runs = (text: string, env?: Record<string, string>): string[] => plan(text, env).stages.flatMap(({ actions }) => actions.flatMap((each) => (each.kind === 'run' ? [each.command] : [])));
const envOf = (text: string, env?: Record<string, string>) => plan(text, env).after.env;

describe('a Dockerfile', () => {
  const froms: [string, string][] = [
    ['FROM debian:12', 'debian:12'],
    ['from  debian:12-slim  AS  base ', 'debian:12-slim'],
    ['# syntax=docker/dockerfile:1\nARG TAG=22.04\nFROM ubuntu:${TAG}', 'ubuntu:22.04'],
    ['ARG A=x\nARG B=${A}y\nFROM img:$B', 'img:xy'],
    ['FROM img:${NONE:-latest}', 'img:latest'],
    ['FROM --platform=linux/amd64 img', 'img'],
    ['\uFEFFFROM img\r\nRUN true\r\n', 'img'],
    ['FROM \\\n  img', 'img'],
  ];
  for (const [text, from] of froms) it(`begins with ${from}: ${JSON.stringify(text)}`, () => assert.equal(parseDockerfile(text).from, from));

  const commands: [string, string[]][] = [
    ['RUN apt-get update && \\\n    apt-get install -y curl', ['apt-get update &&     apt-get install -y curl']],
    ['RUN a \\\n# a comment between\n\n  b', ['a   b']],
    ['RUN ["echo", "a b", "it\'s"]', [String.raw`echo 'a b' 'it'\''s'`]],
    ['RUN [ -d /x ] || mkdir /x', ['[ -d /x ] || mkdir /x']],
    ['SHELL ["/bin/bash", "-c"]\nRUN echo $((1+1))', [String.raw`exec /bin/bash -c 'echo $((1+1))'`]],
    ['# escape=`\nFROM x\nRUN a `\n b\\', ['a  b\\']],
    ['RUN echo "$HOME" # kept', ['echo "$HOME" # kept']],
    ['RUN cat <<<word', ['cat <<<word']],
  ];
  for (const [text, expected] of commands) it(`runs ${JSON.stringify(text)}`, () => assert.deepEqual(runs(text.includes('FROM') ? text : `FROM x\n${text}`), expected));

  const environments: [string, Record<string, string>][] = [
    ['ENV A=1 B="two words" C=three\\ words', { A: '1', B: 'two words', C: 'three words' }],
    ['ENV A the whole rest', { A: 'the whole rest' }],
    ["ENV A='$B' B=x", { A: '$B', B: 'x' }],
    ['ENV A=hello\nENV A=bye B=$A\nENV C=$A', { A: 'bye', B: 'hello', C: 'bye' }],
    ['ENV PATH=/opt/bin:$PATH', { PATH: '/opt/bin:/bin' }],
    ['ARG V=1\nENV A=v${V}', { A: 'v1' }],
    ['ARG V\nENV A=v${V:-none}', { A: 'vnone' }],
    ['ENV A=${NONE:-a} B=${NONE:+b} C=${PATH:+c} D=\\$PATH', { A: 'a', B: '', C: 'c', D: '$PATH' }],
    ['ENV A=${X:-${Y:-deep}}', { A: 'deep' }],
  ];
  for (const [text, expected] of environments) {
    it(`sets ${JSON.stringify(text)}`, () => assert.deepEqual(envOf(`FROM x\n${text}`, { PATH: '/bin' }), { PATH: '/bin', ...expected }));
  }

  it('gives ARGs to RUN lines, covered by ENV, and not to sandboxes', () => {
    const { stages, after } = plan('FROM x\nARG A=arg\nARG B=arg\nENV B=env\nRUN true');
    const [action] = stages[0]!.actions;
    assert.deepEqual(action?.kind === 'run' ? action.env : null, { A: 'arg', B: 'env' });
    assert.deepEqual(after.env, { B: 'env' });
    assert.equal(parseDockerfile('ARG G=1\nFROM x\nARG G\nRUN true').steps[0]?.kind, 'arg');
  });

  it('moves between directories and users', () => {
    const { stages, after } = plan('FROM x\nENV D=deep\nWORKDIR /app\nWORKDIR $D/../er\nUSER node:node\nRUN true');
    assert.deepEqual(stages.map(({ actions }) => actions.map((each) => (each.kind === 'workdir' ? each.path : each.kind === 'user' ? each.name : each.cwd))), [['/app', '/app/er'], ['node'], ['/app/er']]);
    assert.deepEqual([after.workdir, after.user, after.sudo], ['/app/er', 'node', false]);
    assert.equal(plan('FROM x\nUSER 0').after.user, 'root');
    assert.equal(plan('FROM x\nWORKDIR /../../..').after.workdir, '/');
  });

  it('keeps directories of the system root’s', () => {
    const owner = (path: string): unknown => plan(`FROM x\nUSER app\nWORKDIR ${path}`).stages.at(-1)?.actions.map((each) => (each.kind === 'workdir' ? each.owner : null))[0];
    for (const path of ['/', '/etc', '/usr/local', '/tmp', '/var/lib', '/opt', '/home']) assert.equal(owner(path), null, path);
    for (const path of ['/app', '/home/app', '/opt/x', '/var/lib/app', '/usr/src/app']) assert.equal(owner(path), 'app', path);
  });

  it('says what has no effect', () => {
    const { notes } = parseDockerfile('FROM x\nEXPOSE 80\nLABEL a=b\nCMD ["x"]\nENTRYPOINT y\nVOLUME /d\nSTOPSIGNAL 9\nHEALTHCHECK CMD true\nMAINTAINER me');
    assert.deepEqual(notes.map((note) => note.split(' ').slice(0, 3).join(' ')), ['line 2: EXPOSE', 'line 3: LABEL', 'line 4: CMD', 'line 5: ENTRYPOINT', 'line 6: VOLUME', 'line 7: STOPSIGNAL', 'line 8: HEALTHCHECK', 'line 9: MAINTAINER']);
  });

  const refused: [string, RegExp][] = [
    ['RUN true', /^dockerfile line 1: RUN comes before FROM/],
    ['', /^dockerfile must contain FROM$/],
    ['# only a comment', /^dockerfile must contain FROM$/],
    ['FROM x\nCOPY a b', /^dockerfile line 2: COPY cannot be used: files are not sent/],
    ['FROM x\n\nADD https://x /y', /^dockerfile line 3: ADD cannot be used/],
    ['FROM a AS b\nRUN true\nFROM c', /^dockerfile line 3: a second FROM \(a multi-stage build\)/],
    ['FROM x\nRUN <<EOF\necho\nEOF', /^dockerfile line 2: RUN has a here-document/],
    ['FROM x\nRUN cat <<-"END" > f', /^dockerfile line 2: RUN has a here-document/],
    ['FROM x\nRUN --mount=type=cache,target=/x true', /^dockerfile line 2: RUN has the option "--mount=type=cache,target=\/x"/],
    ['FROM x\nONBUILD RUN true', /^dockerfile line 2: ONBUILD/],
    ['FROM x\nFRMO y', /^dockerfile line 2: FRMO is not an instruction/],
    ['FROM x\nENV A', /^dockerfile line 2: ENV needs a value for "A"/],
    ['FROM x\nENV 1A=b', /^dockerfile line 2: ENV has the name "1A"/],
    ['FROM x\nRUN', /^dockerfile line 2: RUN needs an argument/],
    ['FROM x y z', /^dockerfile line 1: FROM must be an image/],
    ['FROM ${A:?no}', /^dockerfile line 1: A is not set: no/],
    ['FROM x\nSHELL /bin/sh', /^dockerfile line 2: SHELL must be a list/],
    ['FROM x\n"quoted"', /^dockerfile line 2: an instruction must begin with a word/],
    ['# escape=x\nFROM y', /^dockerfile line 1: the escape character/],
    [`FROM x\n${'#'.repeat(65_536)}`, /^dockerfile takes 65543 bytes; the limit is 65536/],
    ['FROM x\nRUN a\0b', /NUL/],
  ];
  for (const [text, expected] of refused) {
    it(`is refused: ${JSON.stringify(text.slice(0, 40))}`, () => {
      assert.throws(() => parseDockerfile(text), (error: unknown) => error instanceof PaddockError && error.code === 'invalid_argument' && expected.test(error.message));
    });
  }

  it('fails a build for what only shows when variables are known', () => {
    for (const [text, expected] of [
      ['FROM x\nWORKDIR $NONE', /^step 1: the directory is empty/],
      ['FROM x\nUSER ${U:-Bad User}', /^step 1: the user must match/],
      ['FROM x\nUSER a:b', /^step 1: a user with another group/],
      ['FROM x\nENV A="open', /^step 1: a double quote is not closed/],
      ['FROM x\nENV A=${B', /^step 1: /],
    ] as const) assert.throws(() => plan(text), (error: unknown) => error instanceof BuildFailure && error.code === 'invalid_spec' && expected.test(error.message), text);
  });

  it('whatever is in it, is parsed or refused, in time that grows with its length', () => {
    const instruction = fc.constantFrom('FROM', 'RUN', 'ENV', 'ARG', 'WORKDIR', 'USER', 'CMD', 'COPY', 'SHELL', '#', '');
    const line = fc.tuple(instruction, fc.string({ unit: fc.constantFrom('a', ' ', '=', '$', '{', '}', '"', "'", '\\', '<', ':', '-', '[', ']', '\n', '`') })).map(([word, rest]) => `${word} ${rest}`);
    fc.assert(
      fc.property(fc.array(line), (lines) => {
        try {
          plan(['FROM x', ...lines].join('\n'));
        } catch (error) {
          assert.ok(error instanceof PaddockError || error instanceof BuildFailure, String(error));
          assert.ok(error instanceof BuildFailure || error.code === 'invalid_argument', String(error));
        }
      }),
      { numRuns: 1000 },
    );
    for (const unit of ['${A:-', '\\\n', '"', "'", '$', 'a=b ', '<<', '[']) {
      const text = `FROM x\nENV A=${unit.repeat(Math.floor(60_000 / unit.length))}`;
      const begun = process.cpuUsage();
      try {
        plan(text);
      } catch {
        // refused is fine
      }
      assert.ok(process.cpuUsage(begun).user < 3_000_000, JSON.stringify(unit));
    }
  });

  it('that doubles a variable forty times is stopped', () => {
    const text = ['FROM x', 'ENV A=0123456789', ...Array.from({ length: 40 }, () => 'ENV A=$A$A')].join('\n');
    assert.throws(() => plan(text), (error: unknown) => error instanceof BuildFailure && /more than 131072 characters/.test(error.message));
  });
});

describe('a word', () => {
  it('without anything special is itself', () => {
    fc.assert(fc.property(fc.stringMatching(/^[a-z /.:=-]*$/), (text) => resolveWord(text, () => 'x') === text));
  });

  it('in single quotes is itself', () => {
    fc.assert(fc.property(fc.string().filter((text) => !text.includes("'")), (text) => resolveWord(`'${text}'`, () => 'x') === text));
  });

  it('is one of several', () => {
    assert.deepEqual(words(` a "b c" d\\ e 'f "g' h="i j" `), ['a', '"b c"', 'd\\ e', `'f "g'`, 'h="i j"']);
  });
});

describe('the hash of a spec', () => {
  const steps: Step[] = [{ kind: 'run', command: 'true' }, { kind: 'env', key: 'A', value: '1' }];
  const hash = (input: Parameters<typeof parseSpec>[0]): string => specHash(parseSpec(input, defaultTemplateSettings));

  it('is the same for what means the same', () => {
    assert.match(hash({ from: 'x', steps }), /^[0-9a-f]{64}$/);
    assert.equal(hash({ from: 'x', steps }), hash({ steps: [{ command: 'true', kind: 'run' }, { value: '1', kind: 'env', key: 'A' }], from: 'x', ...defaultSizes }));
  });

  it('is another for anything else', () => {
    const all = [hash({ from: 'x', steps }), hash({ from: 'y', steps }), hash({ from: 'x', steps: [...steps].reverse() }), hash({ from: 'x', steps, startCommand: 'a' }), hash({ from: 'x', steps, readyCommand: 'a' }), hash({ from: 'x', steps, vcpus: 2 }), hash({ from: 'x' })];
    assert.equal(new Set(all).size, all.length);
  });
});
