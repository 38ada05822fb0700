// SPDX-License-Identifier: Apache-2.0
#include "net/mode.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
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

/* ------------------------------------------------------------- rules */

/* Cuts "address[/bits][:port]" apart, in place; IPv6 with a port is in brackets. */
static bool split_network(char *text, char **ret_bits, char **ret_port, char **ret_address)
{
	char *address = text, *port = NULL, *close;

	if (*text == '[') {
		close = strchr(text, ']');
		if (!close || (close[1] && close[1] != ':'))
			return false;
		port = close[1] ? close + 2 : NULL;
		*close = 0;
		address = text + 1;
	} else if (strchr(text, ':') && strchr(text, ':') == strrchr(text, ':')) {
		port = strchr(text, ':');
		*port++ = 0;
	}
	*ret_address = address;
	*ret_bits = strchr(address, '/');
	if (*ret_bits)
		*(*ret_bits)++ = 0;
	*ret_port = port;
	return true;
}

static bool number(const char *text, unsigned long max, unsigned long *ret)
{
	size_t n = strspn(text, "0123456789");

	if (!n || text[n] || n > 5)
		return false;
	*ret = strtoul(text, NULL, 10);
	return *ret <= max;
}

int mode_rule_parse(const char *text, struct mode_rule *ret, struct error *error)
{
	struct mode_rule rule = {.mode = MODE_AUTO};
	const char *equals = strchr(text, '=');
	char network[96], *address, *bits, *port;
	unsigned long n = 0;

	if (!equals || (size_t)(equals - text) >= sizeof(network))
		return error_set(error, -EINVAL, "is not address[/bits][:port]=mode");
	if (mode_parse(equals + 1, &rule.mode, error) < 0)
		return error_set(error, -EINVAL, "names no mode behind its =");
	memcpy(network, text, (size_t)(equals - text));
	network[equals - text] = 0;
	if (!split_network(network, &bits, &port, &address))
		return error_set(error, -EINVAL, "is not address[/bits][:port]=mode");
	if (inet_pton(AF_INET, address, &rule.network.in.sin_addr) == 1 && network[0] != '[')
		rule.network.sa.sa_family = AF_INET;
	else if (inet_pton(AF_INET6, address, &rule.network.in6.sin6_addr) == 1)
		rule.network.sa.sa_family = AF_INET6;
	else
		return error_set(error, -EINVAL, "does not begin with an IP address");
	rule.bits = rule.network.sa.sa_family == AF_INET ? 32 : 128;
	if (bits && !number(bits, rule.bits, &n))
		return error_set(error, -EINVAL, "has a prefix length that its address family does not have");
	if (bits)
		rule.bits = (unsigned)n;
	if (port && (!number(port, 65535, &n) || n == 0))
		return error_set(error, -EINVAL, "has no port from 1 to 65535 behind its colon");
	addr_set_port(&rule.network, port ? (uint16_t)n : 0);
	*ret = rule;
	return 0;
}

static bool in_network(const struct mode_rule *rule, const struct addr *a)
{
	const uint8_t *x, *y;
	unsigned whole = rule->bits / 8, rest = rule->bits % 8;

	if (rule->network.sa.sa_family != a->sa.sa_family ||
	    (addr_port(&rule->network) && addr_port(&rule->network) != addr_port(a)))
		return false;
	x = a->sa.sa_family == AF_INET ? (const uint8_t *)&rule->network.in.sin_addr : rule->network.in6.sin6_addr.s6_addr;
	y = a->sa.sa_family == AF_INET ? (const uint8_t *)&a->in.sin_addr : a->in6.sin6_addr.s6_addr;
	return memcmp(x, y, whole) == 0 && (!rest || ((x[whole] ^ y[whole]) >> (8 - rest)) == 0);
}

enum connection_mode verdicts_mode(const struct verdicts *v, const struct addr *replica)
{
	const struct mode_rule *best = NULL;

	for (unsigned i = 0; i < v->rule_count; i++)
		if (in_network(&v->rules[i], replica) && (!best || v->rules[i].bits > best->bits))
			best = &v->rules[i];
	return best ? best->mode : v->mode;
}

/* ------------------------------------------------------------- verdicts */

void verdicts_init(struct verdicts *v, enum connection_mode mode)
{
	v->mode = mode;
	v->warned = false;
	v->rule_count = 0;
	v->retry_ns = VERDICT_RETRY_NS;
	v->retry_max_ns = VERDICT_RETRY_MAX_NS;
	v->count = 0;
}

const char *verdict_name(enum verdict_state state)
{
	static const char *const state_names[] = {[VERDICT_TRYING] = "trying",
						  [VERDICT_REACHABLE] = "reachable",
						  [VERDICT_UNREACHABLE] = "unreachable",
						  [VERDICT_PROBING] = "probing"};

	return state_names[state];
}

const struct replica_verdict *verdicts_find(const struct verdicts *v, const struct addr *replica)
{
	for (unsigned i = 0; i < v->count; i++)
		if (addr_equal(&v->list[i].replica, replica))
			return &v->list[i];
	return NULL;
}

static struct replica_verdict *find(struct verdicts *v, const struct addr *replica)
{
	return (struct replica_verdict *)verdicts_find(v, replica);
}

/* Room for another: what nobody has asked for longest, and nobody is about to report on. */
static struct replica_verdict *evict(struct verdicts *v)
{
	struct replica_verdict *oldest = NULL;

	for (unsigned i = 0; i < v->count; i++) {
		struct replica_verdict *one = &v->list[i];

		if (one->state != VERDICT_TRYING && one->state != VERDICT_PROBING &&
		    (!oldest || one->asked_ns < oldest->asked_ns))
			oldest = one;
	}
	return oldest;
}

/* The replica's entry, made where there is none; NULL when all that there are are being tried. */
static struct replica_verdict *find_or_add(struct verdicts *v, const struct addr *replica)
{
	struct replica_verdict *found = find(v, replica);

	if (found)
		return found;
	found = v->count < VERDICTS_MAX ? &v->list[v->count++] : evict(v);
	if (found)
		*found = (struct replica_verdict){.replica = *replica, .state = VERDICT_TRYING};
	return found;
}

enum mode_way verdicts_choose(struct verdicts *v, const struct addr *replica, uint64_t now_ns)
{
	enum connection_mode mode = verdicts_mode(v, replica);
	struct replica_verdict *known;

	if (mode != MODE_AUTO)
		return mode == MODE_PROXY ? WAY_CONTROL : WAY_REPLICA;
	known = find(v, replica);
	if (!known) {
		known = find_or_add(v, replica);
		if (!known)
			return WAY_REPLICA;
		known->asked_ns = now_ns;
		return WAY_TRY;
	}
	known->asked_ns = now_ns;
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
	struct replica_verdict *known = find_or_add(v, replica);
	bool returned;

	if (!known)
		return false;
	returned = known->state == VERDICT_UNREACHABLE || known->state == VERDICT_PROBING;
	known->state = VERDICT_REACHABLE;
	known->failures = 0;
	known->cause = 0;
	return returned;
}

bool verdicts_doubt(struct verdicts *v, const struct addr *replica)
{
	struct replica_verdict *known = find(v, replica);

	if (!known || known->state != VERDICT_REACHABLE)
		return false;
	known->state = VERDICT_PROBING;
	return true;
}

bool verdicts_due(struct verdicts *v, uint64_t now_ns, struct addr *ret)
{
	for (unsigned i = 0; i < v->count; i++) {
		struct replica_verdict *one = &v->list[i];

		if (one->state != VERDICT_UNREACHABLE || now_ns < one->retry_ns)
			continue;
		one->state = VERDICT_PROBING;
		*ret = one->replica;
		return true;
	}
	return false;
}

struct mode_fallback verdicts_failed(struct verdicts *v, const struct addr *replica, int cause,
				     uint64_t now_ns)
{
	struct mode_fallback say = {0};
	struct replica_verdict *known = find_or_add(v, replica);
	bool automatic = verdicts_mode(v, replica) == MODE_AUTO;
	uint64_t wait = v->retry_ns;

	if (known) {
		for (unsigned i = 0; i < known->failures && wait < v->retry_max_ns; i++)
			wait *= 2;
		known->state = VERDICT_UNREACHABLE;
		known->cause = cause;
		known->retry_ns = now_ns + (wait < v->retry_max_ns ? wait : v->retry_max_ns);
		say.audit = known->failures++ == 0 && automatic;
	}
	if (automatic && !v->warned)
		say.warn = v->warned = true;
	return say;
}

const char *mode_line(const char *text, char *to, size_t size)
{
	snprintf(to, size, "%s", text);
	for (char *c = to; *c; c++)
		if (*c == '\n')
			*c = ' ';
	return to;
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
