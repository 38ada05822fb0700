/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session: one client connection and its connections to the clusters.
 *
 *                    ┌──────────── dial failed: the first request gets an error that says so, then CLOSING
 *   CONNECTING ──────┤
 *    (upstream is    └─▶ HANDSHAKE ──READY / AUTH_SUCCESS──▶ OPEN ──client gone, writes in flight──▶ ORPHAN
 *     being dialled)       │  OPTIONS, STARTUP, AUTH…          │                                       │
 *                          ├─ not CQL ─▶ OPAQUE                │                                       │
 *                          └───────────────────────────────────┴──────────▶ CLOSING ◀──────────────────┘
 *
 * Legal moves: the table in session.c; session_set_state() refuses all others.
 *
 * The client's stream ids are used unchanged on whichever upstream a request goes to. An answer that is only partly
 * through keeps the client connection for itself: `streaming` names its side, others wait.
 */
#pragma once
#include "intercept/intercept.h"
#include "net/conn.h"
#include "cql/compress.h"
#include "relay/inflight.h"
#include "relay/input.h"
#include "relay/prepared.h"
#include "relay/reach.h"
#include "relay/worker.h"

enum session_state { SESSION_CONNECTING, SESSION_HANDSHAKE, SESSION_OPEN, SESSION_OPAQUE, SESSION_ORPHAN, SESSION_CLOSING, SESSION_STATES };

enum close_reason { CLOSE_CLIENT, CLOSE_UPSTREAM, CLOSE_PROTOCOL, CLOSE_DIAL, CLOSE_STOP, CLOSE_SWITCH, CLOSE_LIMIT, CLOSE_MEMORY,
	CLOSE_VERSION /* older than a limit on protocol versions that came with mirroring */ };

/* UP_ABSENT ─▶ UP_DIALING ─▶ [UP_REPLAY: the agent repeats the client's handshake] ─▶ UP_READY ─▶ UP_CLOSED */
enum upstream_state { UP_ABSENT, UP_DIALING, UP_REPLAY, UP_READY, UP_CLOSED };

enum replay_step { REPLAY_STARTUP, REPLAY_MECHANISM, REPLAY_AUTH, REPLAY_REGISTER, REPLAY_USE };

/* A whole envelope that came in several segments (v5). */
struct assembly {
	uint8_t *data;
	size_t have, need;
};

struct upstream {
	struct session *session;
	enum side side;
	enum upstream_state state;
	enum replay_step step;
	bool segments;       /* v5 framing is on */
	bool conn_live;      /* conn is initialised and not yet reported closed */
	bool discard;        /* the body that is passing is dropped */
	bool ends_request;   /* the body that is passing ends the request `passing_stream` */
	bool blocked;        /* bytes in `in` wait for the end of the other side's answer */
	bool rebind;         /* bound to a keyspace that the session has left: closed once it is quiet, and opened again when needed */
	bool heard;          /* a byte has come on the connection */
	bool failed;         /* the last attempt to open it, or the connection itself, came to nothing */
	bool awaited;        /* a request waits for it to be opened: that one is told when it failed, others try again */
	enum compression compression; /* as STARTUP asked for; none although the client's is not: unpack.h */
	int16_t passing_stream;
	uint32_t inflight;
	uint64_t passing;    /* body bytes of the current answer still to come */
	struct reach_dial *dial;
	uint64_t replay_ns;  /* UP_REPLAY: since when it waits for an answer */
	struct conn conn;
	struct input in;
	struct assembly in_large; /* an answer that must be seen whole and fills several segments */
	struct addr address;
	struct upstream *corked_next; /* in the worker's list while corked */
	uint64_t corked_until;        /* 0 = not corked; see relay_durable() */
};

struct session {
	uint32_t magic;
	enum session_state state;
	enum close_reason reason;
	struct worker *worker;
	struct session *next, **previous;
	uint8_t version;                /* 0 = no frame seen yet */
	bool segments;                  /* client's framing is v5 segments */
	bool stalled;                   /* parsing waits: for an upstream, STARTUP's answer, or the tap */
	bool intercepted;
	bool followed;                  /* the course was looked at since the handshake ended */
	bool client_live;               /* client conn not yet reported closed */
	bool undecided;                 /* the client's first byte says how the primary is dialled: TLS or not */
	bool tls_passes;                /* TLS between client and cluster, relayed untouched: ours would go around it */
	enum compression compression;
	enum side primary;
	int streaming;                  /* side whose answer is half way to the client, −1 = none */
	char *dial_error;               /* why the primary could not be reached; NULL = it could */
	uint32_t writes;                /* in flight */
	char keyspace[CQL_NAME_MAX + 1];
	struct conn client;
	struct input in;
	struct input tail;              /* v5: envelopes of a segment whose parsing stopped half-way */
	struct assembly assembly;
	struct inflight_table inflight;
	struct upstream up[SIDES];
	struct addr peer, destination;
	uint64_t client_group;          /* the client's cgroup; 0 = unknown, it is not intercepted */
	struct intercept_slot *slot;
	uint64_t cookie;
	/* The client's handshake, kept for the other side. */
	struct span_owned {
		uint8_t *data;
		size_t size;
	} startup, token, reg;          /* bodies; token is wiped when freed; reg is what all REGISTERs ask for */
	struct deferred *deferred, *deferred_tail; /* the agent's answers that wait for `streaming` */
	size_t deferred_bytes;
	int64_t moment_us; /* a conditional write waits for the end of this one's millisecond; 0 = none does */
	uint64_t opened_ns, orphan_deadline_ns, closing_since_ns;
};

/*
 * The client does not take what it is told: nothing more is read or parsed, since the agent answers some requests itself, and such answers
 * have no cluster that would slow down. Whatever makes room calls session_go_on() or session_resume().
 */
static inline bool session_full(const struct session *s)
{
	return conn_congested(&s->client) || s->deferred_bytes > CONN_HIGH;
}

/* A new session for an accepted socket (takes fd). Counts and closes it when limits or memory forbid. */
void session_accept(struct worker *w, int fd, const struct addr *local, const struct addr *peer, bool intercepted);

/* Moves to another state; an illegal move is our bug and stops the agent. */
void session_set_state(struct session *s, enum session_state state);

/* Ends the session: connections close, records get their outcome, memory goes when libuv lets go. Harmless when closing. */
void session_close(struct session *s, enum close_reason reason);

/*
 * Does its client see the origin's nodes as they were? Once finished only an intercepted one does: the addresses that it knows lead here
 * as before, and it may not find another cluster there (docs/phases.md). One that came by itself has to learn where the target is.
 */
bool session_frozen(const struct session *s);

/* The worker's course has changed, or the session has just opened: its primary and its other side follow. */
void session_follow_course(struct session *s);

/* Whether the client may be read now; starts or stops reading, and parses what was kept back. */
void session_update_reading(struct session *s);

/* Goes on with what stopped parsing (an upstream came up, the hold is over …). Never to be called while bytes of this worker are being worked through. */
void session_resume(struct session *s);

/* Reads again if it may, and parses what was kept, without ending a stall. */
void session_go_on(struct session *s);

/* An envelope of the agent's own to the client, framed as the client speaks; waits while an answer is streaming. */
void session_answer(struct session *s, const uint8_t *envelope, size_t size);

/* A request has got its answer (or never will). Updates counters and whoever waits for quiet. */
void session_request_done(struct session *s, int16_t stream);

/* The session must close once idle (worker stop, limited-rate closing). */
bool session_idle(const struct session *s);

/* receive.c: parses client bytes. Returns bytes consumed; *ret_want = size of the next unit as far as known. */
size_t requests_consume(struct session *s, const uint8_t *data, size_t size, size_t *ret_want);

/* responses.c: the same for a cluster's bytes. Negative = malformed. */
ssize_t responses_consume(struct upstream *u, const uint8_t *data, size_t size, size_t *ret_want);

void upstream_open(struct session *s, enum side side, bool replay);
void upstream_close(struct upstream *u);
/* From the worker's tick: a repeated handshake that gets no answer counts as a lost connection. */
void upstream_sweep(struct upstream *u);
/* What is sent from now on leaves when relay_durable(`until`) is called. */
void upstream_cork(struct upstream *u, uint64_t until);
void upstream_readable(struct conn *c);
/* replay.c: an envelope during UP_REPLAY. Negative = the cluster refused; the session ends if it is the primary. */
/* SASL PLAIN (RFC 4616) without an authorization id. Size or −ENOSPC. */
ssize_t sasl_plain(const char *username, const char *password, uint8_t *to, size_t capacity);
void replay_begin(struct upstream *u);
int replay_answer(struct upstream *u, uint8_t opcode, uint8_t flags, struct span body);

static inline struct emit *session_emit(struct session *s, enum emit_to to)
{
	return &s->worker->emit[to];
}

/* A REGISTER that goes to a cluster; freed with its entry. NULL where the other one is not to be asked for so much. */
struct pending_register *replay_register(struct span body);
/* The cluster has taken it: its events are among those that the other one is asked for. */
void replay_registered(struct session *s, const struct pending_register *p);

/* For upstream.c and responses.c. */
void session_upstream_closed(struct session *s);
void session_inflight_drop(struct session *s, struct inflight *e);
/* A write without a record was applied, or may have been: counts it, once, and puts it on the ledger. */
void session_unmirrored(struct session *s, struct inflight *e);
void session_say_deferred(struct session *s);
void upstream_update_reading(struct upstream *u);
void upstream_follow_course(struct upstream *u);
