/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection modes: whether a connection to a replica goes to the replica itself or through the control host,
 * the host that is known to answer. Pure: no I/O, no clock, no lock. Whoever shares a `struct verdicts`
 * between threads locks it.
 *
 *              unknown ──choose──▶ TRYING ──reached──▶ REACHABLE ──────────────doubt───────────┐
 *                                    │                     │ failed                            ▼
 *                                    └────────failed──▶ UNREACHABLE ──back-off over, choose──▶ PROBING
 *                                                          ▲  └────── reached ──▶ REACHABLE        │
 *                                                          └────────────── failed ─────────────────┘
 *
 * One caller at a time gets to try a replica that nothing is known of; the others are told to wait for its
 * verdict, so that an unreachable replica costs one time-out, however many connections want it.
 *
 * The mode may differ by destination: a rule "10.0.0.0/8=proxy" holds for what lies in that network, the
 * longest prefix decides.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "net/addr.h"

enum connection_mode { MODE_AUTO, MODE_DIRECT, MODE_PROXY };

/* "auto", "direct", "proxy", in any case. 0, or −EINVAL with a text that says what is allowed. */
int mode_parse(const char *text, enum connection_mode *ret, struct error *error);
const char *mode_name(enum connection_mode mode);

#define MODE_RULES_MAX 64u

/* What is meant for one network. */
struct mode_rule {
	struct addr network; /* port 0 = whatever port */
	unsigned bits;
	enum connection_mode mode;
};

/* "10.0.0.0/8=proxy", "10.1.2.3:9042=direct", "[fd00::/16]:9042=auto". 0, or −EINVAL with the reason. */
int mode_rule_parse(const char *text, struct mode_rule *ret, struct error *error);

enum mode_way {
	WAY_REPLICA, /* dial the replica, and report with verdicts_reached() or verdicts_failed() */
	WAY_TRY,     /* the same, and nothing is known of it yet: others wait for what you report */
	WAY_CONTROL, /* the control host */
	WAY_WAIT,    /* somebody is trying the replica just now: ask again when it has reported */
	WAY_PROBE,   /* the control host; and try the replica beside it, and report */
};

/* Replicas remembered; beyond them the one goes that nobody has asked for longest, and while all are being tried a further one is just dialled. */
#define VERDICTS_MAX 1024u
#define VERDICT_RETRY_NS \
	(10u * 1000000000ull) /* the first probe of an unreachable replica; doubled for each that fails … */
#define VERDICT_RETRY_MAX_NS (300u * 1000000000ull) /* … up to here */

enum verdict_state { VERDICT_TRYING, VERDICT_REACHABLE, VERDICT_UNREACHABLE, VERDICT_PROBING };

struct replica_verdict {
	struct addr replica;
	enum verdict_state state;
	int cause;	   /* −errno of the last failure */
	unsigned failures; /* in a row */
	uint64_t retry_ns; /* UNREACHABLE: when to probe */
	uint64_t asked_ns; /* when a connection last wanted it */
};

struct verdicts {
	enum connection_mode mode;
	bool warned; /* the warning about falling back has been given */
	unsigned rule_count;
	struct mode_rule rules[MODE_RULES_MAX];
	uint64_t retry_ns, retry_max_ns; /* VERDICT_RETRY_NS …, unless the caller sets others */
	unsigned count;
	struct replica_verdict list[VERDICTS_MAX];
};

void verdicts_init(struct verdicts *v, enum connection_mode mode);
/* The mode that holds for this destination. */
enum connection_mode verdicts_mode(const struct verdicts *v, const struct addr *replica);
enum mode_way verdicts_choose(struct verdicts *v, const struct addr *replica, uint64_t now_ns);

/* The replica answered. True when it was thought unreachable until now: connections return to it. */
bool verdicts_reached(struct verdicts *v, const struct addr *replica);

/*
 * A connection to a REACHABLE replica came to nothing: is it still? Until that is known the others go through
 * the control host. True: the caller has to find out, and to report; false: somebody does already, or nothing
 * was known.
 */
bool verdicts_doubt(struct verdicts *v, const struct addr *replica);

/* A replica whose back-off is over, for whoever probes without being asked: PROBING from here on, the caller reports. */
bool verdicts_due(struct verdicts *v, uint64_t now_ns, struct addr *ret);

/* What is known of a replica; NULL = nothing. Valid until the next call. */
const struct replica_verdict *verdicts_find(const struct verdicts *v, const struct addr *replica);
const char *verdict_name(enum verdict_state state);

/* What is to be said after a failure; both are false in every mode but auto. */
struct mode_fallback {
	bool warn;  /* the first fallback of all: mode_warning */
	bool audit; /* the first in a row for this replica: mode_audit() */
};
/* The replica could not be reached (`cause`: −errno). */
struct mode_fallback verdicts_failed(struct verdicts *v, const struct addr *replica, int cause,
				     uint64_t now_ns);

/* Texts of several lines, without the last line's end; mode_line() makes one line of them, for a log. Returns `to`. */
const char *mode_line(const char *text, char *to, size_t size);
extern const char mode_warning[]; /* auto, at the first fallback */
extern const char mode_note[];	  /* proxy, at the start */

/* direct: what is said of a replica that cannot be reached, and what can be done. */
int mode_error(struct error *error, const char *replica, int cause);
/* "COPY connection fallback: replica … unreachable, using control host …". Returns `text`. */
const char *mode_audit(const char *what, const char *replica, const char *control, char *text, size_t size);
