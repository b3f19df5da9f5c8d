import { type PiiType, piiTypes } from '../../scanners/pii/types.ts';
import { type Labelled, labelled, Random } from './labelled.ts';
import { lookAlikes } from './look-alikes.ts';
import { values } from './values.ts';

/** The half that scanners were tuned with, or the one that was only measured with: other sentences, other seeds. */
export type Half = 'tuning' | 'held-out';

/** Sentences around a value (`@`). Even ones are for tuning, odd ones are held out. */
const around: Readonly<Record<PiiType, readonly string[]>> = {
  ssn: ['My SSN is @.', 'Employee record: SSN @, hired 2021-04-12', '{"applicant":{"ssn":"@","score":712}}', 'social security number: @', 'patient;@;1984-02-11;F', 'W-2 shows @ for box a', '(@)', 'tax form lists\n@\nas the number'],
  credit_card: ['Please charge @ exp 04/27', 'card=@&cvv=123', '{"number":"@","exp_month":4,"cvc":"314"}', 'The card is @.', 'Visa @ was declined', 'paid with "@" yesterday', 'PAN: @\nName: J DOE', 'refund to @, thanks'],
  email: ['Write to @ please.', 'From: <@>', '{"email":"@","verified":true}', 'cc: @, someone', 'mailto:@?subject=x', 'login;@;active', 'contact (@) for details', "user '@' not found"],
  phone: ['Call me at @ tonight', '{"phone":"@","sms":true}', 'tel:@', 'Phone: @', 'You can reach us on @.', 'Mobile @ or by mail', 'Fax: @ (office)', 'My number has changed, it is @ now'],
  api_key: ['export KEY=@', 'Authorization: Bearer @', '{"api_key":"@"}', 'use @ for the call', "client = Client('@')", 'token: @', 'curl -H "X-Api-Key: @" https://api.example.com', 'the key\n@\nwas leaked'],
  ip_address: ['connection from @ refused', '{"client_ip":"@","status":200}', '@ - - [10/Oct/2023:13:55:36 +0000] "GET / HTTP/1.1" 200', 'ping @', 'host=@ port=22', 'Failed password for root from @ port 4122 ssh2', 'nameserver @', 'the address @, as before'],
  address: ['Ship to: @', '{"address":"@"}', 'I live at @.', 'Our office is at @, second floor', 'deliver it to @ before noon', 'residence: @\nsince 2019', 'moved from @ last year', 'billing address "@"'],
  person_name: ['My name is @ and I need help', '{"full_name":"@"}', 'Dear @,', 'The patient, @, was admitted', 'Regards,\n@', 'Meeting with @ at noon', '@ signed the contract on Monday', 'please ask @ about it'],
};

/** Sentences without personal data but with what looks like it; and the same values in other documents. */
export function corpus(half: Half, perType = 300): Labelled[] {
  const random = new Random(half === 'tuning' ? 20_240_117 : 7_730_921);
  const mine = (_: unknown, i: number): boolean => i % 2 === (half === 'tuning' ? 0 : 1);
  return piiTypes.flatMap((type) => {
    const sentences = around[type].filter(mine);
    const others = lookAlikes[type].filter(mine);
    const found = Array.from({ length: perType }, () => {
      const value = values[type](random);
      const sentence = random.pick(sentences);
      // Within a text of JSON a value has its quotes and line breaks escaped: that is tested elsewhere, so here it stays out of JSON.
      const fits = sentence.startsWith('{') && /["\n]/.test(value) ? sentences.find((other) => !other.startsWith('{'))! : sentence;
      return labelled(type, fits.replace('@', () => `{{${type}:${value}}}`));
    });
    const notFound = Array.from({ length: perType }, () => labelled(type, random.pick(others)(random)));
    return [...found, ...notFound];
  });
}
