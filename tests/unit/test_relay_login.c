// SPDX-License-Identifier: Apache-2.0
/*
 * Logins with DSE's authenticator, which wants the mechanism's name before the token: of sessions at a switch, of clients before and after it, and of the
 * mirror. Real relay, clusters that functions here play (relaytest.h).
 */
#include "unit/relaytest.h"

#define PLAIN "\0\0\0\5PLAIN"
#define TOKEN "\0\0\0\10\0joe\0pwd" /* user joe, password pwd */
#define BODY(literal) literal, sizeof(literal) - 1

static const struct course mirroring = {.primary = ORIGIN, .mirroring = true},
			   cut_over = {.primary = TARGET, .mirroring = true, .frozen = true};
static _Atomic unsigned logins[2], mechanisms[2];
static bool named[2][PEERS]; /* that connection has named the mechanism */

static bool is(const struct frame_header *h, const uint8_t *body, const void *wanted, size_t size)
{
	return h->length == size && memcmp(body, wanted, size) == 0;
}

static ssize_t login(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to, bool dse)
{
	static const char plain_class[] = "\0\57org.apache.cassandra.auth.PasswordAuthenticator";
	static const char dse_class[] = "\0\60com.datastax.bdp.cassandra.auth.DseAuthenticator";
	int c = p->cluster == &target;
	bool *told = &named[c][p - p->cluster->peer];

	if (h->opcode == OP_STARTUP) {
		*told = false;
		return dse ? say(h, OP_AUTHENTICATE, BODY(dse_class), to) : say(h, OP_AUTHENTICATE, BODY(plain_class), to);
	}
	if (h->opcode != OP_AUTH_RESPONSE)
		return plain_answer(p, h, body, to);
	if (dse && !*told && is(h, body, BODY(PLAIN))) {
		*told = true;
		atomic_fetch_add(&mechanisms[c], 1);
		return say(h, OP_AUTH_CHALLENGE, BODY("\0\0\0\13PLAIN-START"), to);
	}
	if ((dse && !*told) || !is(h, body, BODY(TOKEN)))
		return response_write_error(h->version, h->stream, CQL_BAD_CREDENTIALS, "Failed to login", to, ROOM);
	atomic_fetch_add(&logins[c], 1);
	return say(h, OP_AUTH_SUCCESS, "\xff\xff\xff\xff", 4, to);
}

static ssize_t dse(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	return login(p, h, body, to, true);
}

static ssize_t password_only(struct peer *p, const struct frame_header *h, const uint8_t *body, uint8_t *to)
{
	return login(p, h, body, to, false);
}

/* As a driver logs in, at whatever it finds. */
static int log_in(void)
{
	int fd = client_connect(), opcode;

	client_send(fd, OP_STARTUP, 1, startup, sizeof(startup) - 1);
	assert_int_equal(expect(fd, 1), OP_AUTHENTICATE);
	if (memmem(answer_body, 64, "DseAuthenticator", 16)) {
		client_send(fd, OP_AUTH_RESPONSE, 2, BODY(PLAIN));
		assert_int_equal(expect(fd, 2), OP_AUTH_CHALLENGE);
	}
	client_send(fd, OP_AUTH_RESPONSE, 3, BODY(TOKEN));
	opcode = expect(fd, 3);
	assert_int_equal(opcode, OP_AUTH_SUCCESS);
	return fd;
}

static void write_row(int fd, int16_t stream)
{
	client_query(fd, stream, "INSERT INTO ks.t (k) VALUES (1)");
	assert_int_equal(expect(fd, stream), OP_RESULT);
}

static void through_a_switch(ssize_t (*at_origin)(struct peer *, const struct frame_header *, const uint8_t *, uint8_t *),
			     ssize_t (*at_target)(struct peer *, const struct frame_header *, const uint8_t *, uint8_t *))
{
	int before, after;

	for (int c = 0; c < 2; c++) {
		atomic_store(&logins[c], 0);
		atomic_store(&mechanisms[c], 0);
	}
	cluster_start(&origin, at_origin);
	cluster_start(&target, at_target);
	agent_start(1, &mirroring);
	before = log_in();
	write_row(before, 4);
	assert_true(wait_for(&target.writes, 1)); /* the mirror is logged in */
	change_course(&cut_over);
	write_row(before, 5);
	after = log_in();
	write_row(after, 6);
	assert_true(wait_for(&origin.writes, 3));
	change_course(&mirroring);
	write_row(after, 7);
	assert_true(wait_for(&target.writes, 4));
	assert_int_equal(atomic_load(&mechanisms[0]), at_origin == dse ? atomic_load(&logins[0]) : 0);
	assert_int_equal(atomic_load(&mechanisms[1]), at_target == dse ? atomic_load(&logins[1]) : 0);
	assert_true(atomic_load(&logins[0]) >= 3 && atomic_load(&logins[1]) >= 3);
	close(before);
	close(after);
	agent_stop();
}

static void the_mechanism_is_named_where_it_is_wanted(void **unused)
{
	(void)unused;
	username = "joe";
	password = "pwd";
	for (int configured = 0; configured < 2; configured++) {
		configured_auth = configured;
		through_a_switch(password_only, dse);
		through_a_switch(dse, password_only);
		through_a_switch(dse, dse);
	}
	configured_auth = false;
	username = password = "";
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_mechanism_is_named_where_it_is_wanted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
