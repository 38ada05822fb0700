/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cassandra's deterministic built-in functions. What is not listed counts as a function whose value differs:
 * the cost of a missing entry is a row sync, the cost of a wrong one would be a difference between the
 * clusters.
 *
 * Left out on purpose: now, uuid and current*; aggregates (no write can call them); what neither 4.1.10 nor
 * 5.0.9 has (length, format_bytes, random_* …): there it is a user's.
 */
#include "cql/functions.h"

/* clang-format off */
static const char *const fixed[] = {
	/* keys and casts */
	"token", "cast",
	/* time */
	"dateof", "unixtimestampof", "mintimeuuid", "maxtimeuuid", "min_timeuuid", "max_timeuuid", "todate",
	"totimestamp", "tounixtimestamp", "to_date", "to_timestamp", "to_unix_timestamp", "floor",
	/* JSON */
	"fromjson", "tojson", "from_json", "to_json",
	/* since Cassandra 5: mathematics, collections, masking, vectors, text */
	"abs", "exp", "log", "log10", "round", "map_keys", "map_values", "collection_count", "collection_min",
	"collection_max", "collection_sum", "collection_avg", "mask_null", "mask_default", "mask_replace",
	"mask_inner", "mask_outer", "mask_hash", "similarity_cosine", "similarity_euclidean",
	"similarity_dot_product",
	NULL,
};

/* Types that have conversions <type>AsBlob and blobAs<type>, and since Cassandra 5 cast_as_<type>. */
static const char *const types[] = {
	"ascii", "bigint", "boolean", "counter", "date", "decimal", "double", "duration", "float", "inet", "int",
	"smallint", "text", "time", "timestamp", "timeuuid", "tinyint", "uuid", "varchar", "varint", NULL,
};
/* clang-format on */

#define NAME_MAX_KNOWN 32

static bool listed(const char *const *list, const char *name, size_t size)
{
	for (; *list; list++)
		if (strlen(*list) == size && !memcmp(*list, name, size))
			return true;
	return false;
}

static bool has_prefix(const char *name, size_t size, const char *prefix, size_t *ret_length)
{
	size_t n = strlen(prefix);

	if (size <= n || memcmp(name, prefix, n))
		return false;
	*ret_length = n;
	return true;
}

static bool is_conversion(const char *name, size_t size)
{
	static const char *const prefixes[] = {"blob_as_", "blobas", "cast_as_", NULL};
	static const char *const suffixes[] = {"_as_blob", "asblob", NULL};
	size_t n;

	for (const char *const *p = prefixes; *p; p++)
		if (has_prefix(name, size, *p, &n))
			return listed(types, name + n, size - n);
	for (const char *const *s = suffixes; *s; s++) {
		n = strlen(*s);
		if (size > n && !memcmp(name + size - n, *s, n))
			return listed(types, name, size - n);
	}
	return false;
}

/* False when it is longer than any name that is known here. */
static bool fold_name(struct span name, bool fold, char text[NAME_MAX_KNOWN])
{
	if (name.size > NAME_MAX_KNOWN)
		return false;
	for (size_t i = 0; i < name.size; i++) {
		uint8_t c = name.data[i];
		text[i] = (char)(fold && c >= 'A' && c <= 'Z' ? c | 0x20 : c);
	}
	return true;
}

bool function_is_fixed(struct span name, bool fold)
{
	char text[NAME_MAX_KNOWN];

	return fold_name(name, fold, text) && (listed(fixed, text, name.size) || is_conversion(text, name.size));
}

enum instant_kind function_instant(struct span name, bool fold)
{
	static const struct {
		const char *name;
		enum instant_kind kind;
	} known[] = {
	    {"now", INSTANT_TIMEUUID},		     {"uuid", INSTANT_UUID},
	    {"currenttimeuuid", INSTANT_TIMEUUID},   {"current_timeuuid", INSTANT_TIMEUUID},
	    {"currenttimestamp", INSTANT_TIMESTAMP}, {"current_timestamp", INSTANT_TIMESTAMP},
	    {"currentdate", INSTANT_DATE},	     {"current_date", INSTANT_DATE},
	    {"currenttime", INSTANT_TIME},	     {"current_time", INSTANT_TIME},
	};
	char text[NAME_MAX_KNOWN];

	if (fold_name(name, fold, text))
		for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
			if (span_equal(span_of(text, name.size), span_text(known[i].name)))
				return known[i].kind;
	return INSTANT_NONE;
}

bool function_is_json(struct span name, bool fold)
{
	static const char *const names[] = {"fromjson", "from_json", NULL};
	char text[NAME_MAX_KNOWN];

	return fold_name(name, fold, text) && listed(names, text, name.size);
}

bool string_is_now(struct span text)
{
	return text.size == 3 && (text.data[0] | 0x20) == 'n' && (text.data[1] | 0x20) == 'o' && (text.data[2] | 0x20) == 'w';
}

/* \u0040 to \u007f: no encoder writes a letter of ASCII like that. */
static bool escapes_letter(const uint8_t *p, size_t left)
{
	return left >= 6 && p[1] == 'u' && p[2] == '0' && p[3] == '0' && p[4] >= '4' && p[4] <= '7';
}

bool json_has_now(struct span document)
{
	const uint8_t *p = document.data, *end = p + document.size;

	for (const uint8_t *at = p; at < end && (at = memchr(at, '"', (size_t)(end - at))); at++)
		if (end - at >= 5 && at[4] == '"' && string_is_now(span_of(at + 1, 3)))
			return true;
	for (const uint8_t *at = p; at < end && (at = memchr(at, '\\', (size_t)(end - at))); at++)
		if (escapes_letter(at, (size_t)(end - at)))
			return true;
	return false;
}

bool function_is_system(struct span name, bool fold)
{
	static const char system[] = "system";
	char text[NAME_MAX_KNOWN];

	/* Asked for every name of a statement. */
	return name.size == sizeof(system) - 1 && fold_name(name, fold, text) && !memcmp(text, system, name.size);
}
