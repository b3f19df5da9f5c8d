import { STATUS_CODES } from 'node:http';
import { formatAddress } from '../../core/network/addresses.ts';
import type { Destination, Verdict } from '../../core/network/decide.ts';
import type { Refusal } from '../pipeline/stage.ts';
import { blockedBody, refusalBody, type OwnAnswer } from './blocked-page.ts';
import type { Answer } from './exchange.ts';
import type { Front } from './front.ts';

export function answerRefusal(front: Pick<Front, 'begin'>, refusal: Refusal, destination: Destination | null, port: number): Answer {
  const { name = null, address = null } = destination ?? {};
  answer(front, refusal.status, refusalBody(refusal, name ?? (address === null ? null : formatAddress(address)), port));
  return { status: refusal.status, verdict: refusal.verdict, code: refusal.code, reason: refusal.message };
}

export function answerBlocked(front: Pick<Front, 'begin'>, destination: Destination, verdict: Verdict): Answer {
  answer(front, 403, blockedBody(destination, verdict));
  return { status: 403, verdict: 'blocked', code: 'egress_blocked', reason: verdict.reason };
}

function answer(front: Pick<Front, 'begin'>, status: number, { headers, body }: OwnAnswer): void {
  const sink = front.begin({ status, reason: STATUS_CODES[status] ?? '', headers: Object.entries(headers).flat() }, false);
  sink.write(Buffer.from(body));
  sink.end([]);
}
