/* SPDX-License-Identifier: Apache-2.0 */
/* Acceleration: bytes redirected by sk_msg arrive once, in order, bounded, and only in the socket that they
 * belong to. */
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "bpf/insn.h"
#include "bpf/lab.h"

#define CREDIT 65536

static struct lab_agent agent;

static int setup(void **state)
{
	struct intercept_options options = lab_options();

	(void)state;
	options.acceleration = INTERCEPT_ON;
	options.credit_bytes = CREDIT;
	agent = lab_agent_open(&options);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	lab_agent_close(&agent, INTERCEPT_REMOVE);
	return 0;
}

struct link_ends {
	int client, end;
	struct intercept_origin origin;
};

static struct link_ends link_open(void)
{
	struct link_ends l;
	int code = -1;

	l.client = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(l.client >= 0);
	l.end = lab_accept(&agent, agent.listener, &l.origin, &code);
	assert_int_equal(code, 0);
	assert_non_null(l.origin.slot);
	return l;
}

static void link_close(struct link_ends *l)
{
	close(l->client);
	close(l->end);
	intercept_release(agent.it, l->origin.slot);
}

static uint64_t tcp_bytes_sent(int fd)
{
	struct {
		uint8_t head[104];
		uint64_t rest[32];
	} raw = {0};
	socklen_t size = sizeof(raw);

	/* tcpi_bytes_sent lies beyond what the C library's struct knows: at 200 in linux/tcp.h since 4.19. */
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &raw, &size), 0);
	assert_true(size >= 208);
	return *(uint64_t *)((uint8_t *)&raw + 200);
}

static void test_start_up_probe_says_what_this_kernel_does(void **state)
{
	const char *why = NULL;

	(void)state;
	assert_true(intercept_accelerated(agent.it, &why));
	assert_non_null(strstr(why, "configured on"));
	print_message("acceleration: %s\n", why);
}

/* M2 */
static void test_redirected_bytes_do_not_pass_tcp(void **state)
{
	struct link_ends l = link_open();
	char got[16] = "";
	int pending = 0;

	(void)state;
	assert_int_equal(send(l.client, "hello", 5, 0), 5);
	assert_true(lab_readable(l.end, 1000));
	assert_int_equal(ioctl(l.end, FIONREAD, &pending), 0);
	assert_int_equal(pending, 5);
	assert_int_equal(recv(l.end, got, sizeof(got), MSG_PEEK), 5);
	assert_int_equal(recv(l.end, got, sizeof(got), 0), 5);
	assert_string_equal(got, "hello");
	assert_int_equal(tcp_bytes_sent(l.client), 0);
	assert_int_equal(l.origin.slot->sent, 5);
	/* the answer stays on TCP: nobody could count what the client has read */
	lab_exchange(l.end, l.client, "answer");
	assert_int_equal(tcp_bytes_sent(l.end), 6);
	link_close(&l);
}

/* M5 is the fault, the byte credit is the remedy: an idle agent stops the sender, and not one byte is lost or
 * out of order. */
static void test_credit_bounds_what_an_idle_agent_is_sent(void **state)
{
	struct link_ends l = link_open();
	static uint8_t chunk[4096], got[65536];
	uint64_t sent = 0, received = 0, redirected;

	(void)state;
	for (;;) {
		ssize_t n;

		for (size_t i = 0; i < sizeof(chunk); i++)
			chunk[i] = (uint8_t)((sent + i) * 2654435761u >> 13);
		n = send(l.client, chunk, sizeof(chunk), MSG_NOSIGNAL);
		if (n < 0)
			break;
		sent += (uint64_t)n;
		assert_true(sent < 64u << 20);
	}
	assert_int_equal(errno, EAGAIN);
	redirected = l.origin.slot->sent;
	assert_int_equal(redirected, CREDIT);
	while (received < sent) {
		ssize_t n;

		assert_true(lab_readable(l.end, 2000));
		n = recv(l.end, got, sizeof(got), 0);
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			if (got[i] != (uint8_t)((received + (uint64_t)i) * 2654435761u >> 13))
				fail_msg("byte %llu is wrong",
					 (unsigned long long)received + (unsigned long long)i);
		received += (uint64_t)n;
		intercept_consumed(l.origin.slot, (uint64_t)n);
	}
	/* TCP for good: going back would overtake what TCP still carries */
	lab_exchange(l.client, l.end, "later");
	assert_int_equal(l.origin.slot->sent, redirected);
	assert_true(tcp_bytes_sent(l.client) > 0);
	link_close(&l);
}

static void test_credit_is_given_back_by_reading(void **state)
{
	struct link_ends l = link_open();
	static char chunk[1000], got[1000];

	(void)state;
	for (int i = 0; i < 1000; i++) { /* 15 times the credit */
		assert_int_equal(send(l.client, chunk, sizeof(chunk), 0), sizeof(chunk));
		assert_true(lab_readable(l.end, 1000));
		assert_int_equal(recv(l.end, got, sizeof(got), MSG_WAITALL), sizeof(got));
		intercept_consumed(l.origin.slot, sizeof(got));
	}
	assert_int_equal(l.origin.slot->sent, 1000000);
	assert_int_equal(tcp_bytes_sent(l.client), 0);
	link_close(&l);
}

/*
 * A send that began before the handshake ended goes its old way to the end, over TCP, and no program sees it.
 * The next one must not overtake it (M3).
 */
static void expect_tcp_in_order(int fd, uint64_t before)
{
	struct intercept_origin origin;
	int code = -1, end;
	char got[32] = "";

	assert_int_equal(send(fd, "second", 6, 0), 6);
	end = lab_accept(&agent, agent.listener, &origin, &code);
	assert_int_equal(code, 0);
	assert_true(lab_readable(end, 1000));
	assert_int_equal(recv(end, got, 11, MSG_WAITALL), 11);
	assert_string_equal(got, "firstsecond");
	assert_int_equal(lab_counter(agent.it, "messages_tcp_bytes_before"), before + 1);
	assert_non_null(origin.slot);
	assert_int_equal(origin.slot->sent, 0);
	close(fd);
	close(end);
	intercept_release(agent.it, origin.slot);
}

static void test_bytes_of_a_fast_open_are_not_overtaken(void **state)
{
	struct sockaddr_storage to = lab_address(LAB_CLUSTER4, LAB_PORT);
	uint64_t before = lab_counter(agent.it, "messages_tcp_bytes_before");
	int fd = lab_socket(LAB_POD_A, AF_INET, 0), on = 1;

	(void)state;
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on));
	fcntl(fd, F_SETFL, 0);
	lab_enter(LAB_POD_A);
	lab_write("/proc/sys/net/ipv4/tcp_fastopen", "5"); /* data in the SYN even without a cookie */
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), 0);
	assert_int_equal(send(fd, "first", 5, 0), 5);
	lab_write("/proc/sys/net/ipv4/tcp_fastopen", "1");
	lab_leave();
	expect_tcp_in_order(fd, before);
}

static void *send_first(void *opaque)
{
	return (void *)(intptr_t)send(*(int *)opaque, "first", 5, 0);
}

static void test_bytes_of_a_waiting_sender_are_not_overtaken(void **state)
{
	struct sockaddr_storage to = lab_address(LAB_CLUSTER4, LAB_PORT);
	uint64_t before = lab_counter(agent.it, "messages_tcp_bytes_before");
	int fd = lab_socket(LAB_POD_A, AF_INET, 0);
	pthread_t sender;
	void *sent;

	(void)state;
	/* the SYN is lost once: while it waits for its repetition, a thread begins to send */
	assert_int_equal(
	    lab_run("nft 'add table ip lab; add chain ip lab in { type filter hook input priority 0; }; "
		    "add rule ip lab in iifname h1 tcp flags syn drop'"),
	    0);
	lab_enter(LAB_POD_A);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), -1);
	assert_int_equal(errno, EINPROGRESS);
	lab_leave();
	fcntl(fd, F_SETFL, 0);
	pthread_create(&sender, NULL, send_first, &fd);
	usleep(100000);
	assert_int_equal(lab_run("nft delete table ip lab"), 0);
	pthread_join(sender, &sent);
	assert_int_equal((intptr_t)sent, 5);
	expect_tcp_in_order(fd, before);
}

/* M8 */
static void test_bytes_then_end_of_file(void **state)
{
	struct link_ends l = link_open();
	char got[16] = "";

	(void)state;
	assert_int_equal(send(l.client, "last words", 10, 0), 10);
	close(l.client);
	assert_true(lab_readable(l.end, 1000));
	assert_int_equal(recv(l.end, got, 10, MSG_WAITALL), 10);
	assert_string_equal(got, "last words");
	assert_true(lab_readable(l.end, 1000));
	assert_int_equal(recv(l.end, got, sizeof(got), 0), 0);
	l.client = -1;
	link_close(&l);
}

static void test_agent_that_closes_is_noticed(void **state)
{
	struct link_ends l = link_open();
	ssize_t n = 0;

	(void)state;
	assert_int_equal(send(l.client, "unread", 6, 0), 6);
	close(l.end);
	for (int i = 0; i < 100 && n >= 0; i++) {
		n = send(l.client, "more", 4, MSG_NOSIGNAL);
		usleep(2000);
	}
	assert_int_equal(n, -1);
	assert_true(errno == EPIPE || errno == ECONNRESET);
	l.end = -1;
	link_close(&l);
}

static uint32_t slots_in_use(void)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < ABI_CREDITS; i++)
		used += agent.it->credits[i].owner != 0;
	return used;
}

static void test_slots_come_back(void **state)
{
	struct link_ends l;
	int fd, end;

	(void)state;
	assert_int_equal(slots_in_use(), 0);
	l = link_open();
	assert_int_equal(slots_in_use(), 1);
	link_close(&l);
	assert_int_equal(slots_in_use(), 0);
	/* never accepted by us: the kernel side gives it back */
	fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_int_equal(slots_in_use(), 1);
	close(fd);
	end = lab_take(agent.listener);
	close(end);
	for (int i = 0; i < 500 && slots_in_use(); i++)
		usleep(2000);
	assert_int_equal(slots_in_use(), 0);
}

/* M14: no entry of the agent's end, as when its listener was made outside the agent's cgroup. */
static void test_no_peer_means_tcp(void **state)
{
	struct sockaddr_storage address = lab_local(agent.listener);
	int foreign, fd, end;

	(void)state;
	/* same address and port in a pod's own namespace: nobody enrols that end */
	lab_enter(LAB_POD_B);
	assert_int_equal(lab_run("ip addr add 10.77.1.1/32 dev lo"), 0);
	foreign = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(foreign, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
	assert_int_equal(listen(foreign, 5), 0);
	/* not in the selected cgroup's sight for PASSIVE_ESTABLISHED: leave it by closing the agent's switch
	 * for that end */
	lab_leave();
	uint64_t before = lab_counter(agent.it, "accelerated");
	__atomic_store_n(&agent.it->settings->acceleration, 0, __ATOMIC_RELEASE);
	fd = lab_connect(LAB_POD_B, LAB_CLUSTER4, LAB_PORT);
	__atomic_store_n(&agent.it->settings->acceleration, 1, __ATOMIC_RELEASE);
	assert_true(fd >= 0);
	end = lab_take(foreign);
	assert_true(end >= 0);
	lab_exchange(fd, end, "over TCP");
	assert_int_equal(tcp_bytes_sent(fd), 8);
	assert_int_equal(lab_counter(agent.it, "accelerated"), before);
	close(fd);
	close(end);
	close(foreign);
	lab_enter(LAB_POD_B);
	assert_int_equal(lab_run("ip addr del 10.77.1.1/32 dev lo"), 0);
	lab_leave();
}

static int bound_connect(enum lab_place pod, const char *ip, int port)
{
	int fd = lab_socket(pod, AF_INET, 0), on = 1;
	struct sockaddr_storage source = lab_address(ip, port);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)&source, sizeof(struct sockaddr_in)), 0);
	assert_int_equal(lab_connect_fd(pod, fd, LAB_CLUSTER4, LAB_PORT, 1000), 0);
	return fd;
}

/* Pod B gets pod A's address and one like the agent's: both ends of two connections have the same addresses
 * and ports. */
static void test_equal_tuples_in_two_namespaces_never_cross(void **state)
{
	struct sockaddr_storage address = lab_local(agent.listener);
	int listener_b, client_a, client_b, end_a, end_b, code_a = -1, code_b = -1, on = 1;
	uint64_t accelerated = lab_counter(agent.it, "accelerated");
	struct intercept_origin origin_a, origin_b;
	struct sockaddr_storage tuple_a, tuple_b;

	(void)state;
	lab_enter(LAB_POD_B);
	assert_int_equal(lab_run("ip addr add 10.77.1.1/32 dev lo && ip addr add 10.77.1.2/32 dev lo"), 0);
	lab_leave();
	/* in B's namespace, but the agent's: so that it is enrolled like the real one */
	assert_int_equal(setns(lab.netns[LAB_POD_B], CLONE_NEWNET), 0);
	listener_b = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listener_b, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(listener_b, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
	assert_int_equal(listen(listener_b, 5), 0);
	lab_leave();

	client_a = bound_connect(LAB_POD_A, "10.77.1.2", 41000);
	end_a = lab_accept(&agent, agent.listener, &origin_a, &code_a);
	client_b = bound_connect(LAB_POD_B, "10.77.1.2", 41000);
	end_b = lab_accept(&agent, listener_b, &origin_b, &code_b);
	assert_int_equal(code_a, 0);
	assert_int_equal(code_b, 0);
	tuple_a = lab_peer(end_a);
	tuple_b = lab_peer(end_b);
	assert_string_equal(lab_text(&tuple_a), lab_text(&tuple_b));
	assert_int_not_equal(origin_a.netns_cookie, origin_b.netns_cookie);
	assert_int_equal(lab_counter(agent.it, "accelerated"), accelerated + 2);
	for (int i = 0; i < 50; i++) {
		lab_exchange(client_a, end_a, "this is from pod A");
		lab_exchange(client_b, end_b, "this is from pod B, longer");
		assert_false(lab_readable(end_a, 0));
		assert_false(lab_readable(end_b, 0));
	}
	assert_int_equal(tcp_bytes_sent(client_a), 0);
	assert_int_equal(tcp_bytes_sent(client_b), 0);
	close(client_a);
	close(client_b);
	close(end_a);
	close(end_b);
	intercept_release(agent.it, origin_a.slot);
	intercept_release(agent.it, origin_b.slot);

	/* both under way at once: which destination belongs to which accept cannot be known, so it is not
	 * guessed */
	client_a = bound_connect(LAB_POD_A, "10.77.1.2", 41001);
	client_b = bound_connect(LAB_POD_B, "10.77.1.2", 41001);
	end_a = lab_accept(&agent, agent.listener, &origin_a, &code_a);
	end_b = lab_accept(&agent, listener_b, &origin_b, &code_b);
	assert_int_equal(code_a, -ENOENT);
	assert_int_equal(code_b, -ENOENT);
	assert_int_equal(lab_counter(agent.it, "destination_ambiguous"), 1);
	close(client_a);
	close(client_b);
	close(end_a);
	close(end_b);
	close(listener_b);
	lab_enter(LAB_POD_B);
	assert_int_equal(lab_run("ip addr del 10.77.1.1/32 dev lo && ip addr del 10.77.1.2/32 dev lo"), 0);
	lab_leave();
	for (int i = 0; i < 500 && slots_in_use(); i++)
		usleep(2000);
	assert_int_equal(slots_in_use(), 0);
}

/* Another sockmap user got the client's socket first, with an sk_msg program of its own: ours gets EBUSY and
 * the connection runs on TCP. */
static void test_busy_socket_runs_on_tcp(void **state)
{
	uint64_t busy = lab_counter(agent.it, "accelerate_busy");
	struct link_ends l = {0};
	int map, verdict, sockops, cgroup, code = -1, link;

	(void)state;
	map = bpf_map_create(BPF_MAP_TYPE_SOCKHASH, "other_user", 4, 4, 16, NULL);
	assert_true(map >= 0);
	verdict = insn_msg_that_passes();
	assert_true(verdict >= 0);
	assert_int_equal(bpf_prog_attach(verdict, map, BPF_SK_MSG_VERDICT, 0), 0);
	sockops = insn_sockops_that_enrols(map, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB);
	assert_true(sockops >= 0);
	/* ours is taken off and put back, so that the other's runs first, as if it had been there before us
	 */
	assert_int_equal(intercept_cgroup_remove(agent.it, lab.cgroup[LAB_POD_A], NULL), 0);
	cgroup = open(lab.cgroup[LAB_POD_A], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	link = bpf_link_create(sockops, cgroup, BPF_CGROUP_SOCK_OPS, NULL);
	assert_true(link >= 0);
	assert_int_equal(intercept_cgroup_add(agent.it, lab.cgroup[LAB_POD_A], NULL), 0);

	l.client = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(l.client >= 0);
	l.end = lab_accept(&agent, agent.listener, &l.origin, &code);
	assert_int_equal(code, 0);
	assert_null(l.origin.slot);
	lab_exchange(l.client, l.end, "request over TCP");
	lab_exchange(l.end, l.client, "answer");
	assert_int_equal(tcp_bytes_sent(l.client), 16);
	assert_int_equal(lab_counter(agent.it, "accelerate_busy"), busy + 1);
	link_close(&l);
	close(link);
	close(cgroup);
	close(sockops);
	close(verdict);
	close(map);
	assert_int_equal(slots_in_use(), 0);
}

static void test_no_free_slot_means_tcp(void **state)
{
	uint64_t before = lab_counter(agent.it, "accelerate_no_slot");
	struct intercept_origin origin;
	int code = -1, fd, end;

	(void)state;
	for (uint32_t i = 0; i < ABI_CREDITS; i++)
		agent.it->credits[i].owner = 1;
	fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT);
	assert_true(fd >= 0);
	end = lab_accept(&agent, agent.listener, &origin, &code);
	assert_int_equal(code, 0);
	assert_null(origin.slot);
	lab_exchange(fd, end, "over TCP");
	assert_int_equal(lab_counter(agent.it, "accelerate_no_slot"), before + 1);
	for (uint32_t i = 0; i < ABI_CREDITS; i++)
		agent.it->credits[i].owner = 0;
	close(fd);
	close(end);
}

static void *drain_reader(void *opaque)
{
	struct link_ends *l = opaque;
	char got[16];

	usleep(30000);
	if (recv(l->end, got, sizeof(got), 0) == 6)
		intercept_consumed(l->origin.slot, 6);
	return NULL;
}

static void test_drain_waits_for_unread_bytes(void **state)
{
	struct link_ends l = link_open();
	pthread_t reader;

	(void)state;
	assert_int_equal(send(l.client, "unread", 6, 0), 6);
	assert_int_equal(intercept_drain(agent.it, 20), -ETIMEDOUT);
	pthread_create(&reader, NULL, drain_reader, &l);
	assert_int_equal(intercept_drain(agent.it, 2000), 0);
	pthread_join(reader, NULL);
	/* from now on TCP, on this connection as on new ones */
	lab_exchange(l.client, l.end, "tcp");
	assert_int_equal(tcp_bytes_sent(l.client), 3);
	link_close(&l);
	__atomic_store_n(&agent.it->settings->acceleration, 1, __ATOMIC_RELEASE);
}

struct load {
	struct link_ends l;
	uint64_t total;
	bool wrong;
};

static void *flow_read(void *opaque)
{
	struct load *f = opaque;
	uint64_t at = 0;
	static __thread uint8_t got[32768];

	while (at < f->total) {
		ssize_t n = lab_readable(f->l.end, 5000) ? recv(f->l.end, got, 1 + at % sizeof(got), 0) : -1;

		if (n <= 0) {
			f->wrong = true;
			break;
		}
		for (ssize_t i = 0; i < n; i++)
			f->wrong = f->wrong || got[i] != (uint8_t)((at + (uint64_t)i) * 2654435761u >> 11);
		at += (uint64_t)n;
		intercept_consumed(f->l.origin.slot, (uint64_t)n);
	}
	return NULL;
}

static void *flow_write(void *opaque)
{
	struct load *f = opaque;
	static __thread uint8_t chunk[16384];
	uint64_t at = 0;

	while (at < f->total) {
		size_t size = 1 + (size_t)(at * 40503 % sizeof(chunk));
		struct pollfd p = {.fd = f->l.client, .events = POLLOUT};

		if (size > f->total - at)
			size = f->total - at;
		for (size_t i = 0; i < size; i++)
			chunk[i] = (uint8_t)((at + i) * 2654435761u >> 11);
		for (size_t done = 0; done < size;) {
			ssize_t n = send(f->l.client, chunk + done, size - done, MSG_NOSIGNAL);

			if (n > 0)
				done += (size_t)n;
			else if (errno != EAGAIN || poll(&p, 1, 5000) != 1)
				return NULL;
		}
		at += size;
	}
	return NULL;
}

/* Readers that keep up and readers that do not, so that flows change from redirect to TCP at any byte. */
static void test_streams_stay_whole_whatever_the_pace(void **state)
{
	enum { FLOWS = 8 };
	static struct load flows[FLOWS];
	pthread_t threads[2 * FLOWS];

	(void)state;
	for (int i = 0; i < FLOWS; i++) {
		flows[i].l = link_open();
		flows[i].total = 1500000 + (uint64_t)i * 7777;
		pthread_create(&threads[2 * i], NULL, flow_read, &flows[i]);
		pthread_create(&threads[2 * i + 1], NULL, flow_write, &flows[i]);
	}
	for (int i = 0; i < 2 * FLOWS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < FLOWS; i++) {
		assert_false(flows[i].wrong);
		link_close(&flows[i].l);
	}
	assert_int_equal(slots_in_use(), 0);
}

static int tests(void)
{
	const struct CMUnitTest list[] = {
	    cmocka_unit_test(test_start_up_probe_says_what_this_kernel_does),
	    cmocka_unit_test(test_slots_come_back),
	    cmocka_unit_test(test_redirected_bytes_do_not_pass_tcp),
	    cmocka_unit_test(test_credit_bounds_what_an_idle_agent_is_sent),
	    cmocka_unit_test(test_credit_is_given_back_by_reading),
	    cmocka_unit_test(test_bytes_of_a_fast_open_are_not_overtaken),
	    cmocka_unit_test(test_bytes_of_a_waiting_sender_are_not_overtaken),
	    cmocka_unit_test(test_bytes_then_end_of_file),
	    cmocka_unit_test(test_agent_that_closes_is_noticed),
	    cmocka_unit_test(test_no_peer_means_tcp),
	    cmocka_unit_test(test_equal_tuples_in_two_namespaces_never_cross),
	    cmocka_unit_test(test_busy_socket_runs_on_tcp),
	    cmocka_unit_test(test_no_free_slot_means_tcp),
	    cmocka_unit_test(test_drain_waits_for_unread_bytes),
	    cmocka_unit_test(test_streams_stay_whole_whatever_the_pace),
	};

	return cmocka_run_group_tests(list, setup, teardown);
}

int main(void)
{
	return lab_main(tests);
}
