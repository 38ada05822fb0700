// SPDX-License-Identifier: Apache-2.0
// The application with the Node.js driver: see ../README.md for what it does and says.
'use strict';
const cassandra = require('cassandra-driver');
const fs = require('fs');
const readline = require('readline');
const types = cassandra.types;

const WRITERS = 3;
const PAUSE = 50;

const args = {};
for (let i = 2; i + 1 < process.argv.length; i += 2) {
	args[process.argv[i].slice(2)] = process.argv[i + 1];
}
const prefix = args.prefix;
const other = args.keyspace + '_b';
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function check(condition, ...what) {
	if (!condition) {
		throw new Error(what.map((w) => (typeof w === 'string' ? w : JSON.stringify(w))).join(' '));
	}
}

function same(got, want) {
	check(JSON.stringify(got) === JSON.stringify(want), 'is', got, 'and not', want);
}

const newClient = () => new cassandra.Client({
	contactPoints: args.contact.split(','),
	localDataCenter: 'dc1',
	keyspace: other,
	credentials: { username: args.user, password: args.password },
	protocolOptions: { maxVersion: Number(args.protocol) },
	policies: { reconnection: new cassandra.policies.reconnection.ConstantReconnectionPolicy(500) },
	socketOptions: { readTimeout: 20000, connectTimeout: 10000 },
	encoding: { useBigIntAsLong: false },
});
let client = newClient();

const record = fs.createWriteStream(args.record);
const writers = [];
const rounds = [];
let table = other + '.early';
let stop = false;
let errors = 0;
let causes = {};
let begun = 0;
let openPage = null;

// Writes rows of its own without end, and records what it was told of each.
async function write(number) {
	const own = writers[number];
	for (let step = 1; !stop; step++) {
		await sleep(PAUSE);
		const where = table;
		const key = `${prefix}-${number}-${step}`;
		const value = `${prefix} ${number}/${step}`;
		const changes = [[where, [key], 'I', { v: value, n: step }]];
		try {
			await client.execute(`INSERT INTO ${where} (id, v, n) VALUES (?, ?, ?)`, [key, value, step], { prepare: true });
			record.write(JSON.stringify(['a', number, 0, 0, changes]) + '\n');
			own.acknowledged++;
		} catch (e) {
			record.write(JSON.stringify(['?', number, 0, 0, changes]) + '\n');
			errors++;
			const text = `${e.name}: ${e.message}`.slice(0, 160);
			causes[text] = (causes[text] || 0) + 1;
		}
	}
}

// Every writer gets two more answers, so that one of them was asked for after this was called; for 20 s.
async function count() {
	const goals = writers.map((w) => w.acknowledged + 2);
	const end = Date.now() + 20000;
	while (writers.some((w, i) => w.acknowledged < goals[i]) && Date.now() < end) {
		await sleep(20);
	}
	const answer = { acknowledged: writers.reduce((sum, w) => sum + w.acknowledged, 0), errors, causes };
	errors = 0;
	causes = {};
	return answer;
}

// What an operator does with a process that does not come back. Whenever the driver loses all of its connections at once it has one more control
// connection that finds the nodes anew, each in objects of its own; in the end its list may hold one that never connects and counts as up.
async function renew() {
	const old = client;
	const fresh = newClient();
	await fresh.connect();
	client = fresh;
	await sleep(1000);
	while (old.hosts.values().some((h) => old.getState().getInFlightQueries(h) > 0)) {
		await sleep(20);
	}
	await old.shutdown();
}

const prepared = (text, values, more) => client.execute(text, values, { prepare: true, ...more });
const one = async (text, values) => (await prepared(text, values)).first();

const features = {
	// First: a connection that breaks in the middle of its handshake holds the pool up for connectTimeout, and meanwhile the driver takes the node
	// for one that is up and fails to prepare there.
	async nodes(name) {
		for (const last of [false, true]) {
			const end = Date.now() + 30000;
			for (; Date.now() < end; await sleep(50)) {
				const state = client.getState();
				const up = client.hosts.values().filter((h) => h.isUp());
				if ((up.length >= 2 || name.startsWith('finish')) && up.every((h) => state.getOpenConnections(h) > 0)) {
					return;
				}
			}
			const seen = client.getState().toString();
			check(!last, 'nodes', seen);
			console.error(`${name}: a new client, the old one has ${seen}`);
			await renew();
		}
	},

	async simple(name) {
		await client.execute(`INSERT INTO rows (id, v, n) VALUES ('${prefix}-simple', '${name}''s', 1)`);
		await client.execute('INSERT INTO rows (id, v, n) VALUES (?, ?, ?)', [`${prefix}-bound`, name, 2], { hints: ['text', 'text', 'int'] });
		await client.execute('UPDATE rows SET n = :n WHERE id = :id', { n: 3, id: `${prefix}-simple` }, { hints: { n: 'int', id: 'text' } });
		await client.execute(`DELETE v FROM rows WHERE id = '${prefix}-bound'`);
		let row = (await client.execute(`SELECT v, n FROM rows WHERE id = '${prefix}-simple'`)).first();
		same([row.v, row.n], [`${name}'s`, 3]);
		row = (await client.execute(`SELECT v, n FROM rows WHERE id = '${prefix}-bound'`)).first();
		same([row.v, row.n], [null, 2]);
	},

	async prepared(name) {
		const key = `${prefix}-prepared`;
		await prepared('INSERT INTO rows (id, v, n) VALUES (?, ?, ?)', [key, name, begun]);
		if (args.protocol !== '3') {
			await prepared('INSERT INTO rows (id, v, n) VALUES (?, ?, ?)', [key, types.unset, begun + 1]);
			const row = await one('SELECT v, n FROM rows WHERE id = ?', [key]);
			same([row.v, row.n], [name, begun + 1]);
		}
		same((await one(`SELECT v AS r${begun} FROM rows WHERE id = ?`, [key]))[`r${begun}`], name);
		await prepared('INSERT INTO rows (id, n) VALUES (?, ?)', [`${prefix}-gone`, 1]);
		await prepared('DELETE FROM rows WHERE id = ?', [`${prefix}-gone`]);
		check((await one('SELECT n FROM rows WHERE id = ?', [`${prefix}-gone`])) === null, 'a deleted row is there');
	},

	async batch(name) {
		const insert = 'INSERT INTO rows (id, v, n) VALUES (?, ?, ?)';
		for (const of of [2, 3]) {
			const queries = [];
			for (let i = 0; i < of; i++) {
				queries.push({ query: insert, params: [`${prefix}-batch${i}`, name, i] });
			}
			queries.push({ query: 'UPDATE rows SET v = ? WHERE id = ?', params: [`${name}!`, `${prefix}-batch${of}`] });
			await client.batch(queries, { prepare: true, logged: of === 2 });
			for (let i = 0; i <= of; i++) {
				same((await one('SELECT v FROM rows WHERE id = ?', [`${prefix}-batch${i}`])).v, i < of ? name : `${name}!`);
			}
		}
		await client.batch([`UPDATE rows SET v = '${name}' WHERE id = '${prefix}-text'`, `UPDATE rows SET n = 7 WHERE id = '${prefix}-text'`]);
		const row = await one('SELECT v, n FROM rows WHERE id = ?', [`${prefix}-text`]);
		same([row.v, row.n], [name, 7]);
	},

	async paging(name) {
		const text = 'SELECT i FROM pages WHERE p = ?';
		const all = Array.from({ length: 100 }, (_, i) => i);
		const page = (state) => client.execute(text, [prefix], { prepare: true, fetchSize: 17, pageState: state });
		await Promise.all(all.map((i) => prepared('INSERT INTO pages (p, i, v) VALUES (?, ?, ?)', [prefix, i, name])));
		if (openPage) { // begun in the round before, perhaps at the other cluster
			while (openPage.state) {
				const result = await page(openPage.state);
				openPage = { state: result.pageState, seen: [...openPage.seen, ...result.rows.map((r) => r.i)] };
			}
			same(openPage.seen, all);
		}
		let result = await page();
		openPage = { state: result.pageState, seen: result.rows.map((r) => r.i) };
		const seen = result.rows.map((r) => r.i);
		let pages = 1;
		for (; result.pageState; pages++) {
			result = await page(result.pageState);
			seen.push(...result.rows.map((r) => r.i));
		}
		same(seen, all);
		same(pages, 6);
	},

	async lwt(name) {
		const key = `${prefix}-${name}`;
		const insert = 'INSERT INTO lwt (id, v, n) VALUES (?, ?, ?) IF NOT EXISTS';
		check((await prepared(insert, [key, name, 1])).wasApplied(), 'the first is not applied');
		const again = await prepared(insert, [key, 'again', 2]);
		check(!again.wasApplied() && again.first().v === name, 'the second is applied');
		for (const before of rounds) {
			check(!(await prepared(insert, [`${prefix}-${before}`, 'again', 2])).wasApplied(), 'not there: the row of round', before);
		}
		check(!(await client.execute(`UPDATE lwt SET n = 5 WHERE id = '${key}' IF n = 4`)).wasApplied(), 'condition n = 4');
		check((await client.execute(`UPDATE lwt SET n = 5 WHERE id = '${key}' IF n = 1`)).wasApplied(), 'condition n = 1');
		same((await one('SELECT n FROM lwt WHERE id = ?', [key])).n, 5);
	},

	async counter(name) {
		const update = 'UPDATE counts SET c = c + ? WHERE id = ?';
		for (const by of [1, 2, 4]) {
			await prepared(update, [by, `${prefix}-${name}`]);
		}
		await client.batch([{ query: update, params: [8, `${prefix}-${name}`] }], { prepare: true, counter: true });
		for (const of of [...rounds, name]) {
			same((await one('SELECT c FROM counts WHERE id = ?', [`${prefix}-${of}`])).c.toString(), '15');
		}
	},

	async types(name) {
		const n = begun;
		const place = (street, number) => ({ street, number });
		const values = {
			a: 'ascii', bi: types.Long.fromString('4611686018427387904').add(n), bl: Buffer.from([0, 1, 255]), bo: n % 2 === 0,
			da: types.LocalDate.fromString('2024-02-29'), de: types.BigDecimal.fromString('-123456789.000000000987654321'), dbl: 0.1 + n,
			du: new types.Duration(13, 1, 500), fl: 1.5, ine: types.InetAddress.fromString('fd77::1'), i: -2147483648, si: -32768,
			te: 'ümläut ☃ 😀', ti: types.LocalTime.fromString('13:14:15.123456789'), ts: new Date('2024-02-29T01:02:03.004Z'),
			tu: types.TimeUuid.now(), ty: -128, uu: types.Uuid.random(), vi: types.Integer.fromString('-12345678901234567890123456789'),
			li: [3, 1, 2, n], se: ['b', 'a', name].sort(), ma: { k: n, l: 2 }, fr: [[1, 2], [3]], tup: new types.Tuple(n, 'two', 3.0),
			ud: place('Main', n), nest: { x: [place('A', 1), place('B', n)] }, ve: new cassandra.types.Vector([1.0, -2.5, n + 0.25], 'float'),
		};
		// Those that version 3 has no numbers for are beyond this driver there.
		const without = args.protocol === '3' ? ['da', 'ti', 'si', 'ty'] : [];
		const names = Object.keys(values).filter((column) => !without.includes(column));
		await prepared(`INSERT INTO kinds (id, ${names.join(', ')}) VALUES (?${', ?'.repeat(names.length)})`, [prefix, ...names.map((column) => values[column])]);
		const row = await one(`SELECT ${names.join(', ')} FROM kinds WHERE id = ?`, [prefix]);
		const text = (v) => (v && v.constructor && ['Vector', 'Duration', 'Tuple'].includes(v.constructor.name) ? v.toString() : JSON.stringify(v));
		for (const column of names) {
			check(text(row[column]) === text(values[column]), column, 'is', text(row[column]), 'and not', text(values[column]));
		}
		return without.length ? 'ok: date, time, smallint, tinyint' : 'ok';
	},

	async functions(name) {
		const key = `${prefix}-functions`;
		await prepared('INSERT INTO rows (id, v, at, u) VALUES (?, ?, toTimestamp(now()), now())', [key, name]);
		const row = await one('SELECT at, u FROM rows WHERE id = ?', [key]);
		check(Math.abs(row.at - Date.now()) < 60000 && row.u instanceof types.TimeUuid, row.at, row.u);
	},

	async ttl(name) {
		const key = `${prefix}-ttl`;
		await prepared('INSERT INTO rows (id, v, n) VALUES (?, ?, ?) USING TTL ? AND TIMESTAMP ?', [key, name, 1, 86400, Date.now() * 1000]);
		const left = (await one('SELECT TTL(v) AS t FROM rows WHERE id = ?', [key])).t;
		check(left > 86300 && left <= 86400, 'TTL', left);
	},

	async large() {
		const body = Buffer.alloc(300000, 0);
		for (let i = 0; i < body.length; i++) {
			body[i] = ((i % 1000) ** 2 + i / 251) & 255;
		}
		await prepared('INSERT INTO big (id, b) VALUES (?, ?)', [prefix, body]);
		check(body.equals((await one('SELECT b FROM big WHERE id = ?', [prefix])).b), 'a value of 300 kB came back different');
	},

	async together(name) {
		const keys = Array.from({ length: 200 }, (_, i) => `${prefix}-many${i}`);
		await Promise.all(keys.map((key, i) => prepared('INSERT INTO rows (id, v, n) VALUES (?, ?, ?)', [key, name, i])));
		const rows = await Promise.all(keys.map((key) => one('SELECT n FROM rows WHERE id = ?', [key])));
		rows.forEach((row, i) => same(row.n, i));
	},

	async schema() {
		const made = `made_${prefix}`;
		for (const [statement, there] of [[`CREATE TABLE ${made} (id int PRIMARY KEY)`, true], [`DROP TABLE ${made}`, false]]) {
			await client.execute(statement);
			const end = Date.now() + 20000;
			while (((await client.metadata.getTable(other, made)) !== null) !== there) {
				check(Date.now() < end, "the driver's schema does not follow", statement);
				await sleep(50);
			}
		}
	},

};

async function round(name) {
	const answer = {};
	begun++;
	for (const [feature, attempt] of Object.entries(features)) {
		try {
			answer[feature] = (await attempt(name)) || 'ok';
		} catch (e) {
			answer[feature] = `failed: ${e.stack}`.slice(0, 400);
		}
	}
	if (name !== 'observe') { // what was written then is on one cluster alone
		rounds.push(name);
	}
	return { features: answer };
}

async function main() {
	await client.connect();
	for (let i = 0; i < WRITERS; i++) {
		writers.push({ acknowledged: 0 });
	}
	const running = writers.map((_, i) => write(i));
	console.log(JSON.stringify({ protocol: client.controlConnection.protocolVersion }));
	for await (const line of readline.createInterface({ input: process.stdin })) {
		const [word, ...rest] = line.split(' ');
		if (word === 'table') {
			table = rest[0];
		}
		console.log(JSON.stringify(word === 'round' ? await round(rest.join(' ')) : await count()));
	}
	stop = true;
	await Promise.all(running);
	await new Promise((done) => record.end(done));
	await client.shutdown();
	process.exit(0); // connections that had once been cut leave timers of the driver behind, which would keep the process
}

main().catch((e) => {
	console.error(e);
	process.exit(1);
});
