/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `<admin.socket>.lock`: whoever holds it is the agent that this socket, and the state directory that goes with it, belong to. The
 * lock and not the socket says whether an agent lives: it goes with the process, however that ends.
 */
#pragma once
#include "base/error.h"

/* 0 with *ret_fd, which holds the lock until it is closed. −EADDRINUSE with the pid of the holder; other −errno with a text. */
int admin_lock_take(const char *socket, int *ret_fd, struct error *error);
