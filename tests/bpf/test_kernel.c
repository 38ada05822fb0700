/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts about the kernel that the design rests on, each with a program of its own instead of ours: what
 * redirected bytes do and do not. Where such a test fails on another kernel, the rule that it supports has to
 * be looked at again (the row names are of the design's table of measurements). FIONREAD (M1) may be right or
 * wrong on a kernel; what is tested is that our probe says which.
 */
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <sys/ioctl.h>

#include "bpf/insn.h"
#include "bpf/lab.h"

/* One loopback connection; sender and receiver in sockhashes of their own, as our clients and the agent are.
 */
struct stage {
	int sender, receiver, senders, receivers, program;
};

static void stage_open(struct stage *s)
{
	struct sockaddr_storage address;
	int listener;

	memset(s, 0, sizeof(*s));
	listener = lab_listen(LAB_HOST, "127.0.0.1", 0);
	address = lab_local(listener);
	s->sender = lab_socket(LAB_HOST, AF_INET, 0);
	assert_int_equal(lab_connect_fd(LAB_HOST, s->sender, "127.0.0.1",
					ntohs(((struct sockaddr_in *)&address)->sin_port), 1000),
			 0);
	s->receiver = lab_take(listener);
	close(listener);
	s->senders = bpf_map_create(BPF_MAP_TYPE_SOCKHASH, "senders", 4, 8, 4, NULL);
	s->receivers = bpf_map_create(BPF_MAP_TYPE_SOCKHASH, "receivers", 4, 8, 4, NULL);
	s->program = insn_msg_that_redirects(s->receivers);
	assert_true(s->senders >= 0 && s->receivers >= 0 && s->program >= 0);
	assert_int_equal(bpf_prog_attach(s->program, s->senders, BPF_SK_MSG_VERDICT, 0), 0);
}

static void enrol(int map, int fd)
{
	uint64_t value = (uint64_t)fd;
	uint32_t key = 0;

	assert_int_equal(bpf_map_update_elem(map, &key, &value, BPF_ANY), 0);
}

static void stage_close(struct stage *s)
{
	close(s->sender);
	close(s->receiver);
	close(s->senders);
	close(s->receivers);
	close(s->program);
}

static void expect_read(int fd, const char *text)
{
	size_t size = strlen(text), got = 0;
	char buffer[64] = "";

	while (got < size && lab_readable(fd, 500)) {
		ssize_t n = recv(fd, buffer + got, size - got, 0);

		if (n <= 0)
			break;
		got += (size_t)n;
	}
	assert_string_equal(buffer, text);
}

static void give(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static int pending(int fd)
{
	int bytes = -1;

	ioctl(fd, FIONREAD, &bytes);
	return bytes;
}

/* M1: what our own probe decides `auto` by must be what a socket in a map really shows. */
static void test_fionread_is_what_the_probe_says(void **state)
{
	struct intercept_options options = lab_options();
	struct intercept *it = NULL;
	struct error e = {""};
	struct stage s;
	const char *why;
	bool right, on;

	(void)state;
	stage_open(&s);
	enrol(s.senders, s.sender);
	give(s.receiver, "12345"); /* over TCP, to a socket that is in a map with an sk_msg program */
	assert_true(lab_readable(s.sender, 1000));
	right = pending(s.sender) == 5;
	expect_read(s.sender, "12345");
	stage_close(&s);

	options.acceleration = INTERCEPT_AUTO;
	assert_int_equal(intercept_open(&options, &it, &e), 0);
	on = intercept_accelerated(it, &why);
	print_message("FIONREAD %s; auto is %s (%s)\n", right ? "right" : "0", on ? "on" : "off", why);
	assert_int_equal(on, right);
	intercept_close(it, INTERCEPT_REMOVE);
}

/* M2 */
static void test_redirected_bytes_can_be_polled_peeked_and_counted(void **state)
{
	struct stage s;
	char got[8] = "";

	(void)state;
	stage_open(&s);
	enrol(s.senders, s.sender);
	enrol(s.receivers, s.receiver);
	give(s.sender, "abc");
	assert_true(lab_readable(s.receiver, 1000));
	assert_int_equal(pending(s.receiver), 3);
	assert_int_equal(recv(s.receiver, got, 8, MSG_PEEK), 3);
	assert_int_equal(recv(s.receiver, got, 8, 0), 3);
	assert_false(lab_readable(s.receiver, 0));
	stage_close(&s);
}

/* M3: the fault that forces our rule. If a kernel mends it, the rule still holds: then this test only says
 * so. */
static void test_redirected_bytes_overtake_unread_tcp_bytes(void **state)
{
	char got[8] = "";
	struct stage s;

	(void)state;
	stage_open(&s);
	give(s.sender, "A");
	assert_true(lab_readable(s.receiver, 1000));
	enrol(s.senders, s.sender);
	enrol(s.receivers, s.receiver);
	give(s.sender, "B");
	assert_int_equal(recv(s.receiver, got, 1, 0), 1);
	assert_int_equal(recv(s.receiver, got + 1, 1, 0), 1);
	print_message("A over TCP, then B redirected: read as %s\n", got);
	assert_true(!strcmp(got, "BA") || !strcmp(got, "AB"));
	stage_close(&s);
}

/* M4: the only change of way that our rule allows. */
static void test_redirect_then_tcp_keeps_the_order(void **state)
{
	uint32_t key = 0;
	struct stage s;

	(void)state;
	stage_open(&s);
	enrol(s.senders, s.sender);
	enrol(s.receivers, s.receiver);
	give(s.sender, "A");
	assert_int_equal(bpf_map_delete_elem(s.senders, &key), 0); /* from here on its sends are plain TCP */
	give(s.sender, "B");
	give(s.sender, "C");
	expect_read(s.receiver, "ABC");
	stage_close(&s);
}

/* M5: why there is a byte credit. */
static void test_redirect_has_no_backpressure(void **state)
{
	static char chunk[65536];
	uint64_t sent = 0;
	struct stage s;

	(void)state;
	stage_open(&s);
	enrol(s.senders, s.sender);
	enrol(s.receivers, s.receiver);
	while (sent < 16u << 20) {
		ssize_t n = send(s.sender, chunk, sizeof(chunk), MSG_NOSIGNAL);

		if (n < 0)
			break;
		sent += (uint64_t)n;
	}
	print_message("an idle receiver was sent %llu KiB\n", (unsigned long long)sent >> 10);
	assert_true(sent >= 8u << 20);
	stage_close(&s);
}

/* M6: why nothing is ever taken out of a map while bytes may be unread (drain first). */
static void test_deleting_the_receiver_loses_unread_bytes(void **state)
{
	uint32_t key = 0;
	struct stage s;

	(void)state;
	stage_open(&s);
	enrol(s.senders, s.sender);
	enrol(s.receivers, s.receiver);
	give(s.sender, "lost");
	assert_int_equal(bpf_map_delete_elem(s.receivers, &key), 0);
	give(s.sender,
	     "kept"); /* no peer any more: SK_DROP from the helper, SK_PASS from the program, so TCP */
	expect_read(s.receiver, "kept");
	stage_close(&s);
}

/* M7: why behaviour is steered by map values and not by another program. */
static void test_a_socket_keeps_its_program(void **state)
{
	int passes = insn_msg_that_passes();
	struct stage s;

	(void)state;
	stage_open(&s);
	enrol(s.senders, s.sender);
	enrol(s.receivers, s.receiver);
	assert_int_equal(bpf_prog_attach(passes, s.senders, BPF_SK_MSG_VERDICT, 0), 0);
	give(s.sender, "x");
	assert_int_equal(pending(s.receiver), 1); /* there at once and counted: still redirected */
	expect_read(s.receiver, "x");
	close(passes);
	stage_close(&s);
}

/* M8 */
static void test_end_of_file_after_redirected_bytes(void **state)
{
	char got[8];

	(void)state;
	for (int shut = 0; shut < 2; shut++) {
		struct stage s;

		stage_open(&s);
		enrol(s.senders, s.sender);
		enrol(s.receivers, s.receiver);
		give(s.sender, "bye");
		if (shut) {
			shutdown(s.sender, SHUT_WR);
		} else {
			close(s.sender);
			s.sender = -1;
		}
		expect_read(s.receiver, "bye");
		assert_true(lab_readable(s.receiver, 1000));
		assert_int_equal(recv(s.receiver, got, sizeof(got), 0), 0);
		stage_close(&s);
	}
}

/* M10: why the agent must not splice() from an accelerated socket. */
static void test_splice_does_not_see_redirected_bytes(void **state)
{
	int ends[2];
	struct stage s;
	ssize_t n;

	(void)state;
	stage_open(&s);
	enrol(s.senders, s.sender);
	enrol(s.receivers, s.receiver);
	give(s.sender, "abc");
	assert_int_equal(pipe(ends), 0);
	fcntl(s.receiver, F_SETFL, O_NONBLOCK); /* on a blocking socket it would hang */
	n = splice(s.receiver, NULL, ends[1], NULL, 3, SPLICE_F_NONBLOCK);
	print_message("splice: %zd\n", n);
	if (n < 0)
		expect_read(s.receiver, "abc");
	close(ends[0]);
	close(ends[1]);
	stage_close(&s);
}

/* M14 */
static void test_absent_peer_falls_back_to_tcp(void **state)
{
	struct stage s;

	(void)state;
	stage_open(&s);
	enrol(s.senders, s.sender);
	give(s.sender, "by TCP");
	expect_read(s.receiver, "by TCP");
	stage_close(&s);
}

/* M15: our link is taken over in place although a parent's programs stand beside it. */
static void test_link_update_hits_its_own_slot(void **state)
{
	struct bpf_insn one[] = {INSN_MOV_IMM(0, 1), INSN_EXIT};
	int parent = open(lab.base, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
	    child = open(lab.cgroup[LAB_POD_A], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	LIBBPF_OPTS(bpf_prog_load_opts, load, .expected_attach_type = BPF_CGROUP_INET4_CONNECT);
	int programs[3], links[2];
	__u32 ids[8], count = 8, expected[3];

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct bpf_prog_info info = {0};
		__u32 size = sizeof(info);

		programs[i] = bpf_prog_load(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, "slot", "GPL", one, 2, &load);
		assert_true(programs[i] >= 0);
		assert_int_equal(bpf_obj_get_info_by_fd(programs[i], &info, &size), 0);
		expected[i] = info.id;
	}
	links[0] = bpf_link_create(programs[0], parent, BPF_CGROUP_INET4_CONNECT, NULL);
	links[1] = bpf_link_create(programs[1], child, BPF_CGROUP_INET4_CONNECT, NULL);
	assert_true(links[0] >= 0 && links[1] >= 0);
	assert_int_equal(bpf_link_update(links[1], programs[2], NULL), 0);
	assert_int_equal(
	    bpf_prog_query(child, BPF_CGROUP_INET4_CONNECT, BPF_F_QUERY_EFFECTIVE, NULL, ids, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(ids[0], expected[2]);
	assert_int_equal(ids[1], expected[0]);
	for (int i = 0; i < 3; i++)
		close(programs[i]);
	close(links[0]);
	close(links[1]);
	close(parent);
	close(child);
}

/* M16: why credit is counted by both sides instead of looked up in the receiver. */
static void test_sk_msg_may_not_look_the_receiver_up(void **state)
{
	int map = bpf_map_create(BPF_MAP_TYPE_SOCKHASH, "receivers", 4, 8, 4, NULL), program;
	static char verifier[8192];
	LIBBPF_OPTS(bpf_prog_load_opts, load, .log_buf = verifier, .log_size = sizeof(verifier),
		    .log_level = 1);
	struct bpf_insn lookup[] = {
	    INSN_STORE32_IMM(10, -4, 0),
	    INSN_MAP(1, map),
	    INSN_MOV(2, 10),
	    INSN_ADD_IMM(2, -4),
	    INSN_CALL(BPF_FUNC_map_lookup_elem),
	    INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2, 0),
	    INSN_MOV(1, 0),
	    INSN_CALL(BPF_FUNC_sk_release),
	    INSN_MOV_IMM(0, 1),
	    INSN_EXIT,
	};

	(void)state;
	program = bpf_prog_load(BPF_PROG_TYPE_SK_MSG, "looks_up", "GPL", lookup,
				sizeof(lookup) / sizeof(*lookup), &load);
	assert_true(program < 0);
	assert_non_null(strstr(verifier, "sk_release"));
	close(map);
}

static int tests(void)
{
	const struct CMUnitTest list[] = {
	    cmocka_unit_test(test_fionread_is_what_the_probe_says),
	    cmocka_unit_test(test_redirected_bytes_can_be_polled_peeked_and_counted),
	    cmocka_unit_test(test_redirected_bytes_overtake_unread_tcp_bytes),
	    cmocka_unit_test(test_redirect_then_tcp_keeps_the_order),
	    cmocka_unit_test(test_redirect_has_no_backpressure),
	    cmocka_unit_test(test_deleting_the_receiver_loses_unread_bytes),
	    cmocka_unit_test(test_a_socket_keeps_its_program),
	    cmocka_unit_test(test_end_of_file_after_redirected_bytes),
	    cmocka_unit_test(test_splice_does_not_see_redirected_bytes),
	    cmocka_unit_test(test_absent_peer_falls_back_to_tcp),
	    cmocka_unit_test(test_link_update_hits_its_own_slot),
	    cmocka_unit_test(test_sk_msg_may_not_look_the_receiver_up),
	};

	return cmocka_run_group_tests(list, NULL, NULL);
}

int main(void)
{
	return lab_main(tests);
}
