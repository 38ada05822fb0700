// SPDX-License-Identifier: Apache-2.0

import com.datastax.oss.driver.api.core.CqlIdentifier;
import com.datastax.oss.driver.api.core.CqlSession;
import com.datastax.oss.driver.api.core.config.DefaultDriverOption;
import com.datastax.oss.driver.api.core.config.DriverConfigLoader;
import com.datastax.oss.driver.api.core.cql.AsyncResultSet;
import com.datastax.oss.driver.api.core.cql.BatchStatement;
import com.datastax.oss.driver.api.core.cql.BatchType;
import com.datastax.oss.driver.api.core.cql.PagingState;
import com.datastax.oss.driver.api.core.cql.PreparedStatement;
import com.datastax.oss.driver.api.core.cql.ResultSet;
import com.datastax.oss.driver.api.core.cql.Row;
import com.datastax.oss.driver.api.core.cql.SimpleStatement;
import com.datastax.oss.driver.api.core.data.CqlDuration;
import com.datastax.oss.driver.api.core.data.CqlVector;
import com.datastax.oss.driver.api.core.data.TupleValue;
import com.datastax.oss.driver.api.core.data.UdtValue;
import com.datastax.oss.driver.api.core.metadata.Node;
import com.datastax.oss.driver.api.core.metadata.NodeState;
import com.datastax.oss.driver.api.core.type.DataTypes;
import com.datastax.oss.driver.api.core.type.TupleType;
import com.datastax.oss.driver.api.core.type.UserDefinedType;
import com.datastax.oss.driver.api.core.uuid.Uuids;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicInteger;

/** The application with the Java driver: see ../README.md for what it does and says. */
public class Client {
	static final int WRITERS = 3, PAUSE = 50;

	/** Returns "ok", and perhaps what the driver does not have. */
	interface Feature {
		String run(String name) throws Exception;
	}

	interface Attempt {
		void run(String name) throws Exception;
	}

	static Feature plain(Attempt attempt) {
		return name -> {
			attempt.run(name);
			return "ok";
		};
	}

	final Map<String, String> args;
	final String prefix, other;
	final CqlSession session;
	final PrintWriter file;
	final List<Writer> writers = new ArrayList<>();
	final List<String> rounds = new ArrayList<>();
	final Map<String, PreparedStatement> statements = new HashMap<>();
	final Map<String, Feature> features = new LinkedHashMap<>();
	volatile String table;
	volatile boolean stop;
	int errors, begun;
	Map<String, Integer> causes = new TreeMap<>();
	PagingState openPage;
	List<Integer> openSeen = new ArrayList<>();

	Client(Map<String, String> args) throws Exception {
		this.args = args;
		prefix = args.get("prefix");
		other = args.get("keyspace") + "_b";
		table = other + ".early";
		var config = DriverConfigLoader.programmaticBuilder()
			.withString(DefaultDriverOption.PROTOCOL_VERSION, "V" + args.get("protocol"))
			.withString(DefaultDriverOption.PROTOCOL_COMPRESSION, args.get("compression"))
			.withDuration(DefaultDriverOption.REQUEST_TIMEOUT, Duration.ofSeconds(20))
			.withDuration(DefaultDriverOption.CONNECTION_INIT_QUERY_TIMEOUT, Duration.ofSeconds(20))
			.withDuration(DefaultDriverOption.CONTROL_CONNECTION_TIMEOUT, Duration.ofSeconds(20))
			.withDuration(DefaultDriverOption.METADATA_SCHEMA_REQUEST_TIMEOUT, Duration.ofSeconds(20))
			.withString(DefaultDriverOption.RECONNECTION_POLICY_CLASS, "ConstantReconnectionPolicy")
			.withDuration(DefaultDriverOption.RECONNECTION_BASE_DELAY, Duration.ofMillis(500))
			.build();
		var builder = CqlSession.builder().withConfigLoader(config).withLocalDatacenter("dc1").withKeyspace(other)
			.withAuthCredentials(args.get("user"), args.get("password"));
		for (String host : args.get("contact").split(","))
			builder.addContactPoint(new InetSocketAddress(host, 9042));
		session = builder.build();
		file = new PrintWriter(args.get("record"), StandardCharsets.UTF_8);
		features.put("simple", plain(this::simple));
		features.put("prepared", plain(this::prepared));
		features.put("batch", plain(this::batch));
		features.put("paging", plain(this::paging));
		features.put("lwt", plain(this::lwt));
		features.put("counter", plain(this::counter));
		features.put("types", this::types);
		features.put("functions", plain(this::functions));
		features.put("ttl", plain(this::ttl));
		features.put("large", plain(this::large));
		features.put("together", plain(this::together));
		features.put("schema", plain(this::schema));
		features.put("nodes", plain(this::nodes));
		for (int n = 0; n < WRITERS; n++) {
			writers.add(new Writer(n));
			writers.get(n).start();
		}
	}

	static void check(boolean condition, Object... what) {
		if (!condition)
			throw new AssertionError(Arrays.deepToString(what));
	}

	static void same(Object got, Object want) {
		check(Objects.equals(got, want), "is", got, "and not", want);
	}

	static String quoted(String s) {
		var out = new StringBuilder("\"");
		for (char c : s.toCharArray())
			out.append(c == '"' || c == '\\' ? "\\" + c : c < ' ' ? " " : "" + c);
		return out.append('"').toString();
	}

	synchronized void record(char what, int writer, String where, int step) {
		file.printf("[\"%c\", %d, 0, 0, [[\"%s\", [\"%s-%d-%d\"], \"I\", {\"v\": \"%s %d/%d\", \"n\": %d}]]]%n", what, writer, where, prefix,
			writer, step, prefix, writer, step, step);
	}

	synchronized void error(Throwable e) {
		errors++;
		causes.merge(e.getClass().getSimpleName() + ": " + e.getMessage(), 1, Integer::sum);
	}

	/** Writes rows of its own without end, and records what it was told of each. */
	class Writer extends Thread {
		final int number;
		volatile int acknowledged;

		Writer(int number) {
			this.number = number;
			setDaemon(true);
		}

		@Override
		public void run() {
			Map<String, PreparedStatement> inserts = new HashMap<>();
			for (int step = 1; !stop; step++) {
				String where = table;
				try {
					Thread.sleep(PAUSE);
					if (!inserts.containsKey(where))
						inserts.put(where, session.prepare("INSERT INTO " + where + " (id, v, n) VALUES (?, ?, ?)"));
					session.execute(inserts.get(where).bind(prefix + "-" + number + "-" + step, prefix + " " + number + "/" + step, step));
					record('a', number, where, step);
					acknowledged++;
				} catch (Exception e) {
					record('?', number, where, step);
					error(e);
				}
			}
		}
	}

	/** Every writer gets two more answers, so that one of them was asked for after this was called; for 20 s. */
	String count() throws InterruptedException {
		int[] goals = writers.stream().mapToInt(w -> w.acknowledged + 2).toArray();
		long end = System.nanoTime() + 20_000_000_000L;
		int sum = 0;
		for (Writer w : writers) {
			while (w.acknowledged < goals[w.number] && System.nanoTime() < end)
				Thread.sleep(20);
			sum += w.acknowledged;
		}
		synchronized (this) {
			var text = new StringBuilder();
			causes.forEach((k, v) -> text.append(text.length() > 0 ? ", " : "").append(quoted(k)).append(": ").append(v));
			String answer = "{\"acknowledged\": " + sum + ", \"errors\": " + errors + ", \"causes\": {" + text + "}}";
			errors = 0;
			causes = new TreeMap<>();
			file.flush();
			return answer;
		}
	}

	PreparedStatement prepare(String text) {
		return statements.computeIfAbsent(text, session::prepare);
	}

	Row one(String text, Object... values) {
		return run(text, values).one();
	}

	ResultSet run(String text, Object... values) {
		return session.execute(text.contains("?") ? prepare(text).bind(values) : SimpleStatement.newInstance(text, values));
	}

	// ---- what is tried in each round

	void simple(String name) {
		run("INSERT INTO rows (id, v, n) VALUES ('" + prefix + "-simple', '" + name + "''s', 1)");
		session.execute(SimpleStatement.newInstance("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", prefix + "-bound", name, 2));
		session.execute(SimpleStatement.newInstance("UPDATE rows SET n = :n WHERE id = :id", Map.of("n", 3, "id", prefix + "-simple")));
		run("DELETE v FROM rows WHERE id = '" + prefix + "-bound'");
		Row row = one("SELECT v, n FROM rows WHERE id = '" + prefix + "-simple'");
		same(row.getString(0), name + "'s");
		same(row.getInt(1), 3);
		row = one("SELECT v, n FROM rows WHERE id = '" + prefix + "-bound'");
		check(row.isNull(0) && row.getInt(1) == 2, "a deleted value is there");
	}

	void prepared(String name) {
		String key = prefix + "-prepared";
		run("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", key, name, begun);
		if (!args.get("protocol").equals("3")) {
			session.execute(prepare("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)").boundStatementBuilder().setString(0, key)
				.setInt(2, begun + 1).build());
			Row row = one("SELECT v, n FROM rows WHERE id = ?", key);
			check(name.equals(row.getString(0)) && row.getInt(1) == begun + 1, "unset value");
		}
		same(one("SELECT v AS r" + begun + " FROM rows WHERE id = ?", key).getString("r" + begun), name);
		run("INSERT INTO rows (id, n) VALUES (?, ?)", prefix + "-gone", 1);
		run("DELETE FROM rows WHERE id = ?", prefix + "-gone");
		check(one("SELECT n FROM rows WHERE id = ?", prefix + "-gone") == null, "a deleted row is there");
	}

	void batch(String name) {
		var insert = prepare("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)");
		for (int of = 2; of < 4; of++) {
			var batch = BatchStatement.builder(of == 2 ? BatchType.LOGGED : BatchType.UNLOGGED);
			for (int i = 0; i < of; i++)
				batch.addStatement(insert.bind(prefix + "-batch" + i, name, i));
			batch.addStatement(SimpleStatement.newInstance("UPDATE rows SET v = ? WHERE id = '" + prefix + "-batch" + of + "'", name + "!"));
			session.execute(batch.build());
			for (int i = 0; i <= of; i++)
				same(one("SELECT v FROM rows WHERE id = ?", prefix + "-batch" + i).getString(0), i < of ? name : name + "!");
		}
	}

	SimpleStatement pages() {
		return SimpleStatement.newInstance("SELECT i FROM pages WHERE p = '" + prefix + "'").setPageSize(17);
	}

	static void take(ResultSet result, List<Integer> seen) {
		for (int left = result.getAvailableWithoutFetching(); left > 0; left--)
			seen.add(result.one().getInt(0));
	}

	void paging(String name) {
		List<Integer> all = new ArrayList<>(), seen = new ArrayList<>();
		for (int i = 0; i < 100; i++) {
			all.add(i);
			run("INSERT INTO pages (p, i, v) VALUES (?, ?, ?)", prefix, i, name);
		}
		if (openPage != null) { // begun in the round before, perhaps at the other cluster
			for (PagingState state = openPage; state != null;) {
				ResultSet result = session.execute(pages().setPagingState(state));
				take(result, openSeen);
				state = result.getExecutionInfo().getSafePagingState();
			}
			same(openSeen, all);
		}
		ResultSet first = session.execute(pages());
		openPage = first.getExecutionInfo().getSafePagingState();
		openSeen = new ArrayList<>();
		take(first, openSeen);
		ResultSet result = session.execute(pages());
		for (Row row : result)
			seen.add(row.getInt(0));
		same(seen, all);
		same(result.getExecutionInfos().size(), 6);
	}

	void lwt(String name) {
		String key = prefix + "-" + name, insert = "INSERT INTO lwt (id, v, n) VALUES (?, ?, ?) IF NOT EXISTS";
		check(run(insert, key, name, 1).wasApplied(), "the first is not applied");
		ResultSet again = run(insert, key, "again", 2);
		check(!again.wasApplied(), "the second is applied");
		same(again.one().getString("v"), name);
		for (String before : rounds)
			check(!run(insert, prefix + "-" + before, "again", 2).wasApplied(), "the row of round", before, "is not there");
		check(!run("UPDATE lwt SET n = 5 WHERE id = '" + key + "' IF n = 4").wasApplied(), "condition n = 4");
		check(run("UPDATE lwt SET n = 5 WHERE id = '" + key + "' IF n = 1").wasApplied(), "condition n = 1");
		same(one("SELECT n FROM lwt WHERE id = ?", key).getInt(0), 5);
	}

	void counter(String name) {
		String update = "UPDATE counts SET c = c + ? WHERE id = ?", key = prefix + "-" + name;
		for (long by : new long[] {1, 2, 4})
			run(update, by, key);
		session.execute(BatchStatement.newInstance(BatchType.COUNTER, prepare(update).bind(8L, key)));
		List<String> all = new ArrayList<>(rounds);
		all.add(name);
		for (String of : all)
			same(one("SELECT c FROM counts WHERE id = ?", prefix + "-" + of).getLong(0), 15L);
	}

	String types(String name) throws Exception {
		int n = begun;
		UserDefinedType place = session.getMetadata().getKeyspace(other).get().getUserDefinedType("place").get();
		TupleType tuple = DataTypes.tupleOf(DataTypes.INT, DataTypes.TEXT, DataTypes.DOUBLE);
		tuple.attach(session.getContext());
		place.attach(session.getContext());
		Map<String, Object> values = new LinkedHashMap<>();
		values.put("a", "ascii");
		values.put("bi", (1L << 62) + n);
		values.put("bl", ByteBuffer.wrap(new byte[] {0, 1, -1}));
		values.put("bo", n % 2 == 0);
		values.put("da", LocalDate.of(2024, 2, 29));
		values.put("de", new BigDecimal("-123456789.000000000987654321"));
		values.put("dbl", 0.1 + n);
		values.put("du", CqlDuration.newInstance(13, 1, 500));
		values.put("fl", 1.5f);
		values.put("ine", InetAddress.getByName("fd77::1"));
		values.put("i", Integer.MIN_VALUE);
		values.put("si", Short.MIN_VALUE);
		values.put("te", "ümläut ☃ 😀");
		values.put("ti", LocalTime.parse("13:14:15.123456789"));
		values.put("ts", Instant.parse("2024-02-29T01:02:03.004Z"));
		values.put("tu", Uuids.timeBased());
		values.put("ty", Byte.MIN_VALUE);
		values.put("uu", UUID.randomUUID());
		values.put("vi", BigInteger.valueOf(3).pow(200).negate());
		values.put("li", List.of(3, 1, 2, n));
		values.put("se", Set.of("b", "a", name));
		values.put("ma", Map.of("k", n, "l", 2));
		values.put("fr", List.of(List.of(1, 2), List.of(3)));
		values.put("tup", tuple.newValue(n, "two", 3.0));
		values.put("ud", place.newValue("Main", n));
		values.put("nest", Map.of("x", Set.of(place.newValue("A", 1), place.newValue("B", n))));
		values.put("ve", CqlVector.newInstance(1.0f, -2.5f, n + 0.25f));
		String without = "ok";
		if (args.get("protocol").equals("3")) { // which has no numbers for them
			values.keySet().removeAll(Set.of("da", "ti", "si", "ty"));
			without = "ok: date, time, smallint, tinyint";
		}
		String names = String.join(", ", values.keySet());
		List<Object> bound = new ArrayList<>(List.of(prefix));
		bound.addAll(values.values());
		run("INSERT INTO kinds (id, " + names + ") VALUES (?" + ", ?".repeat(values.size()) + ")", bound.toArray());
		Row row = one("SELECT " + names + " FROM kinds WHERE id = ?", prefix);
		for (var e : values.entrySet()) {
			Object got = row.getObject(e.getKey()), want = e.getValue();
			if (want instanceof TupleValue || want instanceof UdtValue) { // equal needs equal types, attached alike
				got = got instanceof TupleValue t ? t.getFormattedContents() : ((UdtValue) got).getFormattedContents();
				want = want instanceof TupleValue t ? t.getFormattedContents() : ((UdtValue) want).getFormattedContents();
			}
			check(want.equals(got), e.getKey(), "is", got, "and not", want);
		}
		return without;
	}

	void functions(String name) {
		run("INSERT INTO rows (id, v, at, u) VALUES (?, ?, toTimestamp(now()), now())", prefix + "-functions", name);
		Row row = one("SELECT at, u FROM rows WHERE id = ?", prefix + "-functions");
		check(Math.abs(Duration.between(row.getInstant(0), Instant.now()).toSeconds()) < 60 && row.getUuid(1).version() == 1, row.getInstant(0));
	}

	void ttl(String name) {
		run("INSERT INTO rows (id, v, n) VALUES (?, ?, ?) USING TTL ? AND TIMESTAMP ?", prefix + "-ttl", name, 1, 86400,
			System.currentTimeMillis() * 1000);
		int left = one("SELECT TTL(v) FROM rows WHERE id = ?", prefix + "-ttl").getInt(0);
		check(left > 86300 && left <= 86400, "TTL", left);
	}

	void large(String name) {
		byte[] body = new byte[300_000];
		for (int i = 0; i < body.length; i++)
			body[i] = (byte) (i % 1000 * (i % 1000) + i / 251);
		run("INSERT INTO big (id, b) VALUES (?, ?)", prefix, ByteBuffer.wrap(body));
		check(ByteBuffer.wrap(body).equals(one("SELECT b FROM big WHERE id = ?", prefix).getByteBuffer(0)), "a value of 300 kB came back different");
	}

	void together(String name) {
		var insert = prepare("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)");
		var select = prepare("SELECT n FROM rows WHERE id = ?");
		List<CompletionStage<AsyncResultSet>> pending = new ArrayList<>();
		for (int i = 0; i < 200; i++)
			pending.add(session.executeAsync(insert.bind(prefix + "-many" + i, name, i)));
		pending.forEach(x -> x.toCompletableFuture().join());
		pending.clear();
		for (int i = 0; i < 200; i++)
			pending.add(session.executeAsync(select.bind(prefix + "-many" + i)));
		for (int i = 0; i < 200; i++)
			same(pending.get(i).toCompletableFuture().join().one().getInt(0), i);
	}

	void schema(String name) throws InterruptedException {
		String made = "made_" + prefix;
		for (String statement : new String[] {"CREATE TABLE " + made + " (id int PRIMARY KEY)", "DROP TABLE " + made}) {
			// Its time includes that of the nodes to agree: 10 s at most, and as much before when another refresh is under way.
			session.execute(SimpleStatement.newInstance(statement).setTimeout(Duration.ofSeconds(40)));
			boolean there = statement.startsWith("CREATE");
			long end = System.nanoTime() + 20_000_000_000L;
			while (session.getMetadata().getKeyspace(other).get().getTable(CqlIdentifier.fromCql(made)).isPresent() != there) {
				check(System.nanoTime() < end, "the driver's schema does not follow", statement);
				Thread.sleep(50);
			}
		}
	}

	void nodes(String name) throws InterruptedException {
		long end = System.nanoTime() + 20_000_000_000L;
		for (;; Thread.sleep(50)) {
			var nodes = session.getMetadata().getNodes().values();
			if ((nodes.size() >= 2 || name.startsWith("finish")) &&
			    nodes.stream().allMatch(n -> n.getState() == NodeState.UP && n.getOpenConnections() > 0))
				return;
			check(System.nanoTime() < end, "nodes", nodes);
		}
	}

	String round(String name) {
		begun++;
		var answer = new StringBuilder();
		for (var e : features.entrySet()) {
			String said;
			try {
				said = e.getValue().run(name);
			} catch (Exception | AssertionError x) {
				said = "failed: " + x;
			}
			answer.append(answer.length() > 0 ? ", " : "").append(quoted(e.getKey())).append(": ").append(quoted(said));
		}
		if (!name.equals("observe")) // what was written then is on one cluster alone
			rounds.add(name);
		return "{\"features\": {" + answer + "}}";
	}

	/** So many rows in and out again, as fast as the driver goes: those that were acknowledged, those that came back as they were. */
	String load(int rows) throws InterruptedException {
		var insert = prepare("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)");
		var free = new Semaphore(128);
		var written = new AtomicInteger();
		for (int i = 0; i < rows; i++) {
			free.acquire();
			session.executeAsync(insert.bind(prefix + "-load" + i, "load " + i, i)).whenComplete((result, error) -> {
				if (error == null)
					written.incrementAndGet();
				free.release();
			});
		}
		free.acquire(128);
		Set<Integer> read = new HashSet<>();
		for (Row row : session.execute(SimpleStatement.newInstance("SELECT id, v, n FROM rows").setPageSize(5000))) {
			int n = row.getInt(2);
			if ((prefix + "-load" + n).equals(row.getString(0)) && ("load " + n).equals(row.getString(1)))
				read.add(n);
		}
		return "{\"written\": " + written + ", \"read\": " + read.size() + "}";
	}

	/** The answer to one line of standard input. */
	String answer(String line) throws InterruptedException {
		int space = line.indexOf(' ');
		String rest = line.substring(space + 1);
		switch (space < 0 ? line : line.substring(0, space)) {
		case "round":
			return round(rest);
		case "load":
			return load(Integer.parseInt(rest));
		case "table":
			table = rest;
		}
		return count();
	}

	public static void main(String[] argv) throws Exception {
		Map<String, String> args = new HashMap<>();
		for (int i = 0; i + 1 < argv.length; i += 2)
			args.put(argv[i].substring(2), argv[i + 1]);
		Client client = new Client(args);
		System.out.println("{\"protocol\": " + client.session.getContext().getProtocolVersion().getCode() + "}");
		var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
		for (String line; (line = in.readLine()) != null;)
			System.out.println(client.answer(line));
		client.stop = true;
		for (Writer w : client.writers)
			w.join(30_000);
		client.file.close();
		client.session.close();
	}
}
