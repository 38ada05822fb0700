// SPDX-License-Identifier: Apache-2.0
/* What commands print and how they end, with files made by hand and an agent that is a thread with one answer. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/cli_command.h"
#include "cutover/ledger_format.h"
#include "unit/directory.h"

static char text[65536];

/* Runs `cqlferry argv…` as main() does. Its exit status; what it printed is in `text`. */
static int command(char **argv)
{
	static const struct cli_hooks none;
	FILE *to = tmpfile();
	int argc = 0, terminal = dup(STDOUT_FILENO), status;
	size_t n;

	while (argv[argc])
		argc++;
	fflush(stdout);
	dup2(fileno(to), STDOUT_FILENO);
	status = cli_main_with(argc, argv, &none);
	fflush(stdout);
	dup2(terminal, STDOUT_FILENO);
	close(terminal);
	rewind(to);
	n = fread(text, 1, sizeof(text) - 1, to);
	text[n] = 0;
	fclose(to);
	return status;
}

static void a_missing_configuration_is_not_a_missing_agent(void **unused)
{
	struct cli missing = {.config_file = in_directory("nothing.yaml")}, nobody = {.socket = in_directory("admin.sock")};
	json_t *final = NULL;
	int code = 0;

	(void)unused;
	assert_int_equal(cli_ask(&missing, "gaps", json_pack("{s:s}", "command", "gaps"), 1000, &final, &code), CLI_FAILED);
	assert_int_equal(code, -EINVAL);
	assert_false(cli_no_agent(code));
	assert_int_equal(cli_ask(&nobody, "gaps", json_pack("{s:s}", "command", "gaps"), 1000, &final, &code), CLI_FAILED);
	assert_true(cli_no_agent(code));
}

/* With pins of its own, of which there are none: the machine's switch is not touched. */
static void off_without_an_agent_answers_in_json(void **unused)
{
	char *config = strdup(in_directory("c.yaml"));
	char *argv[] = {(char *)"cqlferry", (char *)"off", (char *)"--force", (char *)"--remove", (char *)"--json", (char *)"--config", config, NULL};
	FILE *file = fopen(config, "w");
	json_t *answer, *expected = json_pack("{s:b, s:b, s:s}", "ok", 1, "agent", 0, "interception", "removed");

	(void)unused;
	fprintf(file, "admin: {socket: %s/admin.sock}\nintercept: {pinPath: %s/pins}\n", directory, directory);
	fclose(file);
	assert_int_equal(command(argv), CLI_OK);
	answer = json_loads(text, 0, NULL);
	assert_true(json_equal(answer, expected));
	json_decref(answer);
	json_decref(expected);
	free(config);
}

/* ---- an agent */

struct agent {
	pthread_t thread;
	int listener;
	const char *answer;
};

/* Takes one request, and gives its answer. */
static void *agent_run_once(void *argument)
{
	struct agent *a = argument;
	int fd = accept(a->listener, NULL, NULL);
	char line[1000];
	ssize_t n;

	do {
		n = recv(fd, line, sizeof(line), 0);
	} while (n > 0 && line[n - 1] != '\n');
	if (send(fd, a->answer, strlen(a->answer), MSG_NOSIGNAL) < 0)
		perror("send");
	close(fd);
	return NULL;
}

static void agent_start(struct agent *a, const char *path, const char *answer)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	a->answer = answer;
	a->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(a->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(a->listener, 1), 0);
	assert_int_equal(pthread_create(&a->thread, NULL, agent_run_once, a), 0);
}

static void phase_is_one_object_a_line(void **unused)
{
	char *path = strdup(in_directory("admin.sock"));
	char *argv[] = {(char *)"cqlferry", (char *)"phase", (char *)"--json", (char *)"--socket", path, NULL};
	struct agent a;

	(void)unused;
	agent_start(&a, path, "{\"ok\": true, \"version\": \"1\", \"phase\": \"mirror\"}\n");
	assert_int_equal(command(argv), CLI_OK);
	assert_string_equal(text, "{\"ok\":true,\"phase\":\"mirror\"}\n");
	pthread_join(a.thread, NULL);
	close(a.listener);
	free(path);
}

/* ---- files */

static void gaps_of_more_causes_than_are_counted(void **unused)
{
	char *argv[] = {(char *)"cqlferry", (char *)"gaps", (char *)"--directory", directory, (char *)"--json", NULL};
	json_int_t sum = 0, others = 0;
	json_t *answer, *totals, *one;
	FILE *log = fopen(in_directory("gaps.log"), "w");
	char line[LEDGER_LINE_MAX];
	size_t i;

	(void)unused;
	for (unsigned n = 0; n < 200; n++) {
		struct ledger_record r = {.type = n ? LEDGER_GAP : LEDGER_HEAD, .version = n ? 0 : LEDGER_VERSION, .from_us = 1000000, .to_us = 2000000,
					  .count = 1};
		int size;

		snprintf(r.cause, sizeof(r.cause), "cause %u", n);
		size = ledger_encode(&r, line);
		assert_true(size > 0);
		assert_int_equal(fwrite(line, 1, (size_t)size, log), size);
	}
	fclose(log);
	assert_int_equal(command(argv), CLI_OK);
	answer = json_loads(text, 0, NULL);
	totals = json_object_get(answer, "totals");
	json_array_foreach(totals, i, one)
	{
		sum += json_integer_value(json_object_get(one, "count"));
		if (!strcmp(json_string_value(json_object_get(one, "cause")), "others"))
			others = json_integer_value(json_object_get(one, "count"));
	}
	assert_int_equal(json_integer_value(json_object_get(answer, "count")), 199);
	assert_int_equal(sum, 199);
	assert_int_equal(json_array_size(totals), 64);
	assert_int_equal(others, 199 - 63);
	json_decref(answer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_missing_configuration_is_not_a_missing_agent, directory_setup, directory_teardown),
		cmocka_unit_test_setup_teardown(off_without_an_agent_answers_in_json, directory_setup, directory_teardown),
		cmocka_unit_test_setup_teardown(phase_is_one_object_a_line, directory_setup, directory_teardown),
		cmocka_unit_test_setup_teardown(gaps_of_more_causes_than_are_counted, directory_setup, directory_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
