#include "mendctl/readable.h"

#include <string.h>

/* What a name on a hostile image may hold must not reach the terminal. */
static void print_text(FILE *to, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)text[i];
		bool latin1_control = i && (unsigned char)text[i - 1] == 0xc2 && byte >= 0x80 && byte < 0xa0;

		if (byte < ' ' || byte == 0x7f || byte == '"' || byte == '\\' || latin1_control)
			fprintf(to, "\\%03o", byte);
		else
			putc(byte, to);
	}
}

static bool is_word(const char *text)
{
	return *text && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_-") == strlen(text);
}

static void print_value(FILE *to, struct json_object *value)
{
	const char *text = json_object_get_string(value);

	if (json_object_is_type(value, json_type_boolean)) {
		fputs(json_object_get_boolean(value) ? "yes" : "no", to);
	} else if (json_object_is_type(value, json_type_string) && !is_word(text)) {
		putc('"', to);
		print_text(to, text, (size_t)json_object_get_string_len(value));
		putc('"', to);
	} else {
		fputs(text ? text : "-", to);
	}
}

static bool is_list_of_objects(struct json_object *value)
{
	return json_object_is_type(value, json_type_array) && json_object_array_length(value) > 0 &&
	       json_object_is_type(json_object_array_get_idx(value, 0), json_type_object);
}

static void print_list(FILE *to, struct json_object *list)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		if (i)
			putc(',', to);
		print_value(to, json_object_array_get_idx(list, i));
	}
}

static void print_members(FILE *to, struct json_object *element)
{
	json_object_object_foreach(element, key, value)
	{
		if (!strcmp(key, "type") || is_list_of_objects(value))
			continue;
		fprintf(to, "  %s ", key);
		if (json_object_is_type(value, json_type_array))
			print_list(to, value);
		else
			print_value(to, value);
	}
	putc('\n', to);
}

static void print_lists(FILE *to, struct json_object *element)
{
	json_object_object_foreach(element, key, value)
	{
		if (!is_list_of_objects(value))
			continue;
		for (size_t i = 0; i < json_object_array_length(value); i++) {
			fprintf(to, "    %s:", key);
			print_members(to, json_object_array_get_idx(value, i));
		}
	}
}

void readable_print(FILE *to, struct json_object *element)
{
	struct json_object *type = json_object_object_get(element, "type");

	fputs(type ? json_object_get_string(type) : "?", to);
	print_members(to, element);
	print_lists(to, element);
}
