/* SPDX-License-Identifier: Apache-2.0 */
/* The connect and getpeername hooks: what is steered, what is left alone, what the application sees, what the
 * agent learns. */
#include <bpf/bpf.h>
#include <linux/mptcp.h>
#include <netinet/tcp.h>

#include "bpf/lab.h"

/* The relay has another struct of that name; none of either crosses here. */
#define endpoint relay_endpoint
#include "cutover/course.h"
#undef endpoint

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static struct lab_agent agent;
static int cluster, cluster6;

static int setup(void **state)
{
	struct intercept_options options = lab_options();

	(void)state;
	cluster = lab_listen(LAB_CLUSTER, LAB_CLUSTER4, LAB_PORT);
	cluster6 = lab_listen(LAB_CLUSTER, LAB_CLUSTER6, LAB_PORT);
	agent = lab_agent_open(&options);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	lab_agent_close(&agent, INTERCEPT_REMOVE);
	close(cluster);
	close(cluster6);
	return 0;
}

static void expect_redirect(enum lab_place pod, const char *ip, int listener, const char *asked,
			    const char *peername)
{
	struct intercept_origin origin;
	struct sockaddr_storage peer;
	int fd, end, code = -1;
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);

	fd = lab_connect(pod, ip, LAB_PORT);
	assert_true(fd >= 0);
	peer = lab_peer(fd);
	assert_string_equal(lab_text(&peer), peername);
	end = lab_accept(&agent, listener, &origin, &code);
	assert_int_equal(code, 0);
	assert_string_equal(lab_text(&origin.destination), asked);
	assert_true(lab_pid_is(origin.pid));
	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size);
	assert_int_equal(origin.client_cookie, cookie);
	size = sizeof(cookie);
	getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size);
	assert_int_equal(origin.netns_cookie, cookie);
	lab_exchange(fd, end, "request");
	lab_exchange(end, fd, "response");
	peer = lab_peer(fd);
	assert_string_equal(lab_text(&peer), peername);
	close(end);
	close(fd);
}

static void test_ipv4(void **state)
{
	(void)state;
	expect_redirect(LAB_POD_A, LAB_CLUSTER4, agent.listener, "10.77.3.2:9042", "10.77.3.2:9042");
	expect_redirect(LAB_POD_B, LAB_CLUSTER4, agent.listener, "10.77.3.2:9042", "10.77.3.2:9042");
}

static void test_ipv6(void **state)
{
	(void)state;
	expect_redirect(LAB_POD_A, LAB_CLUSTER6, agent.listener6, "[fd77:3::2]:9042", "[fd77:3::2]:9042");
}

static void test_ipv4_mapped_ipv6(void **state)
{
	(void)state;
	expect_redirect(LAB_POD_A, "::ffff:10.77.3.2", agent.listener, "10.77.3.2:9042",
			"[::ffff:10.77.3.2]:9042");
}

/* The design rests on it: whoever accepts at once finds the destination, every time. */
static void test_entry_is_there_before_accept(void **state)
{
	(void)state;
	for (int i = 0; i < 300; i++) {
		struct intercept_origin origin;
		int code = -1, end, fd = lab_connect(i % 2 ? LAB_POD_A : LAB_POD_B, LAB_CLUSTER4, LAB_PORT);

		assert_true(fd >= 0);
		end = lab_accept(&agent, agent.listener, &origin, &code);
		assert_int_equal(code, 0);
		close(fd);
		close(end);
	}
}

static size_t map_entries(const char *name)
{
	uint8_t key[64], next[64];
	size_t count = 0;
	int fd = loader_map_fd(agent.it, name);

	for (int more = !bpf_map_get_next_key(fd, NULL, next); more;
	     more = !bpf_map_get_next_key(fd, key, next)) {
		memcpy(key, next, sizeof(key));
		count++;
	}
	return count;
}

static void test_entry_goes_with_a_client_that_nobody_accepted(void **state)
{
	int fd, end;

	(void)state;
	fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(fd >= 0);
	assert_int_equal(map_entries("destinations"), 1);
	shutdown(fd, SHUT_RDWR);
	close(fd);
	end = lab_take(agent.listener);
	close(end);
	for (int i = 0; i < 500 && map_entries("destinations"); i++)
		usleep(2000);
	assert_int_equal(map_entries("destinations"), 0);
}

static void test_non_blocking_connect(void **state)
{
	struct sockaddr_storage to = lab_address(LAB_CLUSTER4, LAB_PORT), peer;
	struct intercept_origin origin;
	int fd = lab_socket(LAB_POD_A, AF_INET, 0), code = -1, end;
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	(void)state;
	lab_enter(LAB_POD_A);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), -1);
	assert_int_equal(errno, EINPROGRESS);
	assert_int_equal(poll(&p, 1, 1000), 1);
	/* As many event loops do: ask again by connecting again. */
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), 0);
	lab_leave();
	peer = lab_peer(fd);
	assert_string_equal(lab_text(&peer), "10.77.3.2:9042");
	end = lab_accept(&agent, agent.listener, &origin, &code);
	assert_int_equal(code, 0);
	close(end);
	close(fd);
}

/* A socket that connects again is a new connection: nothing of the first may stick. */
static void test_second_connect_of_one_socket(void **state)
{
	struct sockaddr unspec = {.sa_family = AF_UNSPEC};
	struct intercept_origin origin;
	struct sockaddr_storage peer;
	int fd, code = -1, end, other;

	(void)state;
	other = lab_listen(LAB_CLUSTER, LAB_CLUSTER4, 9999);
	fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(fd >= 0);
	end = lab_accept(&agent, agent.listener, &origin, &code);
	assert_int_equal(code, 0);
	close(end);
	assert_int_equal(connect(fd, &unspec, sizeof(unspec)), 0);

	/* not watched now */
	assert_int_equal(lab_connect_fd(LAB_POD_A, fd, LAB_CLUSTER4, 9999, 1000), 0);
	peer = lab_peer(fd);
	assert_string_equal(lab_text(&peer), "10.77.3.2:9999");
	end = lab_take(other);
	assert_true(end >= 0);
	lab_exchange(fd, end, "direct");
	close(end);
	close(other);

	/* and watched again, another one */
	lab_watch(agent.it, "10.77.2.2", -1);
	assert_int_equal(connect(fd, &unspec, sizeof(unspec)), 0);
	assert_int_equal(lab_connect_fd(LAB_POD_A, fd, "10.77.2.2", LAB_PORT, 1000), 0);
	peer = lab_peer(fd);
	assert_string_equal(lab_text(&peer), "10.77.2.2:9042");
	end = lab_accept(&agent, agent.listener, &origin, &code);
	assert_int_equal(code, 0);
	assert_string_equal(lab_text(&origin.destination), "10.77.2.2:9042");
	close(end);
	close(fd);
}

static void test_fast_open(void **state)
{
	struct sockaddr_storage to = lab_address(LAB_CLUSTER4, LAB_PORT), peer;
	struct intercept_origin origin;
	int fd = lab_socket(LAB_POD_A, AF_INET, 0), on = 1, code = -1, end;
	char got[16] = "";

	(void)state;
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on));
	fcntl(fd, F_SETFL, 0);
	lab_enter(LAB_POD_A);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), 0);
	assert_int_equal(send(fd, "hello", 5, MSG_NOSIGNAL), 5);
	lab_leave();
	peer = lab_peer(fd);
	assert_string_equal(lab_text(&peer), "10.77.3.2:9042");
	end = lab_accept(&agent, agent.listener, &origin, &code);
	assert_int_equal(code, 0);
	assert_true(lab_readable(end, 1000));
	assert_int_equal(recv(end, got, sizeof(got), 0), 5);
	assert_string_equal(got, "hello");
	close(end);
	close(fd);
}

static void test_udp_is_left_alone(void **state)
{
	struct sockaddr_storage to = lab_address(LAB_CLUSTER4, LAB_PORT), peer = {0};
	uint64_t before = lab_counter(agent.it, "redirected");
	socklen_t size = sizeof(peer);
	int fd;

	(void)state;
	lab_enter(LAB_POD_A);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), 0);
	getpeername(fd, (struct sockaddr *)&peer, &size);
	lab_leave();
	assert_string_equal(lab_text(&peer), "10.77.3.2:9042");
	assert_int_equal(lab_counter(agent.it, "redirected"), before);
	assert_int_equal(lab_counter(agent.it, "peernames"), lab_counter(agent.it, "peernames"));
	close(fd);
}

static void test_mptcp_is_left_alone_and_counted_once(void **state)
{
	uint64_t before =
	    lab_counter(agent.it, "bypassed_mptcp") + lab_counter(agent.it, "bypassed_hook_missed");
	uint64_t redirected = lab_counter(agent.it, "redirected");
	int fd = lab_socket(LAB_POD_A, AF_INET, IPPROTO_MPTCP), end;
	uint64_t after;

	(void)state;
	if (fd < 0)
		skip();
	assert_int_equal(lab_connect_fd(LAB_POD_A, fd, LAB_CLUSTER4, LAB_PORT, 1000), 0);
	end = lab_take(cluster);
	assert_true(end >= 0);
	lab_exchange(fd, end, "through MPTCP");
	after = lab_counter(agent.it, "bypassed_mptcp") + lab_counter(agent.it, "bypassed_hook_missed");
	assert_int_equal(after, before + 1);
	assert_int_equal(lab_counter(agent.it, "redirected"), redirected);
	assert_true(intercept_bypassed(agent.it, NULL, NULL) >= 1);
	close(end);
	close(fd);
}

static void test_agents_own_dials_are_left_alone(void **state)
{
	uint32_t mark = intercept_mark(agent.it);
	int fd, end;

	(void)state;
	/* by mark, even out of a selected cgroup */
	fd = lab_socket(LAB_POD_A, AF_INET, 0);
	setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	assert_int_equal(lab_connect_fd(LAB_POD_A, fd, LAB_CLUSTER4, LAB_PORT, 1000), 0);
	end = lab_take(cluster);
	assert_true(end >= 0);
	close(end);
	close(fd);
	assert_true(lab_counter(agent.it, "own") >= 1);
	/* by cgroup */
	assert_string_equal(lab_where(&agent, LAB_POD_B, cluster), "agent");
	assert_int_equal(intercept_exclude_cgroup(agent.it, lab.cgroup[LAB_POD_B], NULL), 0);
	assert_string_equal(lab_where(&agent, LAB_POD_B, cluster), "cluster");
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	struct excluded_key key;
	uint64_t id;
	assert_int_equal(cgroup_id(lab.cgroup[LAB_POD_B], &id), 0);
	key.cgroup = id;
	assert_int_equal(bpf_map_delete_elem(loader_map_fd(agent.it, "excluded"), &key), 0);
	/* who is not selected is not even seen, nor is what the agent dials from its own cgroup without the
	 * mark */
	uint64_t missed = lab_counter(agent.it, "bypassed_hook_missed");
	assert_string_equal(lab_where(&agent, LAB_HOST, cluster), "cluster");
	assert_int_equal(lab_counter(agent.it, "bypassed_hook_missed"), missed);
}

static void test_watch_list(void **state)
{
	struct sockaddr_storage network = lab_address("10.77.0.0", LAB_PORT),
				host = lab_address(LAB_CLUSTER4, LAB_PORT);
	struct error e = {""};

	(void)state;
	assert_int_equal(intercept_watch_del(agent.it, (struct sockaddr *)&host, -1), 0);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "cluster");
	assert_int_equal(
	    intercept_watch_add(agent.it, (struct sockaddr *)&network, 16, INTERCEPT_SERVICE, &e), 0);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	assert_int_equal(intercept_watch_except(agent.it, (struct sockaddr *)&host, -1, &e), 0);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "cluster");
	assert_int_equal(intercept_watch_del(agent.it, (struct sockaddr *)&host, -1), 0);
	assert_int_equal(intercept_watch_del(agent.it, (struct sockaddr *)&network, 16), 0);
	assert_int_equal(intercept_watch_del(agent.it, (struct sockaddr *)&network, 16), -ENOENT);
	lab_watch(agent.it, LAB_CLUSTER4, -1);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	/* bad values are named */
	((struct sockaddr_in *)&host)->sin_port = 0;
	assert_int_equal(
	    intercept_watch_add(agent.it, (struct sockaddr *)&host, -1, INTERCEPT_CONFIGURED, &e), -EINVAL);
	assert_non_null(strstr(e.text, "10.77.3.2"));
	assert_int_equal(
	    intercept_watch_add(agent.it, (struct sockaddr *)&network, 33, INTERCEPT_CONFIGURED, &e),
	    -EINVAL);
	assert_non_null(strstr(e.text, "/33"));
}

static void test_watch_list_has_a_bound(void **state)
{
	struct error e = {""};
	int code = 0, added = 0;

	(void)state;
	for (uint32_t i = 0; i <= INTERCEPT_MAX_WATCH && !code; i++) {
		struct sockaddr_in a = {.sin_family = AF_INET,
					.sin_port = htons(1234),
					.sin_addr.s_addr = htonl(0xc6120000u + i)};

		code = intercept_watch_add(agent.it, (struct sockaddr *)&a, -1, INTERCEPT_LEARNED, &e);
		added += !code;
	}
	assert_int_equal(code, -E2BIG);
	assert_non_null(strstr(e.text, "full"));
	while (added--) {
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(1234)};

		a.sin_addr.s_addr = htonl(0xc6120000u + (uint32_t)added);
		intercept_watch_del(agent.it, (struct sockaddr *)&a, -1);
	}
}

/* Same namespace, same 4-tuple, and an entry that should have been removed: it must not name the new client's
 * destination. */
static void test_reused_tuple_with_a_stale_entry(void **state)
{
	struct intercept_origin origin;
	struct destination stale = {.credit_slot = -1, .client_cookie = 1};
	struct way way = {0};
	struct sockaddr_storage local;
	uint64_t before = lab_counter(agent.it, "destination_stale");
	int fd = lab_socket(LAB_POD_A, AF_INET, 0), code = -1, end, on = 1;
	struct sockaddr_storage source = lab_address("10.77.1.2", 40123),
				wrong = lab_address("10.77.3.99", 1);

	(void)state;
	socklen_t size = sizeof(stale.netns);
	getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &stale.netns, &size);
	stale.established_ns = clock_now_ns();
	endpoint_from_sockaddr(&stale.asked, (struct sockaddr *)&wrong);
	endpoint_from_sockaddr(&way.client, (struct sockaddr *)&source);
	endpoint_from_sockaddr(&way.agent, (struct sockaddr *)&agent.address);
	assert_int_equal(bpf_map_update_elem(loader_map_fd(agent.it, "destinations"), &way, &stale, BPF_ANY),
			 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)&source, sizeof(struct sockaddr_in)), 0);
	assert_int_equal(lab_connect_fd(LAB_POD_A, fd, LAB_CLUSTER4, LAB_PORT, 1000), 0);
	local = lab_local(fd);
	assert_string_equal(lab_text(&local), "10.77.1.2:40123");
	end = lab_accept(&agent, agent.listener, &origin, &code);
	assert_int_equal(code, 0);
	assert_string_equal(lab_text(&origin.destination), "10.77.3.2:9042");
	assert_int_equal(lab_counter(agent.it, "destination_stale"), before + 1);
	close(end);
	close(fd);
}

static void test_unknown_destination_is_refused(void **state)
{
	struct intercept_origin origin;
	int fd, end, code = 0;

	(void)state;
	fd = lab_connect(LAB_HOST, "10.77.1.1", ntohs(((struct sockaddr_in *)&agent.address)->sin_port));
	assert_true(fd >= 0);
	end = lab_accept(&agent, agent.listener, &origin, &code);
	assert_int_equal(code, -ENOENT);
	close(end);
	close(fd);
}

static void test_kernel_direct(void **state)
{
	struct sockaddr_storage target = lab_address("10.77.2.1", 7777),
				target6 = lab_address("fd77:2::1", 7777), peer;
	const struct sockaddr *targets[2] = {(struct sockaddr *)&target, (struct sockaddr *)&target6};
	int listener = lab_listen(LAB_HOST, "10.77.2.1", 7777),
	    listener6 = lab_listen(LAB_HOST, "fd77:2::1", 7777);
	static const struct {
		const char *ip, *peername;
		int six;
	} rows[] = {{LAB_CLUSTER4, "10.77.3.2:9042", 0},
		    {"::ffff:10.77.3.2", "[::ffff:10.77.3.2]:9042", 0},
		    {LAB_CLUSTER6, "[fd77:3::2]:9042", 1}};
	struct error e = {""};

	(void)state;
	assert_int_equal(intercept_set_direct(agent.it, targets, 2, &e), 0);
	assert_int_equal(intercept_set_phase(agent.it, INTERCEPT_FINISH), 0);
	lab_forget_carried(agent.it);
	for (size_t i = 0; i < 3; i++) {
		int fd = lab_connect(LAB_POD_A, rows[i].ip, LAB_PORT), end;

		assert_true(fd >= 0);
		end = lab_take(rows[i].six ? listener6 : listener);
		assert_true(end >= 0);
		peer = lab_peer(fd);
		assert_string_equal(lab_text(&peer), rows[i].peername);
		lab_exchange(fd, end, "to the target");
		close(end);
		close(fd);
	}
	assert_int_equal(lab_counter(agent.it, "direct"), 3);
	assert_int_equal(intercept_set_direct(agent.it, NULL, 0, &e), 0);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	/* From now on this process stays there, whatever it asks for. */
	assert_int_equal(intercept_set_direct(agent.it, targets, 2, &e), 0);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	assert_string_equal(lab_where(&agent, LAB_POD_B, cluster), "agent");
	assert_int_equal(lab_counter(agent.it, "direct"), 3);
	assert_int_equal(intercept_set_direct(agent.it, NULL, 0, &e), 0);
	assert_int_equal(intercept_set_phase(agent.it, INTERCEPT_OBSERVE), 0);
	close(listener);
	close(listener6);
}

static void allow_nothing(struct relay *r)
{
	r->options.kernel_direct = false;
}

static void configure_auth(struct relay *r)
{
	r->options.configured_auth = true;
}

static void speak_tls_to_the_target(struct relay *r)
{
	r->options.cluster[TARGET].tls = (void *)r; /* only whether there is one counts */
}

static void speak_tls_to_clients(struct relay *r)
{
	r->options.client_tls = (void *)r;
}

/* The target nodes are pinned: an agent whose configuration forbids them takes those of the one before away. */
static void test_forbidden_kernel_direct_is_taken_away(void **state)
{
	static void (*const forbid[])(struct relay *r) = {allow_nothing, configure_auth, speak_tls_to_the_target,
							  speak_tls_to_clients};
	struct addr target = {0};
	struct relay *r = calloc(1, sizeof(*r));
	int listener = lab_listen(LAB_HOST, "10.77.2.1", 7777);

	(void)state;
	assert_non_null(r);
	target.storage = lab_address("10.77.2.1", 7777);
	for (size_t i = 0; i < sizeof(forbid) / sizeof(*forbid); i++) {
		int fd;

		memset(r, 0, sizeof(*r));
		r->intercept = agent.it;
		r->options.kernel_direct = true;
		r->options.cluster[TARGET].nodes[0] = target;
		r->options.cluster[TARGET].node_count = 1;
		phase_tell_kernel(r, PHASE_FINISH);
		lab_forget_carried(agent.it);
		fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
		assert_true(fd >= 0);
		close(lab_take(listener));
		close(fd);
		forbid[i](r);
		phase_tell_kernel(r, PHASE_FINISH);
		assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	}
	assert_int_equal(intercept_set_phase(agent.it, INTERCEPT_OBSERVE), 0);
	close(listener);
	free(r);
}

static void test_kill_switch(void **state)
{
	struct error e = {""};
	const char *why;

	(void)state;
	assert_int_equal(intercept_switch_pinned(NULL, false, &e), 0);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "cluster");
	/* off is a gap, too: counted */
	assert_int_equal(lab_counter(agent.it, "bypassed_switched_off"), 1);
	assert_int_equal(intercept_switch(agent.it, true), 0);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	/* the documented line, exactly as docs/inspect.md has it */
	assert_int_equal(
	    lab_run("bpftool map update pinned /sys/fs/bpf/cqlferry/v%d/power key 0 0 0 0 value 0 0 0 0",
		    ABI_LAYOUT),
	    0);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "cluster");
	assert_int_equal(
	    lab_run("bpftool map update pinned /sys/fs/bpf/cqlferry/v%d/power key 0 0 0 0 value 1 0 0 0",
		    ABI_LAYOUT),
	    0);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	assert_false(intercept_accelerated(agent.it, &why));
	assert_string_equal(why, "configured off");
}

struct seen {
	unsigned kinds[8];
	struct intercept_event last;
};

static void see(void *opaque, const struct intercept_event *event)
{
	struct seen *seen = opaque;

	seen->kinds[event->kind]++;
	seen->last = *event;
}

static void test_one_event_for_each_redirect(void **state)
{
	struct seen seen = {0};
	struct pollfd p = {.fd = intercept_events_fd(agent.it), .events = POLLIN};
	struct intercept_totals before, after;

	(void)state;
	intercept_events_poll(agent.it, see, &seen);
	memset(&seen, 0, sizeof(seen));
	intercept_get_totals(agent.it, &before);
	for (int i = 0; i < 3; i++)
		assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	assert_int_equal(poll(&p, 1, 1000), 1);
	assert_int_equal(intercept_events_poll(agent.it, see, &seen), 3);
	assert_int_equal(seen.kinds[INTERCEPT_EVENT_REDIRECTED], 3);
	assert_string_equal(seen.last.cause, "agent serves");
	assert_string_equal(lab_text(&seen.last.destination), "10.77.3.2:9042");
	assert_string_equal(lab_text(&seen.last.steered), lab_text(&agent.address));
	assert_string_equal(seen.last.program, lab_program());
	assert_true(lab_pid_is(seen.last.pid));
	intercept_get_totals(agent.it, &after);
	assert_int_equal(after.redirected, before.redirected + 3);
}

static void test_steered_ends_with_its_connection(void **state)
{
	int fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(intercept_steered(agent.it, NULL, NULL), 1);
	close(lab_take(agent.listener));
	close(fd);
	for (int i = 0; i < 500 && intercept_steered(agent.it, NULL, NULL); i++)
		usleep(2000);
	assert_int_equal(intercept_steered(agent.it, NULL, NULL), 0);
}

/* ---- every table at its end: a counter, a clear outcome, no harm to others */

static void fill(const char *map, size_t key_size, size_t value_size, size_t count)
{
	uint8_t key[64] = {0}, value[256] = {0};

	assert_true(key_size <= sizeof(key) && value_size <= sizeof(value));
	for (size_t i = 0; i < count; i++) {
		memcpy(key + key_size - 4, &(uint32_t){(uint32_t)i + 0x10000}, 4);
		if (bpf_map_update_elem(loader_map_fd(agent.it, map), key, value, BPF_ANY))
			break;
	}
}

static void empty(const char *map)
{
	uint8_t key[64];

	while (!bpf_map_get_next_key(loader_map_fd(agent.it, map), NULL, key))
		bpf_map_delete_elem(loader_map_fd(agent.it, map), key);
}

static void test_full_table_of_destinations(void **state)
{
	(void)state;
	fill("destinations", sizeof(struct way), sizeof(struct destination), ABI_DESTINATIONS);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "unattributed");
	assert_int_equal(lab_counter(agent.it, "destination_full"), 1);
	empty("destinations");
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
}

static void test_full_table_of_bypassing_connections(void **state)
{
	(void)state;
	fill("bypassed", sizeof(struct flow_key), sizeof(struct flow), ABI_BYPASSED);
	intercept_switch(agent.it, false);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "cluster");
	intercept_switch(agent.it, true);
	assert_int_equal(lab_counter(agent.it, "bypass_untracked"), 1);
	empty("bypassed");
}

static void test_full_table_of_steered_connections(void **state)
{
	(void)state;
	fill("steered", sizeof(struct flow_key), sizeof(struct flow), ABI_STEERED);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
	assert_int_equal(lab_counter(agent.it, "steered_untracked"), 1);
	empty("steered");
}

static void test_full_ring_of_events(void **state)
{
	int closed = agent.listener;

	(void)state;
	agent.listener = -1;
	close(closed);
	intercept_set_phase(agent.it, INTERCEPT_CUTOVER);
	lab_enter(LAB_POD_A);
	for (int i = 0; i < 12000 && !lab_counter(agent.it, "events_lost"); i++) {
		struct sockaddr_storage to = lab_address(LAB_CLUSTER4, LAB_PORT);
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), -1);
		assert_int_equal(errno, ECONNREFUSED);
		close(fd);
	}
	lab_leave();
	assert_true(lab_counter(agent.it, "events_lost") >= 1);
	assert_true(lab_counter(agent.it, "refused_agent_gone") >= 5000);
	intercept_set_phase(agent.it, INTERCEPT_OBSERVE);
	agent.listener =
	    lab_listen(LAB_HOST, "10.77.1.1", ntohs(((struct sockaddr_in *)&agent.address)->sin_port));
	struct seen seen = {0};
	assert_true(intercept_events_poll(agent.it, see, &seen) > 5000);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
}

static void test_full_list_of_excluded_cgroups(void **state)
{
	struct error e = {""};
	int code;

	(void)state;
	fill("excluded", sizeof(struct excluded_key), sizeof(struct excluded), ABI_EXCLUDED);
	code = intercept_exclude_cgroup(agent.it, lab.cgroup[LAB_CLUSTER], &e);
	assert_int_equal(code, -E2BIG);
	assert_non_null(strstr(e.text, "full"));
	empty("excluded");
}

static int tests(void)
{
	const struct CMUnitTest list[] = {
	    cmocka_unit_test(test_ipv4),
	    cmocka_unit_test(test_ipv6),
	    cmocka_unit_test(test_ipv4_mapped_ipv6),
	    cmocka_unit_test(test_entry_is_there_before_accept),
	    cmocka_unit_test(test_entry_goes_with_a_client_that_nobody_accepted),
	    cmocka_unit_test(test_non_blocking_connect),
	    cmocka_unit_test(test_second_connect_of_one_socket),
	    cmocka_unit_test(test_fast_open),
	    cmocka_unit_test(test_udp_is_left_alone),
	    cmocka_unit_test(test_mptcp_is_left_alone_and_counted_once),
	    cmocka_unit_test(test_agents_own_dials_are_left_alone),
	    cmocka_unit_test(test_watch_list),
	    cmocka_unit_test(test_watch_list_has_a_bound),
	    cmocka_unit_test(test_reused_tuple_with_a_stale_entry),
	    cmocka_unit_test(test_unknown_destination_is_refused),
	    cmocka_unit_test(test_kernel_direct),
	    cmocka_unit_test(test_forbidden_kernel_direct_is_taken_away),
	    cmocka_unit_test(test_kill_switch),
	    cmocka_unit_test(test_one_event_for_each_redirect),
	    cmocka_unit_test(test_steered_ends_with_its_connection),
	    cmocka_unit_test(test_full_table_of_destinations),
	    cmocka_unit_test(test_full_table_of_bypassing_connections),
	    cmocka_unit_test(test_full_table_of_steered_connections),
	    cmocka_unit_test(test_full_ring_of_events),
	    cmocka_unit_test(test_full_list_of_excluded_cgroups),
	};

	return cmocka_run_group_tests(list, setup, teardown);
}

int main(void)
{
	return lab_main(tests);
}
