// SPDX-License-Identifier: Apache-2.0
/* Connection modes: the document's unit tests, on the functions that decide. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <cmocka.h>

#include "net/mode.h"

#define SECOND 1000000000ull

static struct addr replica(unsigned last)
{
	struct addr a = {.in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000000u + last)}};

	addr_set_port(&a, 9042);
	return a;
}

static void test_connection_mode_parsing(void **state)
{
	static const struct {
		const char *text;
		enum connection_mode mode;
	} cases[] = {{"auto", MODE_AUTO},
		     {"direct", MODE_DIRECT},
		     {"proxy", MODE_PROXY},
		     {"AUTO", MODE_AUTO},
		     {"Proxy", MODE_PROXY}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		enum connection_mode mode = MODE_AUTO;

		assert_int_equal(mode_parse(cases[i].text, &mode, NULL), 0);
		assert_int_equal(mode, cases[i].mode);
		assert_int_equal(strcasecmp(mode_name(mode), cases[i].text), 0);
	}
}

static void test_invalid_connection_mode(void **state)
{
	static const char *const cases[] = {"", "fallback", "auto ", "directly"};
	enum connection_mode mode = MODE_DIRECT;
	struct error error;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(mode_parse(cases[i], &mode, &error), -EINVAL);
	assert_int_equal(mode, MODE_DIRECT);
	mode_parse("fallback", &mode, &error);
	assert_string_equal(error.text,
			    "Invalid CONNECTIONMODE: fallback. Must be 'auto', 'direct', or 'proxy'");
}

static void test_proxy_mode_single_host(void **state)
{
	static struct verdicts v;

	(void)state;
	verdicts_init(&v, MODE_PROXY);
	for (unsigned i = 0; i < 100; i++) {
		struct addr a = replica(i);

		assert_int_equal(verdicts_choose(&v, &a, i * SECOND), WAY_CONTROL);
	}
	assert_int_equal(v.count, 0);
}

static void test_auto_mode_fallback(void **state)
{
	static struct verdicts v;
	struct addr one = replica(1), two = replica(2);
	struct mode_fallback say;

	(void)state;
	verdicts_init(&v, MODE_AUTO);
	/* One caller tries it; however many others come meanwhile wait for that. */
	assert_int_equal(verdicts_choose(&v, &one, 0), WAY_TRY);
	for (int i = 0; i < 5; i++)
		assert_int_equal(verdicts_choose(&v, &one, 0), WAY_WAIT);
	say = verdicts_failed(&v, &one, -ETIMEDOUT, SECOND);
	assert_true(say.warn && say.audit);
	assert_int_equal(verdicts_choose(&v, &one, 2 * SECOND), WAY_CONTROL);
	/* The warning comes once, the audit line for each replica. */
	assert_int_equal(verdicts_choose(&v, &two, SECOND), WAY_TRY);
	say = verdicts_failed(&v, &two, -ECONNREFUSED, SECOND);
	assert_true(!say.warn && say.audit);
	say = verdicts_failed(&v, &two, -ECONNREFUSED, SECOND);
	assert_true(!say.warn && !say.audit);
}

static void test_probe_and_return(void **state)
{
	static struct verdicts v;
	struct addr a = replica(1);
	uint64_t now = 0, wait = VERDICT_RETRY_NS;

	(void)state;
	verdicts_init(&v, MODE_AUTO);
	verdicts_choose(&v, &a, now);
	for (int round = 0; round < 8; round++) {
		verdicts_failed(&v, &a, -EHOSTUNREACH, now);
		assert_int_equal(verdicts_choose(&v, &a, now + wait - 1), WAY_CONTROL);
		now += wait;
		/* One probes; the others go on through the control host. */
		assert_int_equal(verdicts_choose(&v, &a, now), WAY_PROBE);
		assert_int_equal(verdicts_choose(&v, &a, now), WAY_CONTROL);
		wait = 2 * wait < VERDICT_RETRY_MAX_NS ? 2 * wait : VERDICT_RETRY_MAX_NS;
	}
	assert_int_equal(wait, VERDICT_RETRY_MAX_NS);
	assert_true(verdicts_reached(&v, &a));
	assert_false(verdicts_reached(&v, &a));
	assert_int_equal(verdicts_choose(&v, &a, now), WAY_REPLICA);
	/* Lost again: said again, and the back-off begins anew. */
	assert_true(verdicts_failed(&v, &a, -ECONNREFUSED, now).audit);
	assert_int_equal(verdicts_choose(&v, &a, now + VERDICT_RETRY_NS), WAY_PROBE);
}

static void test_direct_mode_no_fallback(void **state)
{
	static struct verdicts v;
	struct addr a = replica(2);
	struct mode_fallback say;
	struct error error;

	(void)state;
	verdicts_init(&v, MODE_DIRECT);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(verdicts_choose(&v, &a, (uint64_t)i * SECOND), WAY_REPLICA);
		say = verdicts_failed(&v, &a, -ETIMEDOUT, (uint64_t)i * SECOND);
		assert_true(!say.warn && !say.audit);
	}
	assert_int_equal(mode_error(&error, "10.0.0.2", -ETIMEDOUT), -ETIMEDOUT);
	assert_string_equal(error.text, "Error: Cannot connect to replica node 10.0.0.2 (unreachable).\n"
					"This may occur in cloud or containerized environments where node "
					"IPs are not directly accessible.\n"
					"Hint: Try CONNECTIONMODE='auto' or CONNECTIONMODE='proxy' to route "
					"through the control connection.");
}

static void test_more_replicas_than_are_remembered(void **state)
{
	static struct verdicts v;
	struct addr a;

	(void)state;
	verdicts_init(&v, MODE_AUTO);
	for (unsigned i = 0; i < VERDICTS_MAX; i++) {
		a = replica(i);
		assert_int_equal(verdicts_choose(&v, &a, i), WAY_TRY);
	}
	/* Each is being tried: none can go, a further one is just dialled. */
	a = replica(VERDICTS_MAX);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(verdicts_choose(&v, &a, 0), WAY_REPLICA);
		verdicts_failed(&v, &a, -ETIMEDOUT, 0);
	}
	assert_int_equal(v.count, VERDICTS_MAX);
	/* Of those that are known, the one goes that nobody has asked for longest. */
	for (unsigned i = 5; i < 8; i++) {
		struct addr known = replica(i);

		verdicts_reached(&v, &known);
	}
	assert_int_equal(verdicts_choose(&v, &a, 5000), WAY_TRY);
	assert_int_equal(v.count, VERDICTS_MAX);
	a = replica(5);
	assert_null(verdicts_find(&v, &a));
	a = replica(6);
	assert_non_null(verdicts_find(&v, &a));
}

/* A replica that answered comes to nothing: one finds out, the others take the control host meanwhile. */
static void test_doubt(void **state)
{
	static struct verdicts v;
	struct addr a = replica(1), due;

	(void)state;
	verdicts_init(&v, MODE_AUTO);
	assert_false(verdicts_doubt(&v, &a)); /* nothing is known of it */
	assert_int_equal(verdicts_choose(&v, &a, 0), WAY_TRY);
	assert_false(verdicts_doubt(&v, &a)); /* somebody finds out already */
	verdicts_reached(&v, &a);
	assert_true(verdicts_doubt(&v, &a));
	assert_false(verdicts_doubt(&v, &a));
	assert_int_equal(verdicts_choose(&v, &a, 0), WAY_CONTROL);
	verdicts_failed(&v, &a, -ECONNREFUSED, 0);
	assert_false(verdicts_doubt(&v, &a));
	assert_false(verdicts_due(&v, VERDICT_RETRY_NS - 1, &due));
	assert_true(verdicts_due(&v, VERDICT_RETRY_NS, &due));
	assert_true(addr_equal(&due, &a));
	assert_false(verdicts_due(&v, VERDICT_RETRY_NS, &due)); /* once */
	assert_true(verdicts_reached(&v, &a));
	assert_int_equal(verdicts_choose(&v, &a, 0), WAY_REPLICA);
}

static void test_rules(void **state)
{
	static struct verdicts v;
	static const struct {
		const char *text;
		bool good;
	} cases[] = {{"10.0.0.0/8=proxy", true},   {"10.1.2.3=direct", true},	   {"10.1.2.3:9042=auto", true},
		     {"fd00::/16=Proxy", true},	   {"[fd00::1/128]:9042=direct", true}, {"0.0.0.0/0=proxy", true},
		     {"10.0.0.0/8", false},	   {"10.0.0.0/33=proxy", false},   {"10.0.0/8=proxy", false},
		     {"=proxy", false},		   {"10.0.0.1=", false},	   {"10.0.0.1=never", false},
		     {"10.0.0.1:0=proxy", false},  {"10.0.0.1:65536=proxy", false}, {"[10.0.0.1]:1=proxy", false},
		     {"host=proxy", false},	   {"10.0.0.0/=proxy", false},	   {"10.0.0.0/-1=proxy", false},
		     {"[fd00::1=proxy", false},	   {"", false},			   {"10.0.0.0/08x=proxy", false}};
	static const struct {
		unsigned last;
		uint16_t port;
		enum connection_mode mode;
	} wanted[] = {{0x010203, 9042, MODE_DIRECT}, {0x010203, 9043, MODE_PROXY}, {0x7f0000, 9042, MODE_PROXY},
		      {0x800000, 9042, MODE_AUTO},   {0x010000, 9042, MODE_AUTO},  {0x01ffff, 9042, MODE_AUTO}};
	struct error error;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(mode_rule_parse(cases[i].text, &v.rules[0], &error), cases[i].good ? 0 : -EINVAL);
	verdicts_init(&v, MODE_AUTO);
	mode_rule_parse("10.0.0.0/9=proxy", &v.rules[v.rule_count++], &error);
	mode_rule_parse("10.1.2.3:9042=direct", &v.rules[v.rule_count++], &error);
	mode_rule_parse("10.1.0.0/16=auto", &v.rules[v.rule_count++], &error);
	mode_rule_parse("10.1.2.3:9043=proxy", &v.rules[v.rule_count++], &error);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		struct addr a = replica(wanted[i].last);

		addr_set_port(&a, wanted[i].port);
		assert_int_equal(verdicts_mode(&v, &a), wanted[i].mode);
	}
}

static void test_audit_line(void **state)
{
	char text[128];

	(void)state;
	assert_string_equal(
	    mode_audit("COPY", "10.0.0.2", "proxy.example.com", text, sizeof(text)),
	    "COPY connection fallback: replica 10.0.0.2 unreachable, using control host proxy.example.com");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_connection_mode_parsing),
	    cmocka_unit_test(test_invalid_connection_mode),
	    cmocka_unit_test(test_proxy_mode_single_host),
	    cmocka_unit_test(test_auto_mode_fallback),
	    cmocka_unit_test(test_probe_and_return),
	    cmocka_unit_test(test_direct_mode_no_fallback),
	    cmocka_unit_test(test_more_replicas_than_are_remembered),
	    cmocka_unit_test(test_doubt),
	    cmocka_unit_test(test_rules),
	    cmocka_unit_test(test_audit_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
