/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The one header that the kernel side (bpf/) and the agent (agent/intercept/) share: what lies in the maps,
 * and how many of it.
 *
 * Every key and value is a named struct whose fields say what they hold, because `bpftool map dump pinned …`
 * is the interface of the person who debugs this at night (docs/inspect.md). Rules:
 *   - a change of any struct, enum number or map size changes ABI_LAYOUT, which names the pin directory;
 *   - no implicit padding (the asserts at the end), because keys are compared byte by byte;
 *   - addresses are bytes in network order, ports are numbers in host order, times are CLOCK_MONOTONIC in ns.
 *
 * Who writes what:
 *   - settings, heartbeat, watch4, watch6, targets, excluded: the agent; power: the agent or an operator;
 *   - destinations: sockops writes, the agent consumes;
 *   - credits: sockops claims, sk_msg writes `sent`, the agent `consumed`;
 *   - all else: the kernel side only.
 */
#pragma once
#include <linux/types.h>

#define ABI_LAYOUT 1

#define ABI_DESTINATIONS 16384u /* connects under way: from the client's SYN-ACK to the agent's accept */
#define ABI_WATCH 4096u
#define ABI_BYPASSED 16384u /* beyond that: counted, but without an entry */
#define ABI_STEERED 65536u  /* likewise */
#define ABI_TRIPS 1024u
#define ABI_CARRIED 16384u /* beyond that the processes that connected longest ago are forgotten */
#define ABI_DIRECT 64u	   /* target nodes for kernel-direct, for each family */
#define ABI_CREDITS 16384u /* accelerated connections; a power of two */
#define ABI_SOCKS 65536u
#define ABI_EXCLUDED 64u
#define ABI_LISTENERS 1024u
#define ABI_EVENT_BYTES (1u << 20) /* some 8,700 events while nobody reads */

#define ABI_AMBIGUOUS_NS \
	5000000000ull /* two namespaces with one 4-tuple within this time: refuse both, never guess */
#define ABI_STRIKE_WINDOW_NS 60000000000ull /* two failed redirects within this time trip a namespace */
#define ABI_STRIKES 2u
#define ABI_REFUSE_PORT 1u /* tcpmux on the client's own loopback: nothing has listened there for decades */

/* An address and a port. ip is 4 or 6; IPv4 fills the first four bytes of `address`, IPv4-mapped IPv6 is
 * stored as IPv4. */
struct endpoint {
	__u16 ip;
	__u16 port;
	__u8 address[16];
} __attribute__((aligned(4)));

/* The phase, see docs/phases.md: it decides what happens while no agent answers (bpf/decide.h). */
enum steer_phase {
	PHASE_IS_OBSERVE,
	PHASE_IS_MIRROR,
	PHASE_IS_DRAIN,
	PHASE_IS_CUTOVER,
	PHASE_IS_ROLLBACK,
	PHASE_IS_FINISH,
};

/* What became of a connect(2). */
enum verdict {
	VERDICT_LEFT_ALONE, /* none of our business: not watched, or one of the agent's own */
	VERDICT_REDIRECTED, /* to the agent */
	VERDICT_OBSERVED,   /* direct, on purpose: phase observe, where it does not relay */
	VERDICT_BYPASSED,   /* direct, although it should go through the agent: a gap */
	VERDICT_REFUSED,    /* ECONNREFUSED */
	VERDICT_DIRECT,	    /* kernel-direct: to a target node */
};

/* Why. The text that people see is cause_text() in agent/intercept/event.c. */
enum cause {
	CAUSE_AGENT_SERVES,
	CAUSE_OBSERVING,
	CAUSE_AGENT_STALE,	 /* its heartbeat ran out */
	CAUSE_AGENT_GONE,	 /* its listener closed */
	CAUSE_NAMESPACE_TRIPPED, /* redirecting failed twice there */
	CAUSE_NO_AGENT_ADDRESS,	 /* the agent has no address of this family */
	CAUSE_HOOK_MISSED,	 /* a TCP connection that no connect hook saw */
	CAUSE_MPTCP,		 /* its first subflow is what the hook sees */
	CAUSE_NO_MEMORY,	 /* the socket's storage could not be made */
	CAUSE_FINISHED,
	CAUSE_CONNECT_FAILED, /* strike: SYN_SENT → CLOSE while the agent was alive */
	CAUSE_UNATTRIBUTED,   /* strike: arrived at the agent under another source address */
	CAUSE_PROBE,	      /* the agent's own start-up probe */
	CAUSE_SWITCHED_OFF,   /* kill switch */
	CAUSE_COUNT,
};

/* Kill switch. One word, so that one bpftool line turns it: off is 0 0 0 0, on is 1 0 0 0. */
enum power_state { INTERCEPTION_OFF, INTERCEPTION_ON };
struct power {
	enum power_state interception;
};

struct agent_address {
	struct endpoint ip4; /* port 0: there is none */
	struct endpoint ip6;
};

/* Written by the agent through mapped memory, word by word; what must change as a whole (the address) is
 * written beside and switched to. */
struct settings {
	__u32 layout;
	enum steer_phase phase;
	__u32 observe_relays;
	__u32 acceleration; /* 1: new connections are enrolled and bytes redirected; 0: neither */
	__u32 agent_mark;   /* SO_MARK of the agent's own sockets */
	__u32 agent_pid;
	__u64 agent_netns;   /* cookie of the namespace in which it listens */
	__u32 address_index; /* which of the two is valid */
	struct agent_address agent[2];
	__u32
	    targets4; /* how many entries of the map `targets` are valid: IPv4 from 0, IPv6 from ABI_DIRECT */
	__u32 targets6;
	__u32 credit_bytes;
	__u64 grace_ns;
	__u64 trip_ns;
};

/* Written through mapped memory by the agent's heartbeat thread. */
struct heartbeat {
	__u64 boot; /* random for each start of an agent; 0: none ever started */
	__u64 deadline_ns;
	__u64 beats;
	__u64 unattributed_ns; /* when the agent last refused a connection that it could not attribute */
	__u64 unattributed;    /* how many */
};

/* LPM tries: 32 bits of port, which always match whole, and then the address: prefixlen = 32 + CIDR bits. */
struct watch4_key {
	__u32 prefixlen;
	__u32 port;
	__u8 address[4];
};
struct watch6_key {
	__u32 prefixlen;
	__u32 port;
	__u8 address[16];
};
enum watch_why {
	WATCH_NOT,
	WATCH_CONFIGURED,
	WATCH_LEARNED, /* from system.peers */
	WATCH_SERVICE, /* a Service IP */
	WATCH_EXCEPT,  /* leave alone what matches here */
	WATCH_PROBE,   /* the agent's own health check: always refused */
};
struct watch {
	enum watch_why why;
	__u32 prefix; /* CIDR bits, for the reader */
	__u64 connects;
};

/* A connection as the agent sees it: who called whom. */
struct way {
	struct endpoint client;
	struct endpoint agent;
};
/* Where that client wanted to go. Written before its handshake ends, consumed by the agent's accept, removed
 * when the client closes. */
struct destination {
	struct endpoint asked;
	__s32 credit_slot; /* −1: not accelerated */
	__u64 client_cookie;
	__u64 netns;
	__u64 cgroup;
	__u64 established_ns;
	__u32 pid;
	__u32 ambiguous; /* 1: a second namespace has the same 4-tuple; the agent refuses */
	char program[16];
};

/* Kept on the client's socket itself (sk_storage): getpeername and all later hooks read it. */
struct client {
	struct endpoint asked;
	struct endpoint steered;
	enum verdict verdict;
	enum cause cause;
	enum steer_phase phase;
	__s32 credit_slot;
	__u64 cookie;
	__u64 netns;
	__u64 cgroup;
	__u64 connect_ns;
	__u64 established_ns; /* 0: not yet */
	__u64 redirected_bytes;
	__u32 pid;
	__u32 tcp_for_good; /* 1: no byte is redirected any more */
	char program[16];
};

/*
 * A connection that is open now: in the map `steered` when it goes to the agent or straight to a target node,
 * in `bypassed` when it goes past the agent. Key: the cookie of the client's socket (`ss -e` shows it as
 * sk:<hexadecimal>).
 */
struct flow_key {
	__u64 client_cookie;
};
struct flow {
	struct endpoint destination; /* what the client asked for */
	struct endpoint steered;     /* where it goes instead; ip 0: nowhere else */
	struct endpoint client;
	enum verdict verdict;
	enum cause cause;
	enum steer_phase phase; /* when it connected */
	__u64 netns;
	__u64 cgroup;
	__u64 since_ns;
	__u32 pid;
	__u32 zero;
	char program[16];
};

/* A network namespace in which redirecting failed. */
struct trip_key {
	__u64 netns;
};
struct trip {
	__u32 strikes;
	enum cause last_cause;
	__u64 last_strike_ns;
	__u64 since_ns; /* 0: not tripped */
	__u64 until_ns;
	__u64 boot; /* of the agent that could not be reached: a new one gets a new chance */
};

/* A process (thread group) of which a connection was redirected. The number may come again for another one: that one
 * stays with the agent in phase finish as well, which is slower and nothing else. */
struct carried_key {
	__u32 pid;
};
struct carried {
	__u64 connect_ns; /* its last one */
	char program[16];
};

/* Sockets enrolled for sk_msg: key of the client's own and of the agent's end alike. The netns is part of it
 * because 4-tuples repeat. */
struct pair_key {
	__u64 client_cookie;
	__u64 client_netns;
};

/* Byte credit of one accelerated connection. sent − consumed may not exceed settings.credit_bytes. */
struct credit {
	__u64 owner; /* cookie of the client's socket; 0: free */
	__u64 boot;  /* heartbeat.boot when it was claimed */
	__u64 sent;
	__u64 consumed;
};

struct excluded_key {
	__u64 cgroup;
};
struct excluded {
	__u32 is_agent; /* 0: excluded by configuration */
};

/* Listening sockets in the agent's cgroup: their closing is noticed at once. */
struct listener_key {
	__u64 netns;
	__u32 port;
	__u32 zero;
};
struct listener {
	__s32 open;
	__u32 zero;
	__u64 closed_ns; /* when the last one closed */
};

enum event_kind {
	EVENT_NONE,
	EVENT_REDIRECTED,
	EVENT_OBSERVED,
	EVENT_BYPASSED,
	EVENT_BYPASS_ENDED,
	EVENT_REFUSED,
	EVENT_DIRECT,
	EVENT_TRIPPED,
};
struct event {
	enum event_kind kind;
	enum cause cause;
	enum steer_phase phase;
	__u32 pid;
	__u64 at_ns;
	__u64 duration_ns;
	__u64 client_cookie;
	__u64 netns;
	__u64 cgroup;
	struct endpoint destination;
	struct endpoint steered;
	char program[16];
};

/*
 * Counters: one struct for each CPU, so that `bpftool map dump` prints the names. Every connect to a watched
 * destination is counted in exactly one of the first block; everything that can fail on our side is counted
 * in the last.
 */
#define COUNTER_LIST(COUNTER)                                                                                \
	COUNTER(redirected, "connects sent to the agent")                                                    \
	COUNTER(observed, "connects left direct on purpose while observing")                                 \
	COUNTER(bypassed_agent_stale, "connects that went past the agent: its heartbeat had run out")        \
	COUNTER(bypassed_agent_gone, "connects that went past the agent: its listener had closed")           \
	COUNTER(bypassed_tripped,                                                                            \
		"connects that went past the agent: redirecting fails in their network namespace")           \
	COUNTER(bypassed_no_address, "connects that went past the agent: it has no address of their family") \
	COUNTER(bypassed_switched_off, "connects that went past the agent: the kill switch is off")          \
	COUNTER(bypassed_mptcp, "MPTCP connects to watched destinations, which cannot be steered")           \
	COUNTER(bypassed_hook_missed, "TCP connections to watched destinations that no connect hook saw")    \
	COUNTER(bypassed_no_memory, "connects that went past the agent: no memory for the socket's storage") \
	COUNTER(refused_agent_stale, "connects refused as the phase demands: heartbeat had run out")         \
	COUNTER(refused_agent_gone, "connects refused as the phase demands: listener had closed")            \
	COUNTER(refused_tripped,                                                                             \
		"connects refused as the phase demands: redirecting fails in their network namespace")       \
	COUNTER(refused_no_address,                                                                          \
		"connects refused as the phase demands: no agent address of their family")                   \
	COUNTER(refused_no_memory,                                                                           \
		"connects refused as the phase demands: no memory for the socket's storage")                 \
	COUNTER(direct, "connects sent straight to a target node")                                           \
	COUNTER(own, "connects to watched destinations by the agent itself or by an excluded cgroup")        \
	COUNTER(probes, "health checks by the agent")                                                        \
	COUNTER(peernames, "getpeername answers that name the original destination")                         \
	COUNTER(established, "redirected connects whose handshake ended")                                    \
	COUNTER(connect_failed, "redirected connects that never reached the agent although it was alive")    \
	COUNTER(unattributed, "redirected connects that the agent could not attribute")                      \
	COUNTER(trips, "times that a network namespace was given up for a while")                            \
	COUNTER(accelerated, "connections whose both ends are enrolled for sk_msg")                          \
	COUNTER(accelerate_no_slot, "connections not accelerated: no credit slot free")                      \
	COUNTER(accelerate_busy,                                                                             \
		"connections not accelerated: another sockmap user holds the socket (EBUSY)")                \
	COUNTER(accelerate_refused, "connections not accelerated: the kernel refused to enrol the socket")   \
	COUNTER(messages_redirected, "sends that went into the agent's receive queue")                       \
	COUNTER(messages_tcp_bytes_before, "sends that stay on TCP: bytes had gone over TCP before")         \
	COUNTER(messages_tcp_no_credit, "connections that changed to TCP for good: credit spent")            \
	COUNTER(messages_tcp_no_peer,                                                                        \
		"connections that stay on TCP: the agent's end was not enrolled at the first send")          \
	COUNTER(destination_stale, "entries of an earlier connection with the same 4-tuple, replaced")       \
	COUNTER(destination_ambiguous, "one 4-tuple from two network namespaces: the agent refuses")         \
	COUNTER(destination_full, "connections the agent will refuse: no room for their destination")        \
	COUNTER(bypass_untracked, "bypassing connections without an entry: table full")                      \
	COUNTER(steered_untracked, "steered connections without an entry: table full")                       \
	COUNTER(events_lost, "events that found the ring full")

struct counters {
#define COUNTER_FIELD(name, help) __u64 name;
	COUNTER_LIST(COUNTER_FIELD)
#undef COUNTER_FIELD
};

#define ABI_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " changed: raise ABI_LAYOUT")
ABI_SIZE(struct endpoint, 20);
ABI_SIZE(struct settings, 36 + 80 + 12 + 16);
ABI_SIZE(struct heartbeat, 40);
ABI_SIZE(struct watch4_key, 12);
ABI_SIZE(struct watch6_key, 24);
ABI_SIZE(struct watch, 16);
ABI_SIZE(struct way, 40);
ABI_SIZE(struct destination, 24 + 32 + 8 + 16);
ABI_SIZE(struct client, 40 + 16 + 48 + 8 + 16);
ABI_SIZE(struct flow, 60 + 12 + 24 + 8 + 16);
ABI_SIZE(struct trip, 40);
ABI_SIZE(struct pair_key, 16);
ABI_SIZE(struct credit, 32);
ABI_SIZE(struct listener_key, 16);
ABI_SIZE(struct listener, 16);
ABI_SIZE(struct event, 16 + 40 + 40 + 16);
_Static_assert((ABI_CREDITS & (ABI_CREDITS - 1)) == 0, "credit slots are chosen by mask");
