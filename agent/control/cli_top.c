// SPDX-License-Identifier: Apache-2.0
/*
 * `cqlferry top`: status once a second, with the change of every whole number since the last look. On a
 * terminal the screen is redrawn; into a file or pipe one block follows the other. An agent that restarts is
 * waited for.
 */
#include "control/cli_command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "control/admin_client.h"
#include "control/render.h"

#define LEAVES_MAX 512 /* numbers that are watched; status has about 60 */
#define PATH_SIZE 128

struct leaf {
	char path[PATH_SIZE];
	json_int_t value;
};

struct top {
	struct leaf leaf[2][LEAVES_MAX]; /* this look and the last one */
	size_t count[2];
	unsigned now;
	double seconds; /* since the last look; 0 = there was none */
	unsigned rows;	/* lines that are left on the screen */
	const char *bold, *plain;
};

static const struct leaf *last_leaf(const struct top *t, const char *path)
{
	unsigned last = !t->now;

	/* Same order each time, as good as always: begin where it stood. */
	for (size_t n = 0, i = t->count[t->now]; n < t->count[last]; n++, i++)
		if (!strcmp(t->leaf[last][i % t->count[last]].path, path))
			return &t->leaf[last][i % t->count[last]];
	return NULL;
}

static bool line_left(struct top *t)
{
	if (t->rows == 0)
		return false;
	t->rows--;
	return true;
}

static void show_number(struct top *t, const char *path, const char *key, const char *label,
			const json_t *value, unsigned depth)
{
	const struct leaf *last = last_leaf(t, path);
	char text[64];
	struct leaf *l;

	render_value(key, value, text, sizeof(text));
	if (line_left(t)) {
		printf("%*s%-*s %14s", (int)(2 * depth), "", (int)(44 - 2 * depth), label, text);
		if (last && t->seconds > 0 && last->value != json_integer_value(value))
			printf(" %+13.1f/s", (double)(json_integer_value(value) - last->value) / t->seconds);
		putchar('\n');
	}
	if (t->count[t->now] < LEAVES_MAX) {
		l = &t->leaf[t->now][t->count[t->now]++];
		snprintf(l->path, sizeof(l->path), "%s", path);
		l->value = json_integer_value(value);
	}
}

static void show_object(struct top *t, const json_t *object, const char *parent, unsigned depth)
{
	char path[PATH_SIZE], label[64], text[96];
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)object, key, value)
	{
		snprintf(path, sizeof(path), "%s/%.60s", parent, key);
		render_label(key, label, sizeof(label));
		if (json_is_integer(value)) {
			show_number(t, path, key, label, value, depth);
		} else if (json_is_object(value) && depth < 6) {
			if (line_left(t))
				printf("%*s%s%s%s\n", (int)(2 * depth), "", t->bold, label, t->plain);
			show_object(t, value, path, depth + 1);
		} else if (!json_is_array(value)) {
			render_value(key, value, text, sizeof(text));
			if (line_left(t))
				printf("%*s%-*s %14s\n", (int)(2 * depth), "", (int)(44 - 2 * depth), label,
				       text);
		}
	}
}

static unsigned screen_rows(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 2)
		return size.ws_row - 1u;
	return 10000;
}

int cli_top(struct cli *cli, int argc, char **argv)
{
	uint32_t interval = 1, count = 0;
	const struct cli_option options[] = {{.name = "interval",
					      .type = CLI_NUMBER,
					      .value = "SECONDS",
					      .place.number = &interval,
					      .min = 1,
					      .max = 3600,
					      .help = "between two looks; 1 if not given"},
					     {.name = "count",
					      .type = CLI_NUMBER,
					      .value = "N",
					      .place.number = &count,
					      .min = 1,
					      .max = 1000000,
					      .help = "end after N looks"},
					     CLI_OPTION_SOCKET(cli),
					     CLI_OPTION_CONFIG(cli),
					     {.name = NULL}};
	struct error error = {""};
	const char *path = NULL;
	bool screen = isatty(STDOUT_FILENO);
	uint64_t last = 0;
	struct top *t;
	json_t *request;
	int rest, rc = cli_options(cli_find("top"), options, argc, argv, 0, &rest);

	if (rc >= 0)
		return rc;
	if (cli_socket(cli, &path, &error) < 0)
		return cli_failed("top", "%s", error.text);
	t = calloc(1, sizeof(*t));
	request = json_pack("{s:s}", "command", "status");
	if (!t || !request) {
		free(t);
		return cli_failed("top", "out of memory");
	}
	t->bold = cli->color ? "\033[1m" : "";
	t->plain = cli->color ? "\033[0m" : "";
	for (uint32_t look = 0; !count || look < count; look++) {
		json_t *final = NULL;

		if (look)
			sleep(interval);
		rc = admin_call(path, request, 10000, NULL, NULL, &final, &error);
		/* The first failure is an answer to the person who typed the command; later ones are a
		 * restart to wait for. */
		if (rc < 0 && look == 0)
			break;
		uint64_t now = clock_now_ns();

		t->seconds = last ? (double)(now - last) / 1e9 : 0;
		last = rc < 0 ? 0 : now;
		t->now = !t->now;
		t->count[t->now] = 0;
		t->rows = screen ? screen_rows() : 10000;
		if (screen)
			fputs("\033[H\033[J", stdout);
		if (rc < 0) {
			printf("%s\n", error.text);
		} else {
			json_object_del(final, "ok");
			show_object(t, final, "", 0);
			json_decref(final);
		}
		if (!screen)
			putchar('\n');
		rc = 0;
		if (fflush(stdout) != 0)
			break;
	}
	json_decref(request);
	free(t);
	return rc < 0 ? cli_failed("top", "%s", error.text) : CLI_OK;
}
