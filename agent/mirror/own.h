/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which TCP connections are this process's own: /proc/self/net/tcp names the socket behind an address and port, /proc/self/fd the
 * sockets that we hold. A hostNetwork pod has the node's address as well, but not our sockets.
 */
#pragma once
#include <stdbool.h>

#include "net/addr.h"

struct own_sockets;

/* NULL = out of memory. Looks for the first time when it is asked. */
struct own_sockets *own_sockets_new(void);
void own_sockets_free(struct own_sockets *o);

/*
 * Whether `local` (address and port, as a cluster sees its client) is the near end of a connection of ours; true as well for one
 * that this machine no longer has: it has just been closed. False for other machines' addresses and other processes' sockets.
 * A writers_ours; `context` is the struct own_sockets.
 */
bool own_sockets_has(void *context, const struct addr *local);
