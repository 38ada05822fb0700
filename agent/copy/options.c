// SPDX-License-Identifier: Apache-2.0
#include "copy/options.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "copy/number.h"

#define PLACE(field) offsetof(struct copy_options, field), sizeof(((struct copy_options *)0)->field)
#define LARGE INT32_MAX

const struct copy_option copy_option_table[] = {
    {"CONNECTIONMODE", OPTION_TEXT, "auto",
     "auto: replicas, or the control host where they cannot be reached; direct; proxy", 0, 0,
     PLACE(connectionmode), ""},
    {"HEADER", OPTION_BOOL, "false", "the first line names the columns", 0, 0, PLACE(header), ""},
    {"DELIMITER", OPTION_TEXT, ",", "character between fields", 0, 0, PLACE(delimiter), ""},
    {"QUOTE", OPTION_TEXT, "\"", "character around fields", 0, 0, PLACE(quote), ""},
    {"ESCAPE", OPTION_TEXT, "\\", "character before a quote inside a field", 0, 0, PLACE(escape), ""},
    {"NULL", OPTION_TEXT, "", "what stands for null", 0, 0, PLACE(null), ""},
    {"DATETIMEFORMAT", OPTION_TEXT, NULL, "strftime format of timestamps", 0, 0, PLACE(datetimeformat), ""},
    {"BOOLSTYLE", OPTION_TEXT, "True,False", "the words for true and false", 0, 0, PLACE(boolstyle), ""},
    {"DECIMALSEP", OPTION_TEXT, ".", "separator before the fraction", 0, 0, PLACE(decimalsep), ""},
    {"THOUSANDSSEP", OPTION_TEXT, "", "separator between groups of three digits", 0, 0, PLACE(thousandssep),
     ""},
    {"ENCODING", OPTION_TEXT, "utf8", "of the file; only utf8", 0, 0, PLACE(encoding), ""},
    {"NUMPROCESSES", OPTION_NUMBER, NULL, "threads; default: as many as cores, up to 16", 1, 64,
     PLACE(numprocesses), ""},
    {"MAXATTEMPTS", OPTION_NUMBER, "5", "attempts for each range or batch", 1, 1000, PLACE(maxattempts), ""},
    {"REPORTFREQUENCY", OPTION_REAL, "0.25", "seconds between reports", 0, 86400, PLACE(reportfrequency), ""},
    {"RATEFILE", OPTION_TEXT, "", "a file that gets the reports as well", 0, 0, PLACE(ratefile), ""},
    {"CONFIGFILE", OPTION_TEXT, "", "a file like cqlshrc to read options from", 0, 0, PLACE(configfile), ""},
    {"PAGESIZE", OPTION_NUMBER, "1000", "rows of a page at most; fewer where they are long", 1, LARGE, PLACE(pagesize), "to"},
    {"PAGETIMEOUT", OPTION_NUMBER, NULL, "seconds for a page; default: 10 for each 1000 rows", 1, 86400,
     PLACE(pagetimeout), "to"},
    {"MAXREQUESTS", OPTION_NUMBER, "6", "ranges that each thread reads at once", 1, 1024, PLACE(maxrequests),
     "to"},
    {"MAXOUTPUTSIZE", OPTION_NUMBER, "-1", "rows of a file, more go to FILE.1, FILE.2 …; -1: no limit", -1,
     INT64_MAX, PLACE(maxoutputsize), "to"},
    {"BEGINTOKEN", OPTION_TEXT, "", "only tokens above this one", 0, 0, PLACE(begintoken), "to"},
    {"ENDTOKEN", OPTION_TEXT, "", "only tokens up to this one", 0, 0, PLACE(endtoken), "to"},
    {"FLOATPRECISION", OPTION_NUMBER, "5", "digits of a float behind the point", 0, 100,
     PLACE(floatprecision), "to"},
    {"DOUBLEPRECISION", OPTION_NUMBER, "12", "digits of a double behind the point", 0, 100,
     PLACE(doubleprecision), "to"},
    {"CHUNKSIZE", OPTION_NUMBER, "5000", "rows that a thread gets at once", 1, 1000000, PLACE(chunksize),
     "from"},
    {"INGESTRATE", OPTION_NUMBER, "0", "rows a second at most; 0: no limit", 0, INT64_MAX, PLACE(ingestrate),
     "from"},
    {"MINBATCHSIZE", OPTION_NUMBER, "10", "rows of one range of tokens that make a batch of their own", 1,
     65535, PLACE(minbatchsize), "from"},
    {"MAXBATCHSIZE", OPTION_NUMBER, "20", "rows of a batch at most", 1, 65535, PLACE(maxbatchsize), "from"},
    {"MAXROWS", OPTION_NUMBER, "-1", "rows to read at most; -1: all", -1, INT64_MAX, PLACE(maxrows), "from"},
    {"SKIPROWS", OPTION_NUMBER, "0", "rows to skip at the beginning", 0, INT64_MAX, PLACE(skiprows), "from"},
    {"SKIPCOLS", OPTION_TEXT, "", "columns of the file to leave out, separated by commas", 0, 0,
     PLACE(skipcols), "from"},
    {"MAXPARSEERRORS", OPTION_NUMBER, "-1", "stop after so many rows that cannot be read; -1: never", -1,
     INT64_MAX, PLACE(maxparseerrors), "from"},
    {"MAXINSERTERRORS", OPTION_NUMBER, "1000", "stop after so many rows that the server refuses; -1: never",
     -1, INT64_MAX, PLACE(maxinserterrors), "from"},
    {"ERRFILE", OPTION_TEXT, "", "keeps rejected rows; default: import_KEYSPACE_TABLE.err", 0, 0,
     PLACE(errfile), "from"},
    {"PREPAREDSTATEMENTS", OPTION_BOOL, "true", "false: send text, the server parses it", 0, 0,
     PLACE(preparedstatements), "from"},
    {"TTL", OPTION_NUMBER, "-1", "seconds for rows to live; -1: no TTL", -1, LARGE, PLACE(ttl), "from"},
    {"TEXTESCAPES", OPTION_BOOL, "true",
     "read \\n, \\x00 and \\\\ in text as COPY TO writes them; false: as cqlsh, literally", 0, 0,
     PLACE(textescapes), "from"},
    {"REQUESTTIMEOUT", OPTION_NUMBER, "60", "seconds for a batch", 1, 86400, PLACE(requesttimeout), "from"},
    {"MAXINFLIGHTMESSAGES", OPTION_NUMBER, "64", "requests on their way on each connection", 1, 16384,
     PLACE(maxinflightmessages), "from"},
};
const size_t copy_option_count = sizeof(copy_option_table) / sizeof(*copy_option_table);

static const struct copy_option *option_find(const char *name)
{
	for (size_t i = 0; i < copy_option_count; i++)
		if (!strcasecmp(copy_option_table[i].name, name))
			return &copy_option_table[i];
	return NULL;
}

static int set_number(struct copy_options *o, const struct copy_option *option, const char *value,
		      struct error *error)
{
	int64_t n;

	if (!number_parse_int(span_text(value), &n) || n < option->min || n > option->max) {
		if (option->max == INT64_MAX)
			return error_set(error, -EINVAL,
					 "Invalid %s: %.64s. Must be a whole number from %lld", option->name,
					 value, (long long)option->min);
		return error_set(error, -EINVAL,
				 "Invalid %s: %.64s. Must be a whole number from %lld to %lld", option->name,
				 value, (long long)option->min, (long long)option->max);
	}
	memcpy((char *)o + option->place, &n, sizeof(n));
	return 0;
}

static int set_real(struct copy_options *o, const struct copy_option *option, const char *value,
		    struct error *error)
{
	double d;

	if (!number_parse_float(span_text(value), &d) ||
	    !(d >= (double)option->min && d <= (double)option->max))
		return error_set(error, -EINVAL, "Invalid %s: %.64s. Must be a number from %lld to %lld",
				 option->name, value, (long long)option->min, (long long)option->max);
	memcpy((char *)o + option->place, &d, sizeof(d));
	return 0;
}

int options_set(struct copy_options *o, const char *name, const char *value, struct error *error)
{
	const struct copy_option *option = option_find(name);
	char *place;

	if (!option)
		return error_set(error, -ENOENT,
				 "Unrecognized COPY option: %.64s; `cqlferry copy --help` lists them", name);
	place = (char *)o + option->place;
	switch (option->kind) {
	case OPTION_NUMBER:
		return set_number(o, option, value, error);
	case OPTION_REAL:
		return set_real(o, option, value, error);
	case OPTION_BOOL:
		if (strcasecmp(value, "true") != 0 && strcasecmp(value, "false") != 0)
			return error_set(error, -EINVAL, "Invalid %s: %.64s. Must be TRUE or FALSE",
					 option->name, value);
		*(bool *)place = !strcasecmp(value, "true");
		return 0;
	case OPTION_TEXT:
		break;
	}
	if (strlen(value) >= option->size)
		return error_set(error, -EINVAL, "Invalid %s: longer than %zu bytes", option->name,
				 option->size - 1);
	snprintf(place, option->size, "%s", value);
	if (option->place == offsetof(struct copy_options, connectionmode)) {
		o->mode_named = true;
		return mode_parse(value, &o->mode, error);
	}
	return 0;
}

void options_init(struct copy_options *o)
{
	struct error error;

	memset(o, 0, sizeof(*o));
	for (size_t i = 0; i < copy_option_count; i++)
		if (copy_option_table[i].value)
			options_set(o, copy_option_table[i].name, copy_option_table[i].value, &error);
	o->mode_named = false;
}

void options_done(struct copy_options *o)
{
	bytes_done(&o->null_written);
}

/* ------------------------------------------------------------- all together */

/* One character; "\t" is a tab, since a shell makes it hard to give one. */
static int one_character(const char *name, const char *value, uint8_t *ret, struct error *error)
{
	if (!strcmp(value, "\\t")) {
		*ret = '\t';
		return 0;
	}
	if (strlen(value) != 1 || *value == '\n' || *value == '\r' || (unsigned char)*value >= 0x80)
		return error_set(
		    error, -EINVAL,
		    "Invalid %s: \"%s\". Must be one ASCII character, not a line end; \\t for a tab", name,
		    value);
	*ret = (uint8_t)*value;
	return 0;
}

static int finish_dialect(struct copy_options *o, struct error *error)
{
	uint8_t delimiter, quote, escape;
	int rc = one_character("DELIMITER", o->delimiter, &delimiter, error);

	if (rc == 0)
		rc = one_character("QUOTE", o->quote, &quote, error);
	if (rc == 0)
		rc = one_character("ESCAPE", o->escape, &escape, error);
	if (rc < 0)
		return rc;
	if (delimiter == quote || delimiter == escape)
		return error_set(error, -EINVAL,
				 "Invalid DELIMITER: \"%s\". Must differ from QUOTE and ESCAPE",
				 o->delimiter);
	csv_init(&o->dialect, delimiter, quote, escape);
	return 0;
}

static const char *skip_blanks(const char *text)
{
	return text + strspn(text, " \t");
}

/* A word without blanks around it; false: empty or too long. */
static bool copy_word(const char *from, size_t size, char *to, size_t room)
{
	while (size && (from[size - 1] == ' ' || from[size - 1] == '\t'))
		size--;
	if (size == 0 || size >= room)
		return false;
	memcpy(to, from, size);
	to[size] = 0;
	return true;
}

static int finish_style(struct copy_options *o, struct error *error)
{
	const char *comma = strchr(o->boolstyle, ','), *yes = skip_blanks(o->boolstyle),
		   *no = comma ? skip_blanks(comma + 1) : "";

	if (!comma || yes > comma || strchr(comma + 1, ',') ||
	    !copy_word(yes, (size_t)(comma - yes), o->yes, sizeof(o->yes)) ||
	    !copy_word(no, strlen(no), o->no, sizeof(o->no)) || !strcasecmp(o->yes, o->no))
		return error_set(
		    error, -EINVAL,
		    "Invalid boolean styles %s. Must be two different words, true first: BOOLSTYLE='yes,no'",
		    o->boolstyle);
	if (!*o->decimalsep || !strcmp(o->decimalsep, o->thousandssep))
		return error_set(error, -EINVAL,
				 "Invalid DECIMALSEP: \"%s\". Must not be empty nor the same as THOUSANDSSEP",
				 o->decimalsep);
	if (strcasecmp(o->encoding, "utf8") != 0 && strcasecmp(o->encoding, "utf-8") != 0)
		return error_set(error, -EINVAL,
				 "Invalid ENCODING: %s. Must be utf8; iconv(1) converts other files",
				 o->encoding);
	o->null_written.size = 0;
	value_escape(span_text(o->null), &o->null_written);
	o->style = (struct value_style){.null = span_text(o->null),
					.null_written = bytes_span(&o->null_written),
					.yes = o->yes,
					.no = o->no,
					.point = o->decimalsep,
					.group = o->thousandssep,
					.timestamp = o->datetimeformat,
					.float_precision = (int)o->floatprecision,
					.double_precision = (int)o->doubleprecision,
					.escapes = o->textescapes};
	return 0;
}

static int finish_token(const char *name, const char *text, bool *ret_has, int64_t *ret, struct error *error)
{
	*ret_has = *text != 0;
	if (*text && !number_parse_int(span_text(text), ret))
		return error_set(error, -EINVAL, "Invalid %s: %s. Must be a whole number of 64 bits", name,
				 text);
	return 0;
}

int options_finish(struct copy_options *o, struct error *error)
{
	int rc = finish_dialect(o, error);

	if (!*o->datetimeformat)
		snprintf(o->datetimeformat, sizeof(o->datetimeformat), "%s", "%Y-%m-%d %H:%M:%S.%f%z");
	if (rc == 0)
		rc = finish_style(o, error);
	if (rc == 0)
		rc = finish_token("BEGINTOKEN", o->begintoken, &o->has_begin, &o->begin, error);
	if (rc == 0)
		rc = finish_token("ENDTOKEN", o->endtoken, &o->has_end, &o->end, error);
	if (rc < 0)
		return rc;
	if (o->has_begin && o->has_end && o->begin > o->end)
		return error_set(error, -EINVAL, "Begin token %lld must be smaller than end token %lld",
				 (long long)o->begin, (long long)o->end);
	if (o->minbatchsize > o->maxbatchsize)
		o->minbatchsize = o->maxbatchsize;
	if (o->pagetimeout == 0)
		o->pagetimeout = o->pagesize > 1000 ? o->pagesize / 100 : 10;
	if (o->numprocesses == 0) {
		long cores = sysconf(_SC_NPROCESSORS_ONLN);

		o->numprocesses = cores < 1 ? 1 : cores > 16 ? 16 : cores;
	}
	return 0;
}

/* ------------------------------------------------------------- lists */

int option_list_add(struct option_list *l, const char *name, size_t name_size, const char *value,
		    size_t value_size)
{
	void *grown = realloc(l->list, (l->count + 1) * sizeof(*l->list));

	if (!grown)
		return -ENOMEM;
	l->list = grown;
	l->list[l->count].name = strndup(name, name_size);
	l->list[l->count].value = strndup(value, value_size);
	l->count++; /* also when a copy failed: done() frees what there is */
	return l->list[l->count - 1].name && l->list[l->count - 1].value ? 0 : -ENOMEM;
}

void option_list_done(struct option_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->list[i].name);
		free(l->list[i].value);
	}
	free(l->list);
	*l = (struct option_list){0};
}
