import type { PiiType } from '../../scanners/pii/types.ts';
import type { Half } from './corpus.ts';
import { type Labelled, labelled } from './labelled.ts';

/** Written by hand. Even ones are for tuning, odd ones are held out. */
const cases: Readonly<Record<PiiType, readonly string[]>> = {
  ssn: [
    '{{ssn:123-45-6789}}', 'ssn={{ssn:123456789}}', 'SSN: {{ssn:219 09 9999}}', 'Social Security {{ssn:001-01-0001}}', 'two: {{ssn:123-45-6789}}, {{ssn:321-54-9876}}', 'My soc sec is {{ssn:899-99-9999}}!', '12-345-6789', '1234-56-7890',
    '123-456-789', '2023-12-1234', 'SKU 123-45-6789-B', 'file_123-45-6789.txt', '900-12-3456', '123456789', '{"ssn":"{{ssn:078-05-1120}}"}', 'Last four 6789 of the SSN', '123-45-67890', '0123-45-6789',
  ],
  credit_card: [
    '{{credit_card:4111111111111111}}', 'Amex {{credit_card:3782 822463 10005}}', '{{credit_card:5555-5555-5555-4444}} 12/25 CVV 123', '{{credit_card:6011 1111 1111 1117}} 123', 'CVV 737', 'expires 0330', '{{credit_card:30569309025904}}', 'card no. {{credit_card:3530111333300000}}', '{{credit_card:4222222222222}}', '{{credit_card:2223000048400011}},{{credit_card:5105105105105100}}', '4111-1111-1111-1111-1111', '411111111111111', 'x4111111111111111', '4111111111111111.5', '3.4111111111111111', 'sum: 4111 1111 1111', '{"pan":{{credit_card:4012888888881881}}}', 'card#{{credit_card:6200000000000005}}',
  ],
  email: [
    '<{{email:a@b.co}}>', '{{email:first.last@sub.domain.example.co.uk}}.', '{{email:x+y@example.com}}', '{{email:"quoted local"@example.com}}', '{{email:用户@例え.jp}}', '{{email:user@xn--80ak6aa92e.com}}', 'a@b@c.com', 'a..b@example.com', '.@example.com', "'{{email:o'neil@example.com}}'", 'to={{email:u1@example.com}};{{email:u2@example.com}}', '{{email:user@[192.0.2.1]}}', 'user@example', 'user@-example.com', '{{email:USER@EXAMPLE.COM}}', 'https://example.com/@user/post', '{{email:a@example.photography}}', '{{email:joe@example.com}}:hunter2',
  ],
  phone: [
    '{{phone:(555) 123-4567}}', '{{phone:555-123-4567}}', '{{phone:+44 20 7946 0958}}', '{{phone:+49 30 901820}}', 'Tel. {{phone:020 7946 0958}}', 'phone: {{phone:2125550123}}', 'call {{phone:1-800-356-9377}}', 'my cell is {{phone:415.555.2671}}', '{{phone:+33 1 42 68 53 00}}', '{{phone:+91 98765 43210}}', '{{phone:415-555-2671 x123}}', '{{phone:+1 (415) 555-2671 ext. 9}}', '123-456-789', '2024-01-15', '12345678901234567890', '100-200-300-400', '{"phone_number":"{{phone:4155552671}}"}', '192.168.100.200', '1,234,567,890', '+1', 'phone: 12', 'Mobil: {{phone:0171 2345678}}',
  ],
  api_key: [
    'OPENAI_API_KEY={{api_key:sk-abcDEF1234567890abcDEF1234567890abcDEF12345678}}', 'password = "{{api_key:hunter2hunter3Xy9!}}"', 'aws_secret_access_key = {{api_key:wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzTESTKEY9}}', '{"client_secret":"{{api_key:8f14e45fceea167a5a36dedd4bea2543}}"}', 'x-api-key: {{api_key:0123456789abcdef0123456789abcdef}}', 'https://hooks.example.com/services/T/B/X', '{{api_key:https://hooks.slack.com/services/T024BE7LD/B0ABCDEFG/abcdefghijklmnopqrstuvwx}}', 'bot {{api_key:123456789:AAabcdefghijklmnopqrstuvwxyz0123456}}', 'const token = getToken()', 'token=abc', 'the password is long', 'secret_santa: bring a gift', 'csrf_token_name: x', 'eyJhbGciOiJIUzI1NiJ9', 'next_page_token: ""', 'authorization: Basic {{api_key:dXNlcjpwYXNzd29yZDEyMw==}}',
  ],
  ip_address: [
    '{{ip_address:8.8.8.8}}', '{{ip_address:192.168.1.1}}:8080', 'http://{{ip_address:203.0.113.7}}/x', '[{{ip_address:2001:db8::1}}]:443', '{{ip_address:10.0.0.0}}/8', '{{ip_address:fe80::1}}%eth0', '{{ip_address:2001:0db8:85a3:0000:0000:8a2e:0370:7334}}', 'from {{ip_address:198.51.100.4}}.', '{{ip_address:10.0.0.1}}-{{ip_address:10.0.0.9}}', 'x-forwarded-for: {{ip_address:203.0.113.195}}, {{ip_address:2001:db8:85a3:8d3:1319:8a2e:370:7348}}', '256.1.1.1', '1.2.3', '1.2.3.4.5', '12:34:56', 'a::b', '2024:01:15 10:00', 'AA:BB:CC:DD:EE:FF', 'node 20.11.1', '"{{ip_address:172.16.254.1}}"', 'ssh root@{{ip_address:203.0.113.9}}',
  ],
  address: [
    '{{address:1600 Pennsylvania Avenue NW, Washington, DC 20500}}', '{{address:221B Baker Street}}', '{{address:350 Fifth Avenue, New York, NY 10118}}', '{{address:PO Box 4521, Austin, TX 78701}}', '{{address:Unter den Linden 77, 10117 Berlin}}', '{{address:5 avenue Anatole France, 75007 Paris}}', 'One Microsoft Way', '{{address:Marktplatz 1}}', 'the house is {{address:10 Downing Street}}', '{{address:42 rue du Faubourg Saint-Honoré, 75008 Paris}}', '3 Stages of Road Work', '12 Monkeys',
  ],
  person_name: [
    'My name is {{person_name:Nelson Mandela}}', 'Dr. {{person_name:Gregory House}} will see you', 'Mr. {{person_name:Tanaka}} called', '{"first_name":"{{person_name:Zofia}}","last_name":"{{person_name:Wiśniewska}}"}', '{{person_name:Angela Merkel}} and {{person_name:Emmanuel Macron}} met', 'from {{person_name:Grace Hopper}} to {{person_name:Alan Turing}}', 'Herr {{person_name:Schmidt}} ist da', "{{person_name:Mary O'Connor}}'s file", 'Paris Texas', 'Will May come in April?', 'Amazon Prime Video', '{{person_name:Johnson, Michael}}',
  ],
};

export function hardCases(half: Half): Labelled[] {
  return Object.entries(cases).flatMap(([type, texts]) => texts.filter((_, i) => i % 2 === (half === 'tuning' ? 0 : 1)).map((text) => labelled(type as PiiType, text)));
}
