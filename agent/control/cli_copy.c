// SPDX-License-Identifier: Apache-2.0
/* `cqlferry copy`: COPY as cqlsh has it, from the command line. Each option of the table is a flag; a
 * statement does as well. */
#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "control/cli_command.h"
#include "copy/copy.h"

#define FIXED 18       /* options that are not in the table */
#define OPTIONS_MAX 64 /* options of the table */

struct words {
	const char *with, *statement;
	bool header;
};

/* The short forms that cqlsh has, as the long ones. */
static void lengthen(int argc, char **argv)
{
	static const char *const forms[][2] = {
	    {"-e", "--execute"}, {"-u", "--username"}, {"-p", "--password"}, {"-k", "--keyspace"},
	    {"-b", "--secure-connect-bundle"}};

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		for (size_t k = 0; k < sizeof(forms) / sizeof(*forms); k++)
			if (!strcmp(argv[i], forms[k][0])) {
				argv[i] = (char *)forms[k][1];
				i++; /* its value */
				break;
			}
}

/* Flags by hand, then one for each option; HEADER is the one without a value. `values` has a place for each.
 */
static void fill_options(struct cli_option *options, struct copy_request *r, struct words *w,
			 const char **values, char (*names)[32])
{
	const struct cli_option fixed[] = {
	    {.name = "execute",
	     .type = CLI_TEXT,
	     .value = "STATEMENT",
	     .help = "-e: a whole COPY statement",
	     .place.text = &w->statement},
	    {.name = "with",
	     .type = CLI_TEXT,
	     .value = "OPTIONS",
	     .help = "options as in cqlsh: \"HEADER=TRUE AND NULL='-'\"",
	     .place.text = &w->with},
	    {.name = "host",
	     .type = CLI_TEXT,
	     .value = "HOST",
	     .help = "control host; default: $CQLSH_HOST, cqlshrc, 127.0.0.1",
	     .place.text = &r->host},
	    {.name = "port",
	     .type = CLI_NUMBER,
	     .value = "PORT",
	     .help = "default: $CQLSH_PORT, cqlshrc, 9042",
	     .place.number = &r->port,
	     .min = 1,
	     .max = 65535},
	    {.name = "username", .type = CLI_TEXT, .value = "NAME", .help = "-u", .place.text = &r->username},
	    {.name = "password",
	     .type = CLI_TEXT,
	     .value = "WORD",
	     .help = "-p: others can see it; better a credentials file",
	     .place.text = &r->password},
	    {.name = "credentials",
	     .type = CLI_TEXT,
	     .value = "FILE",
	     .help = "user name and password, in [plain_text_auth]",
	     .place.text = &r->credentials},
	    {.name = "keyspace",
	     .type = CLI_TEXT,
	     .value = "NAME",
	     .help = "-k: of a table that is named without one",
	     .place.text = &r->keyspace},
	    {.name = "cqlshrc",
	     .type = CLI_TEXT,
	     .value = "FILE",
	     .help = "instead of ~/.cassandra/cqlshrc or ~/.cqlshrc",
	     .place.text = &r->cqlshrc},
	    {.name = "connect-timeout",
	     .type = CLI_NUMBER,
	     .value = "SECONDS",
	     .help = "for each node; default 5",
	     .place.number = &r->connect_seconds,
	     .min = 1,
	     .max = 3600},
	    {.name = "consistency",
	     .type = CLI_TEXT,
	     .value = "LEVEL",
	     .help = "default ONE",
	     .place.text = &r->consistency},
	    {.name = "ssl",
	     .type = CLI_FLAG,
	     .help = "TLS, with the files of cqlshrc's [ssl]",
	     .place.flag = &r->ssl},
	    {.name = "secure-connect-bundle",
	     .type = CLI_TEXT,
	     .value = "FILE",
	     .help = "-b: instead of --host and --ssl; proxy mode unless CONNECTIONMODE is given",
	     .place.text = &r->bundle},
	    {.name = "sni",
	     .type = CLI_TEXT,
	     .value = "NAME",
	     .help = "HOST is an SNI proxy: the TLS server name of a node behind it; as for a bundle",
	     .place.text = &r->sni},
	    {.name = "proxy-mode",
	     .type = CLI_FLAG,
	     .help = "CONNECTIONMODE='proxy'",
	     .place.flag = &r->proxy},
	    {.name = "resume",
	     .type = CLI_FLAG,
	     .help = "go on where an interrupted copy stood",
	     .place.flag = &r->resume},
	    {.name = "progress",
	     .type = CLI_TEXT,
	     .value = "FILE",
	     .help = "keeps how far it has come; default: beside the output",
	     .place.text = &r->progress},
	    {.name = "header", .type = CLI_FLAG, .help = "HEADER=TRUE", .place.flag = &w->header},
	};
	size_t n = sizeof(fixed) / sizeof(*fixed);

	memcpy(options, fixed, sizeof(fixed));
	for (size_t i = 0; i < copy_option_count; i++) {
		const struct copy_option *o = &copy_option_table[i];

		if (!strcmp(o->name, "HEADER"))
			continue;
		snprintf(names[i], sizeof(*names), "%s", o->name);
		for (char *c = names[i]; *c; c++)
			*c = (char)tolower((unsigned char)*c);
		options[n++] = (struct cli_option){.name = names[i],
						   .type = CLI_TEXT,
						   .value = o->kind == OPTION_NUMBER ? "N" : "VALUE",
						   .help = o->help,
						   .place.text = &values[i]};
	}
	options[n] = (struct cli_option){.name = NULL};
}

/* Flags go behind what WITH says: the more particular wins. */
static int add_flags(struct copy_request *r, const struct words *w, const char *const *values,
		     struct error *error)
{
	struct option_list *list = &r->command.options;
	int rc = w->with ? command_parse_with(w->with, list, error) : 0;

	if (rc < 0)
		return rc;
	if (w->header)
		rc = option_list_add(list, "HEADER", 6, "true", 4);
	for (size_t i = 0; i < copy_option_count && rc == 0; i++)
		if (values[i])
			rc = option_list_add(list, copy_option_table[i].name,
					     strlen(copy_option_table[i].name), values[i], strlen(values[i]));
	return rc < 0 ? error_set(error, rc, "out of memory") : 0;
}

/* to|from TABLE FILE, or a statement. */
static int read_words(struct copy_request *r, const struct words *w, int rest, char **argv,
		      struct error *error)
{
	if (w->statement) {
		if (rest)
			return error_set(error, -1, "'%s': a statement says it all", argv[1]);
		return command_parse(w->statement, &r->command, error);
	}
	if (rest != 3 || (strcmp(argv[1], "to") != 0 && strcmp(argv[1], "from") != 0))
		return error_set(error, -1, "to|from KEYSPACE.TABLE[(COLUMNS)] FILE|-, or -e STATEMENT");
	r->command.to = !strcmp(argv[1], "to");
	if (strcmp(argv[3], "-") != 0 && !(r->command.file = strdup(argv[3])))
		return error_set(error, -1, "out of memory");
	return command_parse_table(argv[2], &r->command, error);
}

int cli_copy(struct cli *cli, int argc, char **argv)
{
	const char *values[OPTIONS_MAX] = {0};
	char names[OPTIONS_MAX][32];
	struct cli_option options[OPTIONS_MAX + FIXED + 1];
	struct copy_request request = {0};
	struct words words = {0};
	struct error error = {""};
	int rest, rc;

	(void)cli;
	assert(copy_option_count <= OPTIONS_MAX);
	fill_options(options, &request, &words, values, names);
	lengthen(argc, argv);
	rc = cli_options(cli_find("copy"), options, argc, argv, 3, &rest);
	if (rc >= 0)
		return rc;
	rc = read_words(&request, &words, rest, argv, &error);
	if (rc == 0)
		rc = add_flags(&request, &words, values, &error);
	rc = rc < 0 ? cli_usage_error("copy", "%s", error.text) : copy_run(&request);
	command_done(&request.command);
	return rc;
}
