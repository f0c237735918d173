/*
 * The answer on stdout: one JSON object, or a table for people. Held back up to 1 MiB, so that an
 * error leaves nothing on stdout unless the answer is a long one; then streamed.
 */
#ifndef MENDCTL_OUTPUT_H
#define MENDCTL_OUTPUT_H

#include "control/json.h"
#include "util/why.h"

struct column {
	const char *key; /* of the element; NULL ends the list */
	const char *header;
	int width; /* negative: to the left; 0: the last, as long as it is */
};

struct output {
	bool json;
	const char *array;
	const struct column *columns;
	const char *nothing; /* said when there is no element; readable form only */
	size_t count;
	char *held;
	size_t held_bytes, held_capacity;
	int error; /* the first one; sticky */
};

void output_begin(struct output *output, bool json, const char *array, const struct column *columns,
		  const char *nothing);
/* A command_emit_fn: takes the element. */
int output_emit(void *output, struct json_object *element);
/* extra: further keys of the object, or NULL. 0, or -errno with *why when stdout does not take it.
 */
int output_end(struct output *output, struct json_object *extra, struct why *why);
/* Forget what is held back. */
void output_abandon(struct output *output);

#endif
