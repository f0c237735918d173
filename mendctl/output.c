#include "mendctl/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLD_BYTES (1u << 20)
#define CELL_BYTES 4096

void output_begin(struct output *output, bool json, const char *array, const struct column *columns,
		  const char *nothing)
{
	memset(output, 0, sizeof(*output));
	output->json = json;
	output->array = array;
	output->columns = columns;
	output->nothing = nothing;
}

static void flush_held(struct output *output)
{
	if (!output->error && output->held_bytes &&
	    (fwrite(output->held, 1, output->held_bytes, stdout) != output->held_bytes ||
	     fflush(stdout)))
		output->error = errno ? -errno : -EIO;
	output->held_bytes = 0;
}

static void put(struct output *output, const char *text, size_t length)
{
	if (output->held_bytes + length > output->held_capacity) {
		size_t capacity = (output->held_bytes + length) * 2;
		char *held = realloc(output->held, capacity);

		if (!held) {
			output->error = -ENOMEM;
			return;
		}
		output->held = held;
		output->held_capacity = capacity;
	}
	memcpy(output->held + output->held_bytes, text, length);
	output->held_bytes += length;
	if (output->held_bytes > HOLD_BYTES)
		flush_held(output);
}

static void put_text(struct output *output, const char *text)
{
	put(output, text, strlen(text));
}

/* --- readable --- */

/* Control characters, those of Latin-1 in UTF-8 (0xc2 0x80 ..) included: how many bytes, or 0. */
static size_t control_length(const unsigned char *text)
{
	if (text[0] < ' ' || text[0] == 0x7f)
		return 1;
	return text[0] == 0xc2 && text[1] >= 0x80 && text[1] < 0xa0 ? 2 : 0;
}

/* What a file's name may hold must not reach the terminal: control characters become \ooo. */
static void put_cell(struct output *output, const char *text, int width)
{
	size_t shown = 0, limit = (size_t)abs(width);
	size_t escape = 0;
	char octal[8];

	if (width > 0)
		for (size_t length = strlen(text); length < limit; length++)
			put_text(output, " ");
	for (; *text; text++) {
		if (!escape)
			escape = control_length((const unsigned char *)text);
		if (!escape) {
			put(output, text, 1);
			shown++;
			continue;
		}
		snprintf(octal, sizeof(octal), "\\%03o", (unsigned char)*text);
		put_text(output, octal);
		shown += 4;
		escape--;
	}
	if (width < 0)
		for (; shown < limit; shown++)
			put_text(output, " ");
}

static size_t add_text(char *to, size_t used, const char *text)
{
	static const char more[] = "...";
	size_t room = CELL_BYTES - sizeof(more) - used, length = strlen(text);

	if (used >= CELL_BYTES - sizeof(more))
		return used;
	if (length >= room) {
		memcpy(to + used, text, room);
		strcpy(to + CELL_BYTES - sizeof(more), more);
		return CELL_BYTES - sizeof(more);
	}
	memcpy(to + used, text, length + 1);
	return used + length;
}

static void describe(struct json_object *value, char *to, size_t *used);

static void describe_members(struct json_object *value, char *to, size_t *used)
{
	struct json_object_iterator at = json_object_iter_begin(value),
				    end = json_object_iter_end(value);
	bool first = true;

	for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
		if (!first)
			*used = add_text(to, *used, "+");
		describe(json_object_iter_peek_value(&at), to, used);
		first = false;
	}
}

/* Strings as they are, numbers in digits, yes and no, lists with commas, {pos, len} as pos+len. */
static void describe(struct json_object *value, char *to, size_t *used)
{
	switch (json_object_get_type(value)) {
	case json_type_null:
		*used = add_text(to, *used, "-");
		break;
	case json_type_boolean:
		*used = add_text(to, *used, json_object_get_boolean(value) ? "yes" : "no");
		break;
	case json_type_array:
		for (size_t i = 0; i < json_object_array_length(value); i++) {
			if (i)
				*used = add_text(to, *used, ", ");
			describe(json_object_array_get_idx(value, i), to, used);
		}
		break;
	case json_type_object:
		describe_members(value, to, used);
		break;
	default:
		*used = add_text(to, *used, json_object_get_string(value));
	}
}

static void put_row(struct output *output, struct json_object *element)
{
	for (const struct column *column = output->columns; column->key; column++) {
		char cell[CELL_BYTES] = "";
		size_t used = 0;

		describe(json_object_object_get(element, column->key), cell, &used);
		put_cell(output, cell, column->width);
		put_text(output, column[1].key ? "  " : "\n");
	}
}

static void put_headers(struct output *output)
{
	for (const struct column *column = output->columns; column->key; column++) {
		put_cell(output, column->header, column->width);
		put_text(output, column[1].key ? "  " : "\n");
	}
}

/* {"reads": 1, "writes": 2} under the table: "media: reads 1, writes 2". */
static void put_extra(struct output *output, const char *name, struct json_object *value)
{
	struct json_object_iterator at = json_object_iter_begin(value),
				    end = json_object_iter_end(value);
	const char *separator = ": ";

	put_text(output, name);
	for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
		char cell[CELL_BYTES] = "";
		size_t used = 0;

		put_text(output, separator);
		put_text(output, json_object_iter_peek_name(&at));
		put_text(output, " ");
		describe(json_object_iter_peek_value(&at), cell, &used);
		put_cell(output, cell, 0);
		separator = ", ";
	}
	put_text(output, "\n");
}

/* --- JSON --- */

static void put_opening(struct output *output)
{
	char text[128];

	snprintf(text, sizeof(text), "{\"version\":%d,\"%s\":[", JSON_VERSION, output->array);
	put_text(output, text);
}

static void put_value(struct output *output, struct json_object *value)
{
	size_t length;
	const char *line = json_line(value, &length);

	if (line)
		put(output, line, length);
	else
		output->error = -ENOMEM;
}

static void put_closing(struct output *output, struct json_object *extra)
{
	put_text(output, output->count ? "\n]" : "]");
	if (extra) {
		json_object_object_foreach(extra, key, value)
		{
			put_text(output, ",\"");
			put_text(output, key);
			put_text(output, "\":");
			put_value(output, value);
		}
	}
	put_text(output, "}\n");
}

/* --- both --- */

int output_emit(void *arg, struct json_object *element)
{
	struct output *output = arg;

	if (output->json) {
		if (!output->count)
			put_opening(output);
		put_text(output, output->count ? ",\n" : "\n");
		put_value(output, element);
	} else if (output->columns) {
		if (!output->count)
			put_headers(output);
		put_row(output, element);
	}
	output->count++;
	json_object_put(element);
	return output->error;
}

static void put_end(struct output *output, struct json_object *extra)
{
	if (output->json) {
		if (!output->count)
			put_opening(output);
		put_closing(output, extra);
		return;
	}
	if (!output->count && output->nothing) {
		put_text(output, output->nothing);
		put_text(output, "\n");
	}
	if (extra) {
		json_object_object_foreach(extra, key,
					   value) if (json_object_is_type(value, json_type_object))
		    put_extra(output, key, value);
	}
}

int output_end(struct output *output, struct json_object *extra, struct why *why)
{
	int error;

	put_end(output, extra);
	flush_held(output);
	error = output->error;
	output_abandon(output);
	return error ? why_set(why, error, "writing to stdout: %s", strerror(-error)) : 0;
}

void output_abandon(struct output *output)
{
	free(output->held);
	output->held = NULL;
	output->held_bytes = 0;
	output->held_capacity = 0;
}
