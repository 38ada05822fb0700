/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /metrics, /healthz and /readyz. libmicrohttpd runs on the main loop (its epoll descriptor is polled by
 * libuv), so that the checks may look at whatever the main thread owns without a lock. Connections, request
 * size and waiting time are bounded.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <uv.h>

#include "base/error.h"

#define HTTP_CONNECTIONS_MAX 32
#define HTTP_REQUEST_MAX 16384 /* bytes of memory for each connection */
#define HTTP_IDLE_SECONDS 10

struct http;

/*
 * A health question. True = 200, false = 503. `body` (borrowed) is the JSON object that is sent: add what
 * explains the answer, by custom an array "reasons" of texts. "ok" is set to the result afterwards.
 */
typedef bool (*http_check)(json_t *body, void *context);

struct http_options {
	const char *address; /* IP literal; borrowed */
	uint16_t port;	     /* 0 = any free one (tests): http_port() tells */
	void (*metrics)(FILE *out, void *context); /* adds series to /metrics; NULL = none */
	http_check health,
	    ready; /* health: should this process be restarted? ready: may clients be led here? */
	void *context;
};

/* 0, or −errno with the reason. *ret_http is the caller's until http_stop. */
int http_start(uv_loop_t *loop, const struct http_options *options, struct http **ret_http,
	       struct error *error);

uint16_t http_port(const struct http *http);

/* Takes `http` (NULL is allowed); its memory goes with the next loop turn. */
void http_stop(struct http *http);
