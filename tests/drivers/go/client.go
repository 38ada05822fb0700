// SPDX-License-Identifier: Apache-2.0

// The application with gocql 1 and, under its other name, gocql 2: see ../README.md for what it does and says.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"os"
	"reflect"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"
	"gopkg.in/inf.v0"
)

const (
	writers = 3
	pause   = 50 * time.Millisecond
)

type place struct {
	Street string `cql:"street"`
	Number int    `cql:"number"`
}

type writer struct {
	number       int
	acknowledged atomic.Int64
}

type client struct {
	args          map[string]string
	prefix, other string
	session       *gocql.Session
	writers       []*writer
	table         atomic.Value
	stop          atomic.Bool
	running       sync.WaitGroup
	begun         int
	rounds        []string
	openPage      []byte
	openSeen      []int

	lock   sync.Mutex
	record *bufio.Writer
	errors int
	causes map[string]int
}

// failure is what a feature panics with: the attempt is given up, and its text is the answer.
type failure string

func check(good bool, format string, a ...any) {
	if !good {
		panic(failure(fmt.Sprintf(format, a...)))
	}
}

func must(err error) { check(err == nil, "%v", err) }

func same(got, want any) { check(reflect.DeepEqual(got, want), "is %v and not %v", got, want) }

func (c *client) note(what string, w *writer, table string, step int, err error) {
	key, value := fmt.Sprintf("%s-%d-%d", c.prefix, w.number, step), fmt.Sprintf("%s %d/%d", c.prefix, w.number, step)
	line, _ := json.Marshal([]any{what, w.number, 0, 0, [][]any{{table, []string{key}, "I", map[string]any{"v": value, "n": step}}}})
	c.lock.Lock()
	defer c.lock.Unlock()
	c.record.Write(append(line, '\n'))
	if err != nil {
		c.errors++
		c.causes[fmt.Sprintf("%T: %.140s", err, err)]++
	}
}

// insert is one write. gocql 2.1.2 panics in its token-aware policy while every node is down; an application has to live with that.
func (c *client) insert(table string, w *writer, step int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the driver panicked: %v", r)
		}
	}()
	return c.session.Query("INSERT INTO "+table+" (id, v, n) VALUES (?, ?, ?)", fmt.Sprintf("%s-%d-%d", c.prefix, w.number, step),
		fmt.Sprintf("%s %d/%d", c.prefix, w.number, step), step).Exec()
}

// write writes rows of its own without end, and records what it was told of each.
func (c *client) write(w *writer) {
	defer c.running.Done()
	for step := 1; !c.stop.Load(); step++ {
		time.Sleep(pause)
		table := c.table.Load().(string)
		if err := c.insert(table, w, step); err != nil {
			c.note("?", w, table, step, err)
			continue
		}
		c.note("a", w, table, step, nil)
		w.acknowledged.Add(1)
	}
}

// count waits until every writer got two more answers, so that one of them was asked for after this was called; for 20 s.
func (c *client) count() any {
	var goals [writers]int64
	var sum int64
	for i, w := range c.writers {
		goals[i] = w.acknowledged.Load() + 2
	}
	end := time.Now().Add(20 * time.Second)
	for i, w := range c.writers {
		for w.acknowledged.Load() < goals[i] && time.Now().Before(end) {
			time.Sleep(20 * time.Millisecond)
		}
		sum += w.acknowledged.Load()
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	answer := map[string]any{"acknowledged": sum, "errors": c.errors, "causes": c.causes}
	c.errors, c.causes = 0, map[string]int{}
	c.record.Flush()
	return answer
}

func (c *client) do(text string, values ...any) { must(c.session.Query(text, values...).Exec()) }

// one reads one row; false when there is none.
func (c *client) one(text string, values []any, to ...any) bool {
	err := c.session.Query(text, values...).Scan(to...)
	if err == gocql.ErrNotFound {
		return false
	}
	must(err)
	return true
}

func (c *client) key(name string) []any { return []any{c.prefix + "-" + name} }

// ---- what is tried in each round

// gocql prepares every statement that reads or writes; what goes as text is what a batch has without values.
func (c *client) simple(name string) string {
	var v string
	var n int
	batch := c.session.NewBatch(gocql.LoggedBatch)
	batch.Query("INSERT INTO rows (id, v, n) VALUES ('" + c.prefix + "-simple', '" + name + "''s', 1)")
	batch.Query("INSERT INTO rows (id, v, n) VALUES ('" + c.prefix + "-bound', 'gone', 2)")
	must(c.session.ExecuteBatch(batch))
	c.do("UPDATE rows SET n = 3 WHERE id = '" + c.prefix + "-simple'")
	c.do("DELETE v FROM rows WHERE id = '" + c.prefix + "-bound'")
	c.one("SELECT v, n FROM rows WHERE id = '"+c.prefix+"-simple'", nil, &v, &n)
	check(v == name+"'s" && n == 3, "%s %d", v, n)
	var gone *string
	c.one("SELECT v, n FROM rows WHERE id = '"+c.prefix+"-bound'", nil, &gone, &n)
	check(gone == nil && n == 2, "a deleted value is there")
	return "ok"
}

func (c *client) prepared(name string) string {
	var v string
	var n int
	key := c.prefix + "-prepared"
	c.do("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", key, name, c.begun)
	if c.args["protocol"] != "3" {
		c.do("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", key, gocql.UnsetValue, c.begun+1)
		c.one("SELECT v, n FROM rows WHERE id = ?", []any{key}, &v, &n)
		check(v == name && n == c.begun+1, "unset value: %s %d", v, n)
	}
	c.one(fmt.Sprintf("SELECT v AS r%d FROM rows WHERE id = ?", c.begun), []any{key}, &v)
	same(v, name)
	c.do("INSERT INTO rows (id, n) VALUES (?, ?)", c.prefix+"-gone", 1)
	c.do("DELETE FROM rows WHERE id = ?", c.prefix+"-gone")
	check(!c.one("SELECT n FROM rows WHERE id = ?", c.key("gone"), &n), "a deleted row is there")
	return "ok"
}

func (c *client) batch(name string) string {
	for of, kind := range map[int]gocql.BatchType{2: gocql.LoggedBatch, 3: gocql.UnloggedBatch} {
		batch := c.session.NewBatch(kind)
		for i := 0; i < of; i++ {
			batch.Query("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", fmt.Sprintf("%s-batch%d", c.prefix, i), name, i)
		}
		batch.Query(fmt.Sprintf("UPDATE rows SET v = '%s!' WHERE id = '%s-batch%d'", name, c.prefix, of))
		must(c.session.ExecuteBatch(batch))
		for i := 0; i <= of; i++ {
			var v string
			c.one("SELECT v FROM rows WHERE id = ?", c.key(fmt.Sprintf("batch%d", i)), &v)
			check(v == name && i < of || v == name+"!" && i == of, "batch %d: %s", i, v)
		}
	}
	return "ok"
}

// pages reads page by page from `state`; at most `limit` of them.
func (c *client) pages(state []byte, limit int) (seen []int, pages int, next []byte) {
	for {
		iter := c.session.Query("SELECT i FROM pages WHERE p = ?", c.prefix).PageSize(17).PageState(state).Iter()
		state = iter.PageState()
		for left := iter.NumRows(); left > 0; left-- {
			var i int
			check(iter.Scan(&i), "a row is missing")
			seen = append(seen, i)
		}
		must(iter.Close())
		if pages++; len(state) == 0 || pages == limit {
			return seen, pages, state
		}
	}
}

func (c *client) paging(name string) string {
	all := make([]int, 100)
	for i := range all {
		all[i] = i
		c.do("INSERT INTO pages (p, i, v) VALUES (?, ?, ?)", c.prefix, i, name)
	}
	if c.openPage != nil { // begun in the round before, perhaps at the other cluster
		rest, _, _ := c.pages(c.openPage, 100)
		same(append(c.openSeen, rest...), all)
	}
	c.openSeen, _, c.openPage = c.pages(nil, 1)
	seen, pages, _ := c.pages(nil, 100)
	same(seen, all)
	same(pages, 6)
	iter, n, sum := c.session.Query("SELECT i FROM pages WHERE p = ?", c.prefix).PageSize(17).Iter(), 0, 0
	for iter.Scan(&n) { // over the pages' ends by itself
		sum += n
	}
	must(iter.Close())
	same(sum, 4950)
	return "ok"
}

func (c *client) cas(text string, values ...any) (bool, map[string]any) {
	row := map[string]any{}
	applied, err := c.session.Query(text, values...).MapScanCAS(row)
	must(err)
	return applied, row
}

func (c *client) lwt(name string) string {
	const insert = "INSERT INTO lwt (id, v, n) VALUES (?, ?, ?) IF NOT EXISTS"
	key := c.prefix + "-" + name
	applied, _ := c.cas(insert, key, name, 1)
	check(applied, "the first is not applied")
	applied, row := c.cas(insert, key, "again", 2)
	check(!applied && row["v"] == name, "the second: %v %v", applied, row)
	for _, before := range c.rounds {
		applied, _ = c.cas(insert, c.prefix+"-"+before, "again", 2)
		check(!applied, "the row of round %s is not there", before)
	}
	applied, row = c.cas("UPDATE lwt SET n = 5 WHERE id = ? IF n = ?", key, 4)
	check(!applied && row["n"] == 1, "condition n = 4")
	applied, _ = c.cas("UPDATE lwt SET n = 5 WHERE id = '" + key + "' IF n = 1")
	check(applied, "condition n = 1")
	var n int
	c.one("SELECT n FROM lwt WHERE id = ?", []any{key}, &n)
	same(n, 5)
	return "ok"
}

func (c *client) counter(name string) string {
	const update = "UPDATE counts SET c = c + ? WHERE id = ?"
	key := c.prefix + "-" + name
	for _, by := range []int64{1, 2, 4} {
		c.do(update, by, key)
	}
	batch := c.session.NewBatch(gocql.CounterBatch)
	batch.Query(update, int64(8), key)
	must(c.session.ExecuteBatch(batch))
	for _, of := range append(c.rounds[:len(c.rounds):len(c.rounds)], name) {
		var n int64
		c.one("SELECT c FROM counts WHERE id = ?", c.key(of), &n)
		check(n == 15, "the counter of round %s is %d", of, n)
	}
	return "ok"
}

func (c *client) types(name string) string {
	n := c.begun
	vi, _ := new(big.Int).SetString("-12345678901234567890123456789", 10)
	de, _ := new(inf.Dec).SetString("-123456789.000000000987654321")
	set := []string{"a", "b", name}
	sort.Strings(set)
	names := []string{"a", "bi", "bl", "bo", "da", "de", "dbl", "du", "fl", "ine", "i", "si", "te", "ti", "ts", "tu", "ty", "uu", "vi", "li", "se",
		"ma", "fr", "ud", "nest"}
	values := []any{"ascii", int64(1)<<62 + int64(n), []byte{0, 1, 255}, n%2 == 0, time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC), *de, 0.1 + float64(n),
		gocql.Duration{Months: 13, Days: 1, Nanoseconds: 500}, float32(1.5), net.ParseIP("fd77::1"), -2147483648, int16(-32768), "ümläut ☃ 😀",
		13*time.Hour + 123456789, time.Date(2024, 2, 29, 1, 2, 3, 4000000, time.UTC), gocql.TimeUUID(), int8(-128), gocql.MustRandomUUID(), *vi,
		[]int{3, 1, 2, n}, set, map[string]int{"k": n, "l": 2}, [][]int{{1, 2}, {3}}, place{"Main", n},
		map[string][]place{"x": {{"A", 1}, {"B", n}}}}
	var without []string
	if vectors {
		names, values = append(names, "ve"), append(values, []float32{1.0, -2.5, float32(n) + 0.25})
	} else {
		without = append(without, "vectors")
	}
	if c.args["protocol"] == "3" { // which has no numbers for them
		for i := len(names) - 1; i >= 0; i-- {
			if strings.Contains(" da ti si ty ", " "+names[i]+" ") {
				names, values = append(names[:i], names[i+1:]...), append(values[:i], values[i+1:]...)
			}
		}
		without = append(without, "date, time, smallint, tinyint")
	}
	got := make([]any, len(values))
	for i, v := range values {
		got[i] = reflect.New(reflect.TypeOf(v)).Interface()
	}
	c.do("INSERT INTO kinds (id, "+strings.Join(names, ", ")+") VALUES (?"+strings.Repeat(", ?", len(names))+")", append([]any{c.prefix}, values...)...)
	check(c.one("SELECT "+strings.Join(names, ", ")+" FROM kinds WHERE id = ?", []any{c.prefix}, got...), "no row")
	for i, want := range values {
		have := reflect.ValueOf(got[i]).Elem().Interface()
		check(fmt.Sprint(have) == fmt.Sprint(want), "%s is %v and not %v", names[i], have, want)
	}
	// A tuple's fields are bound and read one by one.
	var first int
	var second string
	var third float64
	c.do("INSERT INTO kinds (id, tup) VALUES (?, (?, ?, ?))", c.prefix+"-tuple", n, "two", 3.0)
	check(c.one("SELECT tup FROM kinds WHERE id = ?", c.key("tuple"), &first, &second, &third), "no row")
	check(first == n && second == "two" && third == 3, "the tuple is %d %s %f", first, second, third)
	if len(without) > 0 {
		return "ok: " + strings.Join(without, ", ")
	}
	return "ok"
}

func (c *client) functions(name string) string {
	var at time.Time
	var u gocql.UUID
	c.do("INSERT INTO rows (id, v, at, u) VALUES (?, ?, toTimestamp(now()), now())", c.prefix+"-functions", name)
	c.one("SELECT at, u FROM rows WHERE id = ?", c.key("functions"), &at, &u)
	check(time.Since(at).Abs() < time.Minute && u.Version() == 1, "%v %v", at, u)
	return "ok"
}

func (c *client) ttl(name string) string {
	var left int
	c.do("INSERT INTO rows (id, v, n) VALUES (?, ?, ?) USING TTL ? AND TIMESTAMP ?", c.prefix+"-ttl", name, 1, 86400, time.Now().UnixMicro())
	c.one("SELECT TTL(v) FROM rows WHERE id = ?", c.key("ttl"), &left)
	check(left > 86300 && left <= 86400, "TTL %d", left)
	return "ok"
}

func (c *client) large(name string) string {
	var got []byte
	body := make([]byte, 300_000)
	for i := range body {
		body[i] = byte(i%1000*(i%1000) + i/251)
	}
	c.do("INSERT INTO big (id, b) VALUES (?, ?)", c.prefix, body)
	c.one("SELECT b FROM big WHERE id = ?", []any{c.prefix}, &got)
	check(bytes.Equal(got, body), "a value of 300 kB came back different")
	return "ok"
}

// together is 200 requests at once on few connections: each has to get its own answer.
func (c *client) together(name string) string {
	errors := make(chan error, 200)
	for i := 0; i < 200; i++ {
		go func() {
			var n int
			key := fmt.Sprintf("%s-many%d", c.prefix, i)
			err := c.session.Query("INSERT INTO rows (id, v, n) VALUES (?, ?, ?)", key, name, i).Exec()
			if err == nil {
				err = c.session.Query("SELECT n FROM rows WHERE id = ?", key).Scan(&n)
			}
			if err == nil && n != i {
				err = fmt.Errorf("answers are mixed up: %d and not %d", n, i)
			}
			errors <- err
		}()
	}
	var first error
	for i := 0; i < 200; i++ {
		if err := <-errors; err != nil {
			first = err
		}
	}
	must(first)
	return "ok"
}

func (c *client) schema(name string) string {
	made := "made_" + c.prefix
	for _, statement := range []string{"CREATE TABLE " + made + " (id int PRIMARY KEY)", "DROP TABLE " + made} {
		c.do(statement)
		end := time.Now().Add(20 * time.Second)
		for {
			keyspace, err := c.session.KeyspaceMetadata(c.other)
			must(err)
			if _, there := keyspace.Tables[made]; there == strings.HasPrefix(statement, "CREATE") {
				break
			}
			check(time.Now().Before(end), "the driver's schema does not follow %s", statement)
			time.Sleep(50 * time.Millisecond)
		}
	}
	return "ok"
}

// seen collects who answered.
type seen struct {
	lock  sync.Mutex
	hosts map[string]bool
}

func (s *seen) ObserveQuery(_ context.Context, q gocql.ObservedQuery) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if q.Err == nil {
		s.hosts[q.Host.ConnectAddress().String()] = true
	}
}

func (c *client) nodes(name string) string {
	who := &seen{hosts: map[string]bool{}}
	for end := time.Now().Add(20 * time.Second); len(who.hosts) < 2; time.Sleep(10 * time.Millisecond) {
		var key string
		must(c.session.Query("SELECT key FROM system.local").Observer(who).Scan(&key))
		if strings.HasPrefix(name, "finish") {
			break
		}
		check(time.Now().Before(end), "nodes that answered: %v", who.hosts)
	}
	return "ok"
}

func (c *client) round(name string) any {
	answer := map[string]string{}
	c.begun++
	for feature, attempt := range map[string]func(string) string{"simple": c.simple, "prepared": c.prepared, "batch": c.batch, "paging": c.paging,
		"lwt": c.lwt, "counter": c.counter, "types": c.types, "functions": c.functions, "ttl": c.ttl, "large": c.large,
		"together": c.together, "schema": c.schema, "nodes": c.nodes} {
		func() {
			defer func() {
				if r := recover(); r != nil {
					answer[feature] = fmt.Sprintf("failed: %.300s", r)
				}
			}()
			answer[feature] = attempt(name)
		}()
	}
	if name != "observe" { // what was written then is on one cluster alone
		c.rounds = append(c.rounds, name)
	}
	return map[string]any{"features": answer}
}

func main() {
	c := &client{args: map[string]string{}, causes: map[string]int{}}
	for i := 1; i+1 < len(os.Args); i += 2 {
		c.args[os.Args[i][2:]] = os.Args[i+1]
	}
	c.prefix, c.other = c.args["prefix"], c.args["keyspace"]+"_b"
	cluster := gocql.NewCluster(strings.Split(c.args["contact"], ",")...)
	fmt.Sscan(c.args["protocol"], &cluster.ProtoVersion)
	cluster.Keyspace, cluster.Timeout, cluster.ConnectTimeout = c.other, 20*time.Second, 20*time.Second
	cluster.Consistency = gocql.LocalOne
	cluster.ReconnectInterval = time.Second
	cluster.Authenticator = gocql.PasswordAuthenticator{Username: c.args["user"], Password: c.args["password"]}
	cluster.Compressor = compressor(c.args["compression"])
	cluster.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(gocql.DCAwareRoundRobinPolicy("dc1"))
	session, err := cluster.CreateSession()
	must(err)
	c.session = session
	file, err := os.Create(c.args["record"])
	must(err)
	c.record = bufio.NewWriter(file)
	c.table.Store(c.other + ".early")
	for n := 0; n < writers; n++ {
		c.writers = append(c.writers, &writer{number: n})
		c.running.Add(1)
		go c.write(c.writers[n])
	}
	out := json.NewEncoder(os.Stdout)
	out.Encode(map[string]int{"protocol": cluster.ProtoVersion})
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		word, rest, _ := strings.Cut(in.Text(), " ")
		if word == "table" {
			c.table.Store(rest)
		}
		if word == "round" {
			out.Encode(c.round(rest))
		} else {
			out.Encode(c.count())
		}
	}
	c.stop.Store(true)
	c.running.Wait()
	must(c.record.Flush())
	must(file.Close())
	session.Close()
}
