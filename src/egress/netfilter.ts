import { closeSync } from 'node:fs';
import { errno, openNetfilter, receive, send, SystemCallError } from './sockets.ts';

/** One change to a set of the table. Keys are the fields' bytes, each padded to four. `end` is the last key of an interval, inclusive. */
export type SetChange =
  | { readonly op: 'add' | 'delete'; readonly set: string; readonly key: Buffer; readonly end?: Buffer }
  | { readonly op: 'flush'; readonly set: string };

/** An element of a set with a counter. */
export interface CountedElement {
  readonly key: Buffer;
  readonly packets: number;
}

/**
 * The kernel's nftables over netlink (nfnetlink, `linux/netfilter/nf_tables.h`), as far as changing the elements of sets goes. The
 * kernel applies a batch as one transaction within the call that sends it, and its answer lies ready when the call returns: a change costs
 * some 20 µs however many elements there are, against a millisecond and more for `nft -i`, which reads the whole table each time.
 */
export class Netfilter {
  readonly #fd: number;
  readonly #table: string;
  readonly #buffer = Buffer.alloc(256 * 1024);
  #sequence = 1;

  constructor(netns: string, table: string) {
    this.#fd = openNetfilter(netns);
    this.#table = table;
  }

  /** All changes or none, in force when it returns. @throws SystemCallError, ENOENT when the table, a set or an element to delete is not there. */
  commit(changes: readonly SetChange[]): void {
    if (changes.length === 0) return;
    const messages = [message(batchBegin, request, 0, this.#sequence++, familyNone, subsystem)];
    const groups = [...grouped(changes)];
    for (const [i, group] of groups.entries()) {
      const { op, set } = group[0]!;
      const elements = op === 'flush' ? [] : [nested(listElements, group.map((change) => encodeElement(change)))];
      const flags = request | (op === 'add' ? create : 0) | (i === groups.length - 1 ? acknowledge : 0);
      messages.push(message(op === 'add' ? newElements : deleteElements, flags, 0, this.#sequence++, familyInet, 0, text(listTable, this.#table), text(listSet, set), ...elements));
    }
    messages.push(message(batchEnd, request, 0, this.#sequence++, familyNone, subsystem));
    this.#discard();
    send(this.#fd, Buffer.concat(messages));
    let acknowledged = false;
    for (const { type, body } of this.#messages()) {
      if (type !== errorMessage) continue;
      const code = -body.readInt32LE(0);
      if (code !== 0) throw new SystemCallError(`a change of the packet filter (${groups.map(([first]) => `${first!.op} ${first!.set}`).join(', ')})`, code);
      acknowledged = true;
    }
    if (!acknowledged) throw new SystemCallError('a change of the packet filter: the kernel did not answer', errno.ENOBUFS);
  }

  /** The elements of a set with their counters. @throws SystemCallError, ENOENT when there is no such set. */
  list(set: string): CountedElement[] {
    this.#discard();
    send(this.#fd, message(getElements, request | dump, 0, this.#sequence++, familyInet, 0, text(listTable, this.#table), text(listSet, set)));
    const elements: CountedElement[] = [];
    for (const { type, body } of this.#messages()) {
      if (type === doneMessage) break;
      if (type === errorMessage) {
        const code = -body.readInt32LE(0);
        if (code !== 0) throw new SystemCallError(`listing the set ${set}`, code);
        break;
      }
      for (const element of attributes(attributes(body.subarray(4)).get(listElements) ?? none).all) {
        const fields = attributes(element);
        const key = attributes(fields.get(elementKey) ?? none).get(dataValue);
        if (key !== undefined) elements.push({ key: Buffer.from(key), packets: countOf(fields) });
      }
    }
    return elements;
  }

  close(): void {
    closeSync(this.#fd);
  }

  *#messages(): Generator<{ type: number; body: Buffer }> {
    for (;;) {
      const size = receive(this.#fd, this.#buffer);
      if (size === null) return;
      for (let at = 0; at + 16 <= size; ) {
        const length = this.#buffer.readUInt32LE(at);
        if (length < 16 || at + length > size) return;
        yield { type: this.#buffer.readUInt16LE(at + 4), body: this.#buffer.subarray(at + 16, at + length) };
        at += align(length);
      }
    }
  }

  /** What an earlier call left unread says nothing about the next one. */
  #discard(): void {
    while (receive(this.#fd, this.#buffer) !== null);
  }
}

const none = Buffer.alloc(0);
const subsystem = 10;
const [familyNone, familyInet] = [0, 1];
const [errorMessage, doneMessage, batchBegin, batchEnd] = [2, 3, 0x10, 0x11];
const [newElements, getElements, deleteElements] = [(subsystem << 8) | 12, (subsystem << 8) | 13, (subsystem << 8) | 14];
const [request, acknowledge, create, dump] = [1, 4, 0x400, 0x300];
const [listTable, listSet, listElements] = [1, 2, 3];
const [listItem, elementKey, elementExpression, elementKeyEnd, elementExpressions] = [1, 1, 7, 10, 11];
const [dataValue, expressionData, counterPackets] = [1, 2, 2];
/** An attribute's length is 16 bits; this many elements stay well below it. */
const elementsPerMessage = 800;

/** Runs of changes that fit one message each. */
function* grouped(changes: readonly SetChange[]): Generator<SetChange[]> {
  let group: SetChange[] = [];
  for (const change of changes) {
    const [first] = group;
    if (first !== undefined && (first.op !== change.op || first.set !== change.set || change.op === 'flush' || group.length === elementsPerMessage)) {
      yield group;
      group = [];
    }
    group.push(change);
  }
  if (group.length > 0) yield group;
}

function encodeElement(change: SetChange): Buffer {
  if (change.op === 'flush') return none;
  const end = change.end === undefined ? [] : [nested(elementKeyEnd, [attribute(dataValue, change.end)])];
  return nested(listItem, [nested(elementKey, [attribute(dataValue, change.key)]), ...end]);
}

function countOf(fields: Attributes): number {
  const expression = fields.get(elementExpression) ?? attributes(fields.get(elementExpressions) ?? none).get(listItem);
  if (expression === undefined) return 0;
  const packets = attributes(attributes(expression).get(expressionData) ?? none).get(counterPackets);
  return packets === undefined ? 0 : Number(packets.readBigUInt64BE());
}

function message(type: number, flags: number, port: number, sequence: number, family: number, resource: number, ...body: Buffer[]): Buffer {
  const head = Buffer.alloc(20);
  head.writeUInt32LE(20 + body.reduce((sum, part) => sum + part.length, 0), 0);
  head.writeUInt16LE(type, 4);
  head.writeUInt16LE(flags, 6);
  head.writeUInt32LE(sequence >>> 0, 8);
  head.writeUInt32LE(port, 12);
  head.writeUInt8(family, 16);
  head.writeUInt16BE(resource, 18);
  return Buffer.concat([head, ...body]);
}

function attribute(type: number, value: Buffer): Buffer {
  const whole = Buffer.alloc(align(4 + value.length));
  whole.writeUInt16LE(4 + value.length, 0);
  whole.writeUInt16LE(type, 2);
  value.copy(whole, 4);
  return whole;
}

function nested(type: number, parts: readonly Buffer[]): Buffer {
  return attribute(type | 0x8000, Buffer.concat(parts));
}

function text(type: number, value: string): Buffer {
  return attribute(type, Buffer.from(`${value}\0`));
}

interface Attributes {
  get(type: number): Buffer | undefined;
  readonly all: readonly Buffer[];
}

function attributes(body: Buffer): Attributes {
  const byType = new Map<number, Buffer>();
  const all: Buffer[] = [];
  for (let at = 0; at + 4 <= body.length; ) {
    const length = body.readUInt16LE(at);
    if (length < 4 || at + length > body.length) break;
    const value = body.subarray(at + 4, at + length);
    byType.set(body.readUInt16LE(at + 2) & 0x3fff, value);
    all.push(value);
    at += align(length);
  }
  return { get: (type) => byType.get(type), all };
}

function align(length: number): number {
  return (length + 3) & ~3;
}
