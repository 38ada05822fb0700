/* SPDX-License-Identifier: Apache-2.0 */
/* When redirecting is worse than nothing: an egress policy drops the way to the agent, or something rewrites
 * the source on the way. */
#include <bpf/bpf.h>

#include "bpf/lab.h"

static struct lab_agent agent;
static int cluster;

static int setup(void **state)
{
	struct intercept_options options = lab_options();

	(void)state;
	options.trip_ms = 600;
	options.grace_ms = 300;
	cluster = lab_listen(LAB_CLUSTER, LAB_CLUSTER4, LAB_PORT);
	agent = lab_agent_open(&options);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	lab_agent_close(&agent, INTERCEPT_REMOVE);
	close(cluster);
	return 0;
}

struct seen {
	unsigned tripped;
	char cause[64];
	uint64_t netns;
};

static void see(void *opaque, const struct intercept_event *event)
{
	struct seen *seen = opaque;

	if (event->kind != INTERCEPT_EVENT_TRIPPED)
		return;
	seen->tripped++;
	seen->netns = event->netns_cookie;
	snprintf(seen->cause, sizeof(seen->cause), "%s", event->cause);
}

static void wait_ms(unsigned ms)
{
	uint64_t end = clock_now_ns() + ms * 1000000ull;

	while (clock_now_ns() < end)
		usleep(5000);
}

static void forget_trips(void)
{
	struct trip_key key;

	while (!bpf_map_get_next_key(loader_map_fd(agent.it, "trips"), NULL, &key))
		bpf_map_delete_elem(loader_map_fd(agent.it, "trips"), &key);
}

static void expect_trip_with(const char *action)
{
	uint64_t trips = lab_counter(agent.it, "trips"), bypassed = lab_counter(agent.it, "bypassed_tripped");
	struct seen seen = {0};

	forget_trips();
	intercept_events_poll(agent.it, see, &seen);
	memset(&seen, 0, sizeof(seen));
	lab_egress_policy(LAB_POD_A, action);
	assert_int_not_equal(lab_try_connect(LAB_POD_A), 0);
	assert_int_not_equal(lab_try_connect(LAB_POD_A), 0);
	assert_int_equal(lab_counter(agent.it, "trips"), trips + 1);
	/* the third goes where it wanted to go; other namespaces are served as before */
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "cluster");
	assert_string_equal(lab_where(&agent, LAB_POD_B, cluster), "agent");
	assert_int_equal(lab_counter(agent.it, "bypassed_tripped"), bypassed + 1);
	intercept_events_poll(agent.it, see, &seen);
	assert_int_equal(seen.tripped, 1);
	assert_string_equal(seen.cause, "agent not reachable");
	lab_egress_policy(LAB_POD_A, NULL);
	/* and after a while it is tried again */
	wait_ms(650);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
}

static void test_policy_that_drops(void **state)
{
	(void)state;
	expect_trip_with("drop");
}

static void test_policy_that_rejects(void **state)
{
	(void)state;
	expect_trip_with("reject with tcp reset");
}

/* The phase's rule for a missing agent holds in the tripped namespace as well. */
static void test_trip_follows_the_phase(void **state)
{
	(void)state;
	forget_trips();
	intercept_set_phase(agent.it, INTERCEPT_MIRROR);
	lab_egress_policy(LAB_POD_A, "drop");
	assert_int_equal(lab_try_connect(LAB_POD_A), ETIMEDOUT);
	assert_int_equal(lab_try_connect(LAB_POD_A), ETIMEDOUT);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "ECONNREFUSED");
	wait_ms(320);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "cluster");
	intercept_set_phase(agent.it, INTERCEPT_CUTOVER);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "ECONNREFUSED");
	lab_egress_policy(LAB_POD_A, NULL);
	intercept_set_phase(agent.it, INTERCEPT_OBSERVE);
	wait_ms(650);
}

/* Masquerade on the way: the agent sees another source, finds no destination, refuses, and the namespace is
 * left alone soon. */
static void test_translated_source(void **state)
{
	uint64_t unattributed = lab_counter(agent.it, "unattributed");
	struct seen seen = {0};

	(void)state;
	forget_trips();
	intercept_events_poll(agent.it, see, &seen);
	memset(&seen, 0, sizeof(seen));
	lab_enter(LAB_POD_A);
	if (lab_run(
		"nft 'add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; "
		"add rule ip nat post ip daddr 10.77.1.1 tcp sport 1024-65535 snat to 10.77.1.2:20000-20999' "
		"2>/dev/null")) {
		lab_leave();
		skip();
	}
	lab_leave();
	for (int i = 1; i <= 2; i++) {
		assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "unattributed");
		lab_await(agent.it, "unattributed", unattributed + (uint64_t)i);
	}
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "cluster");
	intercept_events_poll(agent.it, see, &seen);
	assert_int_equal(seen.tripped, 1);
	assert_string_equal(seen.cause, "source translated on the way");
	lab_enter(LAB_POD_A);
	assert_int_equal(lab_run("nft delete table ip nat"), 0);
	lab_leave();
	wait_ms(650);
}

/* None of these says anything about the way. */
static void test_what_is_no_strike(void **state)
{
	uint64_t trips = lab_counter(agent.it, "trips");
	struct linger at_once = {.l_onoff = 1};

	(void)state;
	forget_trips();
	/* clients that hang up before they are accepted, in both manners */
	for (int i = 0; i < 6; i++) {
		int fd = lab_connect(LAB_POD_A, LAB_CLUSTER4, LAB_PORT), code, end;
		struct intercept_origin origin;

		assert_true(fd >= 0);
		if (i % 2)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		close(fd);
		end = lab_accept(&agent, agent.listener, &origin, &code);
		close(end);
	}
	/* an agent that goes while clients are on their way to it */
	lab_egress_policy(LAB_POD_A, "drop");
	int waiting[3];
	struct sockaddr_storage to = lab_address(LAB_CLUSTER4, LAB_PORT);
	lab_enter(LAB_POD_A);
	for (int i = 0; i < 3; i++) {
		waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(waiting[i], (struct sockaddr *)&to, sizeof(struct sockaddr_in)), -1);
		assert_int_equal(errno, EINPROGRESS);
	}
	lab_leave();
	close(agent.listener);
	for (int i = 0; i < 3; i++)
		close(waiting[i]);
	lab_egress_policy(LAB_POD_A, NULL);
	/* an agent that is not there */
	intercept_set_phase(agent.it, INTERCEPT_CUTOVER);
	for (int i = 0; i < 6; i++)
		assert_int_equal(lab_try_connect(LAB_POD_A), ECONNREFUSED);
	intercept_set_phase(agent.it, INTERCEPT_OBSERVE);
	agent.listener =
	    lab_listen(LAB_HOST, "10.77.1.1", ntohs(((struct sockaddr_in *)&agent.address)->sin_port));
	assert_int_equal(lab_counter(agent.it, "trips"), trips);
	assert_string_equal(lab_where(&agent, LAB_POD_A, cluster), "agent");
}

static int tests(void)
{
	const struct CMUnitTest list[] = {
	    cmocka_unit_test(test_policy_that_drops),	   cmocka_unit_test(test_policy_that_rejects),
	    cmocka_unit_test(test_trip_follows_the_phase), cmocka_unit_test(test_translated_source),
	    cmocka_unit_test(test_what_is_no_strike),
	};

	return cmocka_run_group_tests(list, setup, teardown);
}

int main(void)
{
	return lab_main(tests);
}
