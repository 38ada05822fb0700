/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heartbeat: a thread that tells the kernel "clients sent here are served", as long as it is true.
 *
 * It vouches for the workers, not for itself: each worker moves a counter, and one that stands still for
 * stall_ms ends the heartbeat for all, because the kernel cannot know which worker a connection will fall to.
 * The deadline lies in memory that the connect hooks read; nobody has to be told when it runs out.
 *
 * It also sees that another agent has taken over: the boot id in the map is not ours any more, or our pins
 * are gone (an agent with another map layout). Then it never beats again.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "intercept/priv.h"

static bool workers_alive(struct intercept *it, uint64_t *seen, uint64_t *since, uint64_t now)
{
	bool alive = true;

	for (unsigned i = 0; i < it->workers; i++) {
		uint64_t beats = atomic_load_explicit(&it->progress[i].beats, memory_order_relaxed);

		if (beats != seen[i]) {
			seen[i] = beats;
			since[i] = now;
		}
		alive = alive && now - since[i] < it->stall_ns;
	}
	return alive;
}

static bool pins_there(const struct intercept *it)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/heartbeat", it->pin_dir);
	return !access(path, F_OK);
}

static void *heartbeat_run(void *opaque)
{
	struct intercept *it = opaque;
	uint64_t seen[INTERCEPT_MAX_WORKERS] = {0}, since[INTERCEPT_MAX_WORKERS];
	struct timespec pause = {.tv_sec = (time_t)(it->period_ns / 1000000000u),
				 .tv_nsec = (long)(it->period_ns % 1000000000u)};

	MAGIC_CHECK(it, INTERCEPT_MAGIC);
	for (unsigned i = 0; i < INTERCEPT_MAX_WORKERS; i++)
		since[i] = clock_now_ns();
	while (!atomic_load(&it->stop)) {
		uint64_t now = clock_now_ns();

		/* The lock of an agent that we took over from comes free when it ends. */
		if (!atomic_load(&it->locked) && !flock(it->lock_fd, LOCK_EX | LOCK_NB)) {
			atomic_store(&it->locked, true);
			exclusion_reconcile(it, /* alone= */ true);
		}
		if (__atomic_load_n(&it->heartbeat->boot, __ATOMIC_ACQUIRE) != it->boot || !pins_there(it)) {
			atomic_store(&it->superseded, true);
			return NULL;
		}
		if (workers_alive(it, seen, since, now)) {
			__atomic_store_n(&it->heartbeat->deadline_ns, now + it->deadline_ns,
					 __ATOMIC_RELEASE);
			__atomic_fetch_add(&it->heartbeat->beats, 1, __ATOMIC_RELAXED);
		}
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int heartbeat_start(struct intercept *it, struct error *e)
{
	int code;

	__atomic_store_n(&it->heartbeat->deadline_ns, clock_now_ns() + it->deadline_ns, __ATOMIC_RELEASE);
	__atomic_store_n(&it->heartbeat->boot, it->boot, __ATOMIC_RELEASE);
	code = -pthread_create(&it->beater, NULL, heartbeat_run, it);
	if (code)
		return error_set(e, code, "starting the heartbeat thread: %s", strerror(-code));
	it->beating = true;
	return 0;
}

void heartbeat_stop(struct intercept *it)
{
	if (!it->beating)
		return;
	atomic_store(&it->stop, true);
	pthread_join(it->beater, NULL);
	it->beating = false;
}

void intercept_beat(struct intercept *it, unsigned worker)
{
	if (worker < INTERCEPT_MAX_WORKERS)
		atomic_fetch_add_explicit(&it->progress[worker].beats, 1, memory_order_relaxed);
}

bool intercept_superseded(struct intercept *it)
{
	return atomic_load_explicit(&it->superseded, memory_order_relaxed) ||
	       (it->started && __atomic_load_n(&it->heartbeat->boot, __ATOMIC_RELAXED) != it->boot);
}
