/*
 * The control protocol, one JSON object per line:
 *   server: {"version":1,"pid":..,"mountpoint":..,"state":..,"protocol":1}			the
 * greeting
 *   client: {"command":NAME, ...arguments}							one request per
 * connection server: an element per line, then {"done":true, ...} or
 * {"done":false,"error":TEXT,"errno":N}; when the request has "progress":true, in between
 * {"progress":{"phase":NAME,"done":N,"total":N}}, total 0: not known. A client that has gone ends what it asked for.
 */
#ifndef CONTROL_REQUEST_H
#define CONTROL_REQUEST_H

#include "control/commands.h"

#define CONTROL_PROTOCOL 1
#define CONTROL_REQUEST_MAX 65536u

struct request {
	char command[32];
	struct command_args args;
	char *path; /* args.path points here */
	char *text; /* args.text does */
};

/* 0, or -EINVAL with *why. request_fini() afterwards in either case. */
int request_parse(const char *line, size_t length_bytes, struct request *out, struct why *why);
void request_fini(struct request *request);
/* The request as one line without newline (json_line() of it). NULL: out of memory. */
struct json_object *request_make(const char *command, const struct command_args *args);

/* The name of the second socket of a mount, by its st_dev; attempts as in claim_socket_name(). */
void control_socket_name(dev_t dev, unsigned attempt, char *name, size_t size);

#endif
