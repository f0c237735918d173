#include "dump/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * json-c answers out-of-memory with NULL or an error that nobody here could act upon in the middle: an element lacks that key then. What is fatal is an
 * element that could not be made at all.
 */
struct json_object *element_make(const char *type)
{
	struct json_object *element = json_object_new_object();

	if (element)
		json_add_text(element, "type", type);
	return element;
}

void element_hex(struct json_object *element, const char *key, const void *bytes, size_t length)
{
	const uint8_t *from = bytes;
	char *text = malloc(2 * length + 1);

	if (!text)
		return;
	for (size_t i = 0; i < length; i++)
		snprintf(text + 2 * i, 3, "%02x", from[i]);
	text[2 * length] = 0;
	json_add_text(element, key, text);
	free(text);
}

void element_uuid(struct json_object *element, const char *key, const uint8_t *uuid)
{
	char text[40];

	snprintf(text, sizeof(text), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", uuid[0], uuid[1], uuid[2],
		 uuid[3], uuid[4], uuid[5], uuid[6], uuid[7], uuid[8], uuid[9], uuid[10], uuid[11], uuid[12], uuid[13], uuid[14],
		 uuid[15]);
	json_add_text(element, key, text);
}

void element_bytes(struct json_object *element, const char *key, const char *bytes, size_t length)
{
	char raw[64];

	json_add(element, key, json_string_make(bytes, length));
	if (json_is_utf8(bytes, length))
		return;
	snprintf(raw, sizeof(raw), "%s_raw", key);
	json_object_object_add(element, raw, json_base64_make(bytes, length));
}

void element_list(struct json_object *element, const char *key, struct json_object *member)
{
	struct json_object *list = json_object_object_get(element, key);

	if (!list) {
		list = json_object_new_array();
		json_add(element, key, list);
	}
	if (list && member)
		json_object_array_add(list, member);
}

void element_copies(struct json_object *element, const struct dump_block *block)
{
	for (unsigned k = 0; k < 2; k++) {
		const struct dump_copy *copy = &block->copy[k];
		struct json_object *member = copy->offset ? json_object_new_object() : NULL;

		if (!member)
			continue;
		json_add_text(member, "copy", k ? "replica" : "primary");
		json_add_u64(member, "device_offset", copy->offset);
		json_add_text(member, "state", copy->state);
		if (copy->error == -EUCLEAN)
			json_add_text(member, "wrong", copy->field);
		if (!copy->error)
			json_add_u64(member, "sequence", copy->sequence);
		element_list(element, "copies", member);
	}
}

int element_emit(const struct dump_request *request, struct json_object *element)
{
	return element ? request->emit(request->arg, element) : -ENOMEM;
}
