import type { PiiType } from '../../scanners/pii/types.ts';
import type { Random } from './labelled.ts';
import { alnum, hex, lower } from './values.ts';

type Make = (random: Random) => string;
const upper = lower.toUpperCase();
const uuid: Make = (r) => `${r.chars(hex, 8)}-${r.chars(hex, 4)}-4${r.chars(hex, 3)}-a${r.chars(hex, 3)}-${r.chars(hex, 12)}`;
const isbn: Make = (r) => `ISBN 978-${r.digits(1)}-${r.digits(2)}-${r.digits(6)}-${r.digits(1)}`;
const stamp: Make = (r) => `20${r.int(10, 29)}-0${r.int(1, 9)}-${r.int(10, 28)}T${r.int(10, 23)}:${r.int(10, 59)}:${r.int(10, 59)}.${r.digits(3)}Z`;
const mac: Make = (r) => Array.from({ length: 6 }, () => r.chars(hex, 2)).join(':');
const money: Make = (r) => `$${r.int(1, 999)},${r.digits(3)}.${r.digits(2)}`;
const path: Make = (r) => `/var/lib/${r.chars(lower, 6)}/${r.digits(4)}/${r.digits(3)}-${r.chars(lower, 3)}.log`;
const commit: Make = (r) => `commit ${r.chars(hex, 40)}`;

/** Even ones are for tuning, odd ones are held out. */
export const lookAlikes: Readonly<Record<PiiType, readonly Make[]>> = {
  ssn: [
    (r) => `order ${r.digits(3)}-${r.digits(2)}-${r.digits(4)}-${r.digits(2)} shipped`, (r) => `ZIP ${r.digits(5)}-${r.digits(4)}`,
    (r) => `EIN ${r.digits(2)}-${r.digits(7)}`, (r) => `ITIN ${r.int(900, 999)}-${r.digits(2)}-${r.digits(4)}`,
    (r) => `000-${r.int(10, 99)}-${r.digits(4)} is no number`, (r) => `invalid: 666-${r.int(10, 99)}-${r.digits(4)}`,
    uuid, isbn, stamp, (r) => `tracking ${r.digits(12)} and ${r.digits(9)}`,
    (r) => `${r.digits(3)}-00-${r.digits(4)}`, (r) => `${r.int(100, 899)}-${r.int(10, 99)}-0000`,
    (r) => `A${r.digits(3)}-${r.digits(2)}-${r.digits(4)}`, (r) => `account number ${r.digits(9)}`,
    (r) => `rows ${r.digits(3)}-${r.digits(3)}, columns ${r.digits(2)}-${r.digits(4)}`, commit, (r) => `1${r.digits(3)} 12 ${r.digits(4)} 17 ${r.digits(4)} 3`, money,
  ],
  credit_card: [
    uuid, (r) => `order ${r.digits(16)}x`, (r) => `invoice 1${r.digits(15)}`, (r) => `ts ${r.int(17, 18)}${r.digits(17)}`,
    (r) => `1Z${r.chars(upper, 3)}${r.digits(13)}`, (r) => `imei 35${r.digits(13)}`, (r) => `0.${r.digits(16)}`, (r) => `{"ratio":0.4${r.digits(15)}}`,
    (r) => `barcode 9${r.digits(12)}`, isbn, (r) => `session ${r.chars(hex, 8)}4${r.digits(15)}${r.chars(hex, 8)}`, (r) => `IBAN DE${r.digits(2)} ${r.digits(4)} ${r.digits(4)} ${r.digits(4)} ${r.digits(4)} ${r.digits(2)}`,
    () => 'test 4111 1111 1111 1112 has a wrong check digit', () => '1234567812345678 is not one', (r) => `id 7${r.digits(15)}`, (r) => `user 9${r.digits(17)}`, () => '0000 0000 0000 0000', () => '4444444444444444',
    commit, (r) => `0x4${r.chars(hex, 15)}`, (r) => `discord 8${r.digits(17)}`, stamp, money, path,
  ],
  email: [
    (r) => `${r.chars(lower, 4)}@2x.png logo@3x.png`, (r) => `git@github.com:acme/${r.chars(lower, 6)}.git`, (r) => `npm i @scope/${r.chars(lower, 6)}@1.${r.digits(1)}.0`, (r) => `https://user:pw${r.digits(3)}@registry.example.com/x`,
    (r) => `@app.route("/${r.chars(lower, 5)}")`, (r) => `${r.chars(lower, 5)}@localhost`, (r) => `follow @${r.chars(lower, 7)} on the network`, (r) => `systemctl start getty@tty${r.digits(1)}.service`,
    (r) => `package@${r.digits(1)}.${r.digits(2)}.3`, (r) => `Object@${r.chars(hex, 7)}`, () => 'meet @ noon. tomorrow', (r) => `${r.chars(lower, 4)}@@example.com`, () => '@Override public void run()', (r) => `ssh deploy@${r.chars(lower, 4)}.internal.example.com uptime`,
    (r) => `foo@bar.invalid${r.digits(2)}`, (r) => `${r.chars(lower, 5)}@${r.chars(lower, 5)}.jpg`, () => 'price: 3@5.00', () => 'a@b', (r) => `docker pull app@sha256:${r.chars(hex, 64)}`, (r) => `ssh://git@host.example.com/${r.chars(lower, 4)}`,
  ],
  phone: [
    stamp, (r) => `order ${r.digits(10)}`, isbn, (r) => `unix time 1${r.digits(9)}`, uuid, (r) => `ts=1${r.digits(12)}`,
    (r) => `${r.int(1, 9)}.${r.int(10, 40)}.${r.digits(4)}`, (r) => `{{ip_address:10.${r.int(10, 99)}.${r.int(100, 250)}.${r.int(100, 250)}}}`, (r) => `SSN {{ssn:${r.int(100, 600)}-${r.int(10, 99)}-${r.int(1000, 9999)}}}`, (r) => `tracking number ${r.digits(12)}`,
    money, (r) => `${r.int(100000, 999999)}-${r.digits(2)}`, (r) => `9${r.digits(3)} ${r.digits(4)} ${r.digits(4)} ${r.digits(4)}`, (r) => `lat 37.${r.digits(6)}, lon -122.${r.digits(6)}`,
    (r) => `id: ${r.int(2, 9)}${r.digits(9)}`, (r) => `{"user_id":${r.int(2, 9)}${r.digits(9)}}`, commit, (r) => `bytes=${r.digits(8)}-${r.digits(9)}`, (r) => `pages ${r.digits(3)}-${r.digits(3)}, ${r.digits(4)}`, (r) => `invoice 20${r.digits(2)}-${r.digits(4)}-${r.digits(3)}`,
    (r) => `${r.int(10, 12)}/${r.int(10, 28)}/20${r.digits(2)} ${r.int(10, 23)}:${r.digits(2)}`, path, (r) => `$ ${r.digits(3)} ${r.digits(3)} ${r.digits(4)} in total`, (r) => `rgb(${r.int(100, 255)}, ${r.int(100, 255)}, ${r.int(100, 255)})`,
  ],
  api_key: [
    commit, (r) => `sha256:${r.chars(hex, 64)}`, uuid, (r) => `etag "${r.chars(hex, 32)}"`, (r) => `max_tokens: ${r.digits(4)}`, (r) => `"token_count": ${r.digits(6)}`,
    () => 'api_key = os.environ["SERVICE_API_KEY_2"]', () => 'apiKey: process.env.OPENAI_API_KEY_V2', () => 'api_key: YOUR_API_KEY_HERE_12345', () => 'password: ${DB_PASSWORD_1}', () => 'sk-learn-something-and-other-things', () => 'sk-your-key-goes-in-here-please',
    (r) => `/assets/index-${r.chars(alnum, 8)}.js`, (r) => `integrity="sha512-${r.chars(alnum, 86)}=="`, (r) => `data:image/png;base64,${r.chars(alnum, 120)}`, (r) => `nonce ${r.chars(hex, 24)}`, () => 'token: string; // see RFC 6750', () => 'secret: "correct horse battery staple"', () => 'AKIAEXAMPLE', () => 'ghp_tooshort1', () => '-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQ\n-----END PUBLIC KEY-----', () => '-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIE\n-----END CERTIFICATE-----',
    (r) => `cache_key=${r.chars(lower, 8)}:${r.digits(4)}`, (r) => `primary key: user_${r.digits(6)}`, stamp, path,
  ],
  ip_address: [
    (r) => `version 1.${r.int(1, 20)}.${r.int(1, 20)}.${r.int(1, 200)}`, (r) => `v${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 99)}`, (r) => `Chrome/${r.int(80, 130)}.0.${r.int(100, 250)}.${r.int(1, 200)} Safari`, (r) => `tool-${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 9)}.tar.gz`,
    mac, (r) => `at ${r.int(10, 23)}:${r.digits(2)}:${r.digits(2)}`, (r) => `OID 1.3.6.1.4.1.${r.digits(4)}`, (r) => `section ${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 9)} says`, () => 'std::vector<int> v; ::main()', () => 'impl dead::beef for add::face {}', (r) => `${r.int(256, 999)}.${r.int(1, 255)}.1.1`, (r) => `1.2.3.${r.int(256, 999)}`,
    () => 'bound to 127.0.0.1 and 0.0.0.0, mask 255.255.255.0', () => 'listening on [::1]:8080 and :::80', stamp, (r) => `fingerprint ${Array.from({ length: 20 }, () => r.chars(hex, 2)).join(':')}`, (r) => `"version": "${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 9)}"`, (r) => `pkg==${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 9)}.${r.int(1, 9)}`, (r) => `01.02.0${r.digits(1)}.04`, (r) => `1.2.3.4.${r.digits(1)}`,
    (r) => `ratio 12:${r.digits(2)}`, (r) => `WWN ${Array.from({ length: 8 }, () => r.chars(hex, 2)).join(':')}`,
  ],
  address: [
    () => '5 easy ways to learn', (r) => `${r.int(2, 30)} Grand Circle members`, () => 'The 3 Best Drive Bays Compared', (r) => `Level ${r.int(2, 9)} Charging Station`, (r) => `${r.int(2, 9)} new courts were built`, (r) => `needs ${r.int(2, 9)} Hard Drive trays`, (r) => `chapter ${r.int(2, 90)} The Long Road Home`, (r) => `${r.int(2, 60)} Minutes on the Open Road`, (r) => `${r.int(10, 99)} items in cart`, (r) => `${r.int(100, 999)} Broadway shows closed`, (r) => `Error ${r.digits(3)} at line ${r.digits(2)}`, (r) => `${r.int(2, 20)} Green Hill farmers agree`, (r) => `route ${r.digits(2)} is closed`, (r) => `scored ${r.int(10, 99)} in Madison Square Garden`,
    (r) => `in ${r.int(1900, 2020)} Wall Street crashed`, (r) => `Highway ${r.int(10, 99)} Revisited`, (r) => `${r.int(10, 90)} percent of drivers`, (r) => `une place de ${r.int(2, 9)} mètres`, (r) => `Windows ${r.int(7, 11)} Driver Update`, (r) => `Ring ${r.int(1, 9)} der Königin`, (r) => `room ${r.digits(3)}`, (r) => `iPhone ${r.int(5, 16)} Plus Plaza Edition`, (r) => `${r.int(2, 12)} Angry Men`, uuid, money, isbn, stamp, commit,
    path, (r) => `${r.digits(2)} open issues`, (r) => `top ${r.int(3, 20)} Places to Visit`, (r) => `${r.digits(2)} open issues`, (r) => `Platz ${r.int(1, 9)} im Rennen`, (r) => `${r.digits(2)} open issues`, (r) => `la route ${r.digits(2)} est fermée`, (r) => `${r.digits(2)} open issues`, (r) => `${r.int(2, 9)} Pro Drive units`, (r) => `${r.digits(2)} open issues`, (r) => `page ${r.digits(3)} of Abbey Road Studios`, (r) => `${r.digits(2)} open issues`,
  ],
  person_name: [
    () => 'New York is big', () => 'Machine Learning Engineer wanted', () => 'United Airlines cancelled it', () => 'Visual Studio Code crashed', () => 'The Great Gatsby is a book', () => 'San Francisco Bay Area', () => 'import React from "react"', () => 'Bearer Token Missing', () => 'Hello World', () => 'Internal Server Error', () => 'Amazon Web Services bill', () => 'Good Morning Everyone', () => 'class UserService extends BaseService', () => '{"name":"Acme Rocket Skates"}', () => 'Merry Christmas and Happy New Year', () => 'Monday Morning Meeting', () => 'Apple Inc. and Ford Motor Company', () => 'Supreme Court of Canada', () => 'Jordan River in Asia', () => 'Stanford University Press', () => 'Dear Customer, thank you', () => 'Dear Hiring Manager,', () => 'GET /api HTTP', () => 'Pull Request Review',
  ],
};
