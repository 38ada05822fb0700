// SPDX-License-Identifier: Apache-2.0

//! The application with the Rust driver: see ../README.md for what it does and says.

use futures::StreamExt;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::client::{execution_profile::ExecutionProfile, Compression};
use scylla::response::PagingState;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;
use scylla::statement::Consistency;
use scylla::value::{Counter, CqlDate, CqlDecimal, CqlDuration, CqlTime, CqlTimestamp, CqlTimeuuid, CqlValue, CqlVarint, MaybeUnset, Row};
use serde_json::{json, Map, Value};
use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufWriter, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const WRITERS: usize = 3;
const PAUSE: Duration = Duration::from_millis(50);

type R<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn check(good: bool, what: impl FnOnce() -> String) -> R<()> {
    if good {
        Ok(())
    } else {
        Err(what().into())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> R<()> {
    check(got == want, || format!("is {got:?} and not {want:?}"))
}

fn text(s: impl Into<String>) -> CqlValue {
    CqlValue::Text(s.into())
}

fn int(i: i32) -> CqlValue {
    CqlValue::Int(i)
}

struct Notes {
    record: BufWriter<std::fs::File>,
    errors: u64,
    causes: HashMap<String, u64>,
}

struct Client {
    session: Session,
    prefix: String,
    other: String,
    table: Mutex<String>,
    stop: AtomicBool,
    acknowledged: [AtomicI64; WRITERS],
    notes: Mutex<Notes>,
    prepared: tokio::sync::Mutex<HashMap<String, PreparedStatement>>,
}

/// What the rounds leave for the next ones.
#[derive(Default)]
struct Rounds {
    begun: i32,
    names: Vec<String>,
    open_page: Option<PagingState>,
    open_seen: Vec<i32>,
}

impl Client {
    async fn prepare(&self, text: &str) -> R<PreparedStatement> {
        let mut prepared = self.prepared.lock().await;
        if !prepared.contains_key(text) {
            prepared.insert(text.into(), self.session.prepare(text).await?);
        }
        Ok(prepared[text].clone())
    }

    /// Writes rows of its own without end, and records what it was told of each.
    async fn write(&self, number: usize) {
        let mut step = 0;
        while !self.stop.load(SeqCst) {
            tokio::time::sleep(PAUSE).await;
            step += 1;
            let table = self.table.lock().unwrap().clone();
            let (key, value) = (format!("{}-{number}-{step}", self.prefix), format!("{} {number}/{step}", self.prefix));
            let done: R<()> = async {
                let insert = self.prepare(&format!("INSERT INTO {table} (id, v, n) VALUES (?, ?, ?)")).await?;
                self.session.execute_unpaged(&insert, (&key, &value, step)).await?;
                Ok(())
            }
            .await;
            let mut notes = self.notes.lock().unwrap();
            let what = if done.is_ok() { "a" } else { "?" };
            let line = json!([what, number, 0, 0, [[table, [key], "I", {"v": value, "n": step}]]]);
            writeln!(notes.record, "{line}").unwrap();
            match done {
                Ok(()) => {
                    self.acknowledged[number].fetch_add(1, SeqCst);
                }
                Err(e) => {
                    notes.errors += 1;
                    *notes.causes.entry(e.to_string().chars().take(160).collect()).or_default() += 1;
                }
            }
        }
    }

    /// Every writer gets two more answers, so that one of them was asked for after this was called; for 20 s.
    async fn count(&self) -> Value {
        let goals: Vec<i64> = self.acknowledged.iter().map(|a| a.load(SeqCst) + 2).collect();
        let end = Instant::now() + Duration::from_secs(20);
        while self.acknowledged.iter().zip(&goals).any(|(a, goal)| a.load(SeqCst) < *goal) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut notes = self.notes.lock().unwrap();
        let sum: i64 = self.acknowledged.iter().map(|a| a.load(SeqCst)).sum();
        let answer = json!({"acknowledged": sum, "errors": notes.errors, "causes": notes.causes});
        notes.errors = 0;
        notes.causes.clear();
        notes.record.flush().unwrap();
        answer
    }

    /// Prepared where there are values, as text where there are none; the rows of the answer.
    async fn run(&self, text: &str, values: &[CqlValue]) -> R<Vec<Row>> {
        let result = if text.contains('?') {
            self.session.execute_unpaged(&self.prepare(text).await?, values).await?
        } else {
            self.session.query_unpaged(text, ()).await?
        };
        if !result.is_rows() {
            return Ok(vec![]);
        }
        Ok(result.into_rows_result()?.rows::<Row>()?.collect::<Result<_, _>>()?)
    }

    async fn one(&self, text: &str, values: &[CqlValue]) -> R<Option<Vec<Option<CqlValue>>>> {
        Ok(self.run(text, values).await?.into_iter().next().map(|r| r.columns))
    }

    fn key(&self, name: &str) -> CqlValue {
        text(format!("{}-{name}", self.prefix))
    }

    // ---- what is tried in each round

    async fn simple(&self, name: &str) -> R<()> {
        let p = &self.prefix;
        self.run(&format!("INSERT INTO rows (id, v, n) VALUES ('{p}-simple', '{name}''s', 1)"), &[]).await?;
        self.session.query_unpaged("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", (format!("{p}-bound"), name, 2)).await?;
        self.run(&format!("UPDATE rows SET n = 3 WHERE id = '{p}-simple'"), &[]).await?;
        self.run(&format!("DELETE v FROM rows WHERE id = '{p}-bound'"), &[]).await?;
        let row = self.one(&format!("SELECT v, n FROM rows WHERE id = '{p}-simple'"), &[]).await?;
        same(row, Some(vec![Some(text(format!("{name}'s"))), Some(int(3))]))?;
        let row = self.one(&format!("SELECT v, n FROM rows WHERE id = '{p}-bound'"), &[]).await?;
        same(row, Some(vec![None, Some(int(2))]))
    }

    async fn prepared(&self, name: &str, begun: i32) -> R<()> {
        let (insert, key) = ("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", self.key("prepared"));
        self.run(insert, &[key.clone(), text(name), int(begun)]).await?;
        let unset: MaybeUnset<&str> = MaybeUnset::Unset;
        self.session.execute_unpaged(&self.prepare(insert).await?, (key.clone(), unset, begun + 1)).await?;
        let row = self.one("SELECT v, n FROM rows WHERE id = ?", &[key.clone()]).await?;
        same(row, Some(vec![Some(text(name)), Some(int(begun + 1))]))?;
        let row = self.one(&format!("SELECT v AS r{begun} FROM rows WHERE id = ?"), &[key]).await?;
        same(row, Some(vec![Some(text(name))]))?;
        self.run("INSERT INTO rows (id, n) VALUES (?, ?)", &[self.key("gone"), int(1)]).await?;
        self.run("DELETE FROM rows WHERE id = ?", &[self.key("gone")]).await?;
        same(self.one("SELECT n FROM rows WHERE id = ?", &[self.key("gone")]).await?, None)
    }

    async fn batch(&self, name: &str) -> R<()> {
        let insert = self.prepare("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)").await?;
        for (kind, of) in [(BatchType::Logged, 2), (BatchType::Unlogged, 3)] {
            let mut batch = Batch::new(kind);
            let mut values = vec![];
            for i in 0..of {
                batch.append_statement(insert.clone());
                values.push(vec![self.key(&format!("batch{i}")), text(name), int(i)]);
            }
            batch.append_statement(Statement::new(format!("UPDATE rows SET v = '{name}!' WHERE id = '{}-batch{of}'", self.prefix)));
            values.push(vec![]);
            self.session.batch(&batch, &values).await?;
            for i in 0..=of {
                let row = self.one("SELECT v FROM rows WHERE id = ?", &[self.key(&format!("batch{i}"))]).await?;
                same(row, Some(vec![Some(text(if i < of { name.to_string() } else { format!("{name}!") }))]))?;
            }
        }
        Ok(())
    }

    async fn page(&self, state: PagingState, seen: &mut Vec<i32>) -> R<Option<PagingState>> {
        let mut select = self.prepare("SELECT i FROM pages WHERE p = ?").await?;
        select.set_page_size(17);
        let (result, next) = self.session.execute_single_page(&select, (&self.prefix,), state).await?;
        for row in result.into_rows_result()?.rows::<(i32,)>()? {
            seen.push(row?.0);
        }
        Ok(match next.into_paging_control_flow() {
            ControlFlow::Continue(state) => Some(state),
            ControlFlow::Break(()) => None,
        })
    }

    async fn paging(&self, name: &str, rounds: &mut Rounds) -> R<()> {
        let all: Vec<i32> = (0..100).collect();
        for i in &all {
            self.run("INSERT INTO pages (p, i, v) VALUES (?, ?, ?)", &[text(&self.prefix), int(*i), text(name)]).await?;
        }
        if let Some(state) = rounds.open_page.take() {
            let (mut next, mut seen) = (Some(state), rounds.open_seen.clone()); // begun in the round before, perhaps at the other cluster
            while let Some(state) = next {
                next = self.page(state, &mut seen).await?;
            }
            same(&seen, &all)?;
        }
        rounds.open_seen.clear();
        rounds.open_page = self.page(PagingState::start(), &mut rounds.open_seen).await?;
        let (mut next, mut seen, mut pages) = (Some(PagingState::start()), vec![], 0);
        while let Some(state) = next {
            next = self.page(state, &mut seen).await?;
            pages += 1;
        }
        same(&seen, &all)?;
        same(pages, 6)?;
        let mut select = self.prepare("SELECT i FROM pages WHERE p = ?").await?;
        select.set_page_size(17);
        let mut rows = self.session.execute_iter(select, (&self.prefix,)).await?.rows_stream::<(i32,)>()?;
        let mut seen = vec![];
        while let Some(row) = rows.next().await {
            seen.push(row?.0);
        }
        same(&seen, &all)
    }

    /// [applied] is the first column.
    async fn applied(&self, text: &str, values: &[CqlValue]) -> R<bool> {
        let row = self.one(text, values).await?.ok_or("no row")?;
        Ok(row[0] == Some(CqlValue::Boolean(true)))
    }

    async fn lwt(&self, name: &str, rounds: &Rounds) -> R<()> {
        let insert = "INSERT INTO lwt (id, v, n) VALUES (?, ?, ?) IF NOT EXISTS";
        let p = &self.prefix;
        check(self.applied(insert, &[self.key(name), text(name), int(1)]).await?, || "the first is not applied".into())?;
        let row = self.one(insert, &[self.key(name), text("again"), int(2)]).await?.ok_or("no row")?;
        check(row[0] == Some(CqlValue::Boolean(false)) && row.contains(&Some(text(name))), || format!("the second: {row:?}"))?;
        for before in &rounds.names {
            let applied = self.applied(insert, &[self.key(before), text("again"), int(2)]).await?;
            check(!applied, || format!("the row of round {before} is not there"))?;
        }
        let update = format!("UPDATE lwt SET n = 5 WHERE id = '{p}-{name}' IF n =");
        check(!self.applied(&format!("{update} 4"), &[]).await?, || "condition n = 4".into())?;
        check(self.applied(&format!("{update} 1"), &[]).await?, || "condition n = 1".into())?;
        same(self.one("SELECT n FROM lwt WHERE id = ?", &[self.key(name)]).await?, Some(vec![Some(int(5))]))
    }

    async fn counter(&self, name: &str, rounds: &Rounds) -> R<()> {
        let update = self.prepare("UPDATE counts SET c = c + ? WHERE id = ?").await?;
        for by in [1, 2, 4] {
            self.session.execute_unpaged(&update, (Counter(by), self.key(name))).await?;
        }
        let mut batch = Batch::new(BatchType::Counter);
        batch.append_statement(update);
        self.session.batch(&batch, ((Counter(8), self.key(name)),)).await?;
        for of in rounds.names.iter().map(String::as_str).chain([name]) {
            let row = self.one("SELECT c FROM counts WHERE id = ?", &[self.key(of)]).await?;
            same(row, Some(vec![Some(CqlValue::Counter(Counter(15)))]))?;
        }
        Ok(())
    }

    async fn types(&self, name: &str, n: i32) -> R<()> {
        let place = |street: &str, number| CqlValue::UserDefinedType {
            keyspace: self.other.clone(),
            name: "place".into(),
            fields: vec![("street".into(), Some(text(street))), ("number".into(), Some(int(number)))],
        };
        let mut set = vec!["a", "b", name];
        set.sort();
        let values = [
            ("a", CqlValue::Ascii("ascii".into())),
            ("bi", CqlValue::BigInt((1 << 62) + i64::from(n))),
            ("bl", CqlValue::Blob(vec![0, 1, 255])),
            ("bo", CqlValue::Boolean(n % 2 == 0)),
            ("da", CqlValue::Date(CqlDate((1 << 31) + 19782))),
            ("de", CqlValue::Decimal(CqlDecimal::from_signed_be_bytes_and_exponent(vec![0xfe, 1, 2, 3, 4, 5, 6, 7, 8, 9], 18))),
            ("dbl", CqlValue::Double(0.1 + f64::from(n))),
            ("du", CqlValue::Duration(CqlDuration { months: 13, days: 1, nanoseconds: 500 })),
            ("fl", CqlValue::Float(1.5)),
            ("ine", CqlValue::Inet("fd77::1".parse()?)),
            ("i", int(i32::MIN)),
            ("si", CqlValue::SmallInt(i16::MIN)),
            ("te", text("ümläut ☃ 😀")),
            ("ti", CqlValue::Time(CqlTime(47_655_123_456_789))),
            ("ts", CqlValue::Timestamp(CqlTimestamp(1_709_168_523_004))),
            ("tu", CqlValue::Timeuuid("50554d6e-29bb-11e5-b345-feff819cdc9f".parse::<CqlTimeuuid>()?)),
            ("ty", CqlValue::TinyInt(i8::MIN)),
            ("uu", CqlValue::Uuid(uuid::Uuid::new_v4())),
            ("vi", CqlValue::Varint(CqlVarint::from_signed_bytes_be(vec![0x81; 40]))),
            ("li", CqlValue::List(vec![int(3), int(1), int(2), int(n)])),
            ("se", CqlValue::Set(set.into_iter().map(text).collect())),
            ("ma", CqlValue::Map(vec![(text("k"), int(n)), (text("l"), int(2))])),
            ("fr", CqlValue::List(vec![CqlValue::List(vec![int(1), int(2)]), CqlValue::List(vec![int(3)])])),
            ("tup", CqlValue::Tuple(vec![Some(int(n)), Some(text("two")), Some(CqlValue::Double(3.0))])),
            ("ud", place("Main", n)),
            ("nest", CqlValue::Map(vec![(text("x"), CqlValue::Set(vec![place("A", 1), place("B", n)]))])),
            ("ve", CqlValue::Vector(vec![CqlValue::Float(1.0), CqlValue::Float(-2.5), CqlValue::Float(n as f32 + 0.25)])),
        ];
        let names: Vec<&str> = values.iter().map(|v| v.0).collect();
        let names = names.join(", ");
        let mut bound = vec![text(&self.prefix)];
        bound.extend(values.iter().map(|v| v.1.clone()));
        self.run(&format!("INSERT INTO kinds (id, {names}) VALUES (?{})", ", ?".repeat(values.len())), &bound).await?;
        let row = self.one(&format!("SELECT {names} FROM kinds WHERE id = ?"), &[text(&self.prefix)]).await?.ok_or("no row")?;
        for ((name, want), got) in values.into_iter().zip(row) {
            check(got == Some(want.clone()), || format!("{name} is {got:?} and not {want:?}"))?;
        }
        Ok(())
    }

    async fn functions(&self, name: &str) -> R<()> {
        self.run("INSERT INTO rows (id, v, at, u) VALUES (?, ?, toTimestamp(now()), now())", &[self.key("functions"), text(name)]).await?;
        let row = self.one("SELECT at, u FROM rows WHERE id = ?", &[self.key("functions")]).await?.ok_or("no row")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        match row[..] {
            [Some(CqlValue::Timestamp(at)), Some(CqlValue::Timeuuid(_))] => check((at.0 - now).abs() < 60_000, || format!("{at:?}")),
            _ => Err(format!("{row:?}").into()),
        }
    }

    async fn ttl(&self, name: &str) -> R<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as i64;
        let insert = "INSERT INTO rows (id, v, n) VALUES (?, ?, ?) USING TTL ? AND TIMESTAMP ?";
        self.run(insert, &[self.key("ttl"), text(name), int(1), int(86400), CqlValue::BigInt(now)]).await?;
        let row = self.one("SELECT TTL(v) FROM rows WHERE id = ?", &[self.key("ttl")]).await?.ok_or("no row")?;
        check(matches!(row[0], Some(CqlValue::Int(left)) if left > 86300 && left <= 86400), || format!("TTL {row:?}"))
    }

    async fn large(&self) -> R<()> {
        let body = CqlValue::Blob((0..300_000u32).map(|i| (i % 1000 * (i % 1000) + i / 251) as u8).collect());
        self.run("INSERT INTO big (id, b) VALUES (?, ?)", &[text(&self.prefix), body.clone()]).await?;
        let row = self.one("SELECT b FROM big WHERE id = ?", &[text(&self.prefix)]).await?;
        check(row == Some(vec![Some(body)]), || "a value of 300 kB came back different".into())
    }

    /// 200 requests at once on few connections: each has to get its own answer.
    async fn together(&self, name: &str) -> R<()> {
        let each = (0..200).map(|i| async move {
            let key = self.key(&format!("many{i}"));
            self.run("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", &[key.clone(), text(name), int(i)]).await?;
            same(self.one("SELECT n FROM rows WHERE id = ?", &[key]).await?, Some(vec![Some(int(i))]))
        });
        futures::future::try_join_all(each).await.map(|_| ())
    }

    async fn schema(&self) -> R<()> {
        let made = format!("made_{}", self.prefix);
        for (statement, there) in [(format!("CREATE TABLE {made} (id int PRIMARY KEY)"), true), (format!("DROP TABLE {made}"), false)] {
            self.run(&statement, &[]).await?;
            let end = Instant::now() + Duration::from_secs(20);
            while self.session.get_cluster_state().get_keyspace(&self.other).is_some_and(|k| k.tables.contains_key(&made)) != there {
                check(Instant::now() < end, || format!("the driver's schema does not follow {statement}"))?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn nodes(&self, name: &str) -> R<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let state = self.session.get_cluster_state();
            let nodes = state.get_nodes_info();
            if (nodes.len() >= 2 || name.starts_with("finish")) && nodes.iter().all(|n| n.is_connected()) {
                return Ok(());
            }
            check(Instant::now() < end, || format!("nodes: {nodes:?}"))?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn round(&self, name: &str, rounds: &mut Rounds) -> Value {
        rounds.begun += 1;
        let attempts = [
            ("simple", self.simple(name).await),
            ("prepared", self.prepared(name, rounds.begun).await),
            ("batch", self.batch(name).await),
            ("paging", self.paging(name, rounds).await),
            ("lwt", self.lwt(name, rounds).await),
            ("counter", self.counter(name, rounds).await),
            ("types", self.types(name, rounds.begun).await),
            ("functions", self.functions(name).await),
            ("ttl", self.ttl(name).await),
            ("large", self.large().await),
            ("together", self.together(name).await),
            ("schema", self.schema().await),
            ("nodes", self.nodes(name).await),
        ];
        let mut answer = Map::new();
        for (feature, said) in attempts {
            let said = said.map_or_else(|e| format!("failed: {e}").chars().take(300).collect(), |()| "ok".to_string());
            answer.insert(feature.into(), said.into());
        }
        if name != "observe" {
            rounds.names.push(name.into()); // what was written in that one is on one cluster alone
        }
        json!({ "features": answer })
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> R<()> {
    let argv: Vec<String> = std::env::args().skip(1).collect();
    let args: HashMap<&str, &str> = argv.chunks_exact(2).map(|a| (&a[0][2..], a[1].as_str())).collect();
    let other = format!("{}_b", args["keyspace"]);
    let profile =
        ExecutionProfile::builder().request_timeout(Some(Duration::from_secs(20))).consistency(Consistency::LocalOne).build();
    let session = SessionBuilder::new()
        .known_nodes(args["contact"].split(','))
        .user(args["user"], args["password"])
        .compression(match args["compression"] {
            "lz4" => Some(Compression::Lz4),
            "snappy" => Some(Compression::Snappy),
            _ => None,
        })
        .use_keyspace(&other, false)
        .connection_timeout(Duration::from_secs(20))
        .default_execution_profile_handle(profile.into_handle())
        .build()
        .await?;
    let client = Arc::new(Client {
        session,
        prefix: args["prefix"].into(),
        table: Mutex::new(format!("{other}.early")),
        other,
        stop: AtomicBool::new(false),
        acknowledged: Default::default(),
        notes: Mutex::new(Notes { record: BufWriter::new(std::fs::File::create(args["record"])?), errors: 0, causes: HashMap::new() }),
        prepared: Default::default(),
    });
    let mut running = vec![];
    for number in 0..WRITERS {
        let client = client.clone();
        running.push(tokio::spawn(async move { client.write(number).await }));
    }
    println!("{}", json!({"protocol": 4}));
    let mut rounds = Rounds::default();
    let mut lines = std::io::stdin().lock().lines();
    while let Some(line) = tokio::task::block_in_place(|| lines.next()) {
        let line = line?;
        let answer = match line.split_once(' ') {
            Some(("round", name)) => client.round(name, &mut rounds).await,
            Some(("table", table)) => {
                *client.table.lock().unwrap() = table.into();
                client.count().await
            }
            _ => client.count().await,
        };
        println!("{answer}");
    }
    client.stop.store(true, SeqCst);
    futures::future::join_all(running).await;
    client.notes.lock().unwrap().record.flush()?;
    Ok(())
}
