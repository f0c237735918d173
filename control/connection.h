/*
 * One client's conversation, on a thread of its own: greeting, request, answer. Internal to
 * control/; server.c accepts and counts. Whatever the client does or fails to do costs this thread
 * only.
 */
#ifndef CONTROL_CONNECTION_H
#define CONTROL_CONNECTION_H

#include <stdatomic.h>

#include "control/request.h"

#define CONNECTION_REQUEST_SECONDS 10 /* to send the request */
#define CONNECTION_SEND_SECONDS \
	30 /* to take one line, but for subscribers: those get `lost` instead */
#define CONNECTION_QUEUE_EVENTS 4096
#define CONNECTION_PROGRESS_MS 200 /* between two lines of it, and two looks whether the client is still there */

struct connection_setup {
	int fd; /* connected, blocking; the caller closes it */
	struct command_context context;
	const atomic_bool *stopping;
};

void connection_serve(const struct connection_setup *setup);
/* {"done":false,"error":TEXT,"errno":N}, without waiting. */
void connection_refuse(int fd, int error, const char *text);
/* Send all of it and a newline; 0 or negative errno. flags as for send(2). */
int connection_send(int fd, const char *line, size_t length_bytes, int flags);

#endif
