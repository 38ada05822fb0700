// SPDX-License-Identifier: Apache-2.0
#include "net/mode.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

static const char *const names[] = {[MODE_AUTO] = "auto", [MODE_DIRECT] = "direct", [MODE_PROXY] = "proxy"};

const char mode_warning[] = "Warning: Cannot connect directly to replica nodes.\n"
			    "Falling back to proxy mode through control host (slower but functional).\n"
			    "Hint: Use CONNECTIONMODE='proxy' to suppress this warning.";

const char mode_note[] = "Note: Running in proxy mode. All data will be routed through a single connection.\n"
			 "This may be slower than direct mode for large datasets.\n"
			 "For best performance with accessible nodes, use CONNECTIONMODE='direct'.";

int mode_parse(const char *text, enum connection_mode *ret, struct error *error)
{
	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcasecmp(text, names[i])) {
			*ret = (enum connection_mode)i;
			return 0;
		}
	return error_set(error, -EINVAL,
			 "Invalid CONNECTIONMODE: %.64s. Must be 'auto', 'direct', or 'proxy'", text);
}

const char *mode_name(enum connection_mode mode)
{
	return names[mode];
}

void verdicts_init(struct verdicts *v, enum connection_mode mode)
{
	v->mode = mode;
	v->warned = false;
	v->count = 0;
}

static struct verdict *find(struct verdicts *v, const struct addr *replica)
{
	for (unsigned i = 0; i < v->count; i++)
		if (addr_equal(&v->list[i].replica, replica))
			return &v->list[i];
	return NULL;
}

/* The replica's entry, made where there is none; NULL when the table is full. */
static struct verdict *find_or_add(struct verdicts *v, const struct addr *replica)
{
	struct verdict *found = find(v, replica);

	if (found || v->count == VERDICTS_MAX)
		return found;
	found = &v->list[v->count++];
	*found = (struct verdict){.replica = *replica, .state = VERDICT_TRYING};
	return found;
}

enum mode_way verdicts_choose(struct verdicts *v, const struct addr *replica, uint64_t now_ns)
{
	struct verdict *known;

	if (v->mode != MODE_AUTO)
		return v->mode == MODE_PROXY ? WAY_CONTROL : WAY_REPLICA;
	known = find(v, replica);
	if (!known) {
		find_or_add(v, replica);
		return WAY_REPLICA;
	}
	switch (known->state) {
	case VERDICT_TRYING:
		return WAY_WAIT;
	case VERDICT_REACHABLE:
		return WAY_REPLICA;
	case VERDICT_PROBING:
		return WAY_CONTROL;
	case VERDICT_UNREACHABLE:
		break;
	}
	if (now_ns < known->retry_ns)
		return WAY_CONTROL;
	known->state = VERDICT_PROBING;
	return WAY_PROBE;
}

bool verdicts_reached(struct verdicts *v, const struct addr *replica)
{
	struct verdict *known = find_or_add(v, replica);
	bool returned;

	if (!known)
		return false;
	returned = known->state == VERDICT_UNREACHABLE || known->state == VERDICT_PROBING;
	known->state = VERDICT_REACHABLE;
	known->failures = 0;
	known->cause = 0;
	return returned;
}

struct mode_fallback verdicts_failed(struct verdicts *v, const struct addr *replica, int cause,
				     uint64_t now_ns)
{
	struct mode_fallback say = {0};
	struct verdict *known = find_or_add(v, replica);
	uint64_t wait = VERDICT_RETRY_NS;

	if (known) {
		for (unsigned i = 0; i < known->failures && wait < VERDICT_RETRY_MAX_NS; i++)
			wait *= 2;
		known->state = VERDICT_UNREACHABLE;
		known->cause = cause;
		known->retry_ns = now_ns + (wait < VERDICT_RETRY_MAX_NS ? wait : VERDICT_RETRY_MAX_NS);
		say.audit = known->failures++ == 0 && v->mode == MODE_AUTO;
	}
	if (v->mode == MODE_AUTO && !v->warned)
		say.warn = v->warned = true;
	return say;
}

int mode_error(struct error *error, const char *replica, int cause)
{
	const char *why = cause == -ECONNREFUSED ? "refused" : "unreachable";

	return error_set(error, cause,
			 "Error: Cannot connect to replica node %s (%s).\n"
			 "This may occur in cloud or containerized environments where node IPs are not "
			 "directly accessible.\n"
			 "Hint: Try CONNECTIONMODE='auto' or CONNECTIONMODE='proxy' to route through the "
			 "control connection.",
			 replica, why);
}

const char *mode_audit(const char *what, const char *replica, const char *control, char *text, size_t size)
{
	snprintf(text, size, "%s connection fallback: replica %s unreachable, using control host %s", what,
		 replica, control);
	return text;
}
