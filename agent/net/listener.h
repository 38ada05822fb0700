/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets. Several workers listen on one address (SO_REUSEPORT), so that no thread hands connections over. */
#pragma once
#include <stdbool.h>

#include "base/error.h"
#include "net/addr.h"

/* A non-blocking listening socket; `*a` gets the port when it was 0. The descriptor, or −errno with the reason. */
int listener_open(struct addr *a, struct error *error);

/* The next connection: a descriptor (non-blocking, TCP_NODELAY), −EAGAIN, or −errno. */
int listener_accept(int listener, struct addr *ret_peer);
