#include "control/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PARSE_DEPTH 8
#define CONSTANT_KEY (JSON_C_OBJECT_ADD_KEY_IS_NEW | JSON_C_OBJECT_ADD_CONSTANT_KEY)

static const char replacement[] = "\xef\xbf\xbd";
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* How many bytes follow this leading byte, and which the first of them may be; -1: no leading byte.
 */
static int utf8_lead(unsigned char lead, unsigned char *low, unsigned char *high)
{
	*low = 0x80;
	*high = 0xbf;
	if (lead < 0x80)
		return 0;
	if (lead >= 0xc2 && lead <= 0xdf)
		return 1;
	if (lead >= 0xe0 && lead <= 0xef) {
		*low = lead == 0xe0 ? 0xa0 : 0x80;
		*high = lead == 0xed ? 0x9f : 0xbf;
		return 2;
	}
	if (lead >= 0xf0 && lead <= 0xf4) {
		*low = lead == 0xf0 ? 0x90 : 0x80;
		*high = lead == 0xf4 ? 0x8f : 0xbf;
		return 3;
	}
	return -1;
}

/* One character: its length, or minus the length of the malformed part (Unicode's "maximal
 * subpart"). */
static int utf8_step(const unsigned char *bytes, size_t left)
{
	unsigned char low, high;
	int follow = utf8_lead(bytes[0], &low, &high);

	if (follow < 0)
		return -1;
	for (int i = 1; i <= follow; i++) {
		if ((size_t)i >= left || bytes[i] < low || bytes[i] > high)
			return -i;
		low = 0x80;
		high = 0xbf;
	}
	return follow + 1;
}

bool json_is_utf8(const char *bytes, size_t length_bytes)
{
	for (size_t at = 0; at < length_bytes;) {
		int step = utf8_step((const unsigned char *)bytes + at, length_bytes - at);

		if (step < 0)
			return false;
		at += (size_t)step;
	}
	return true;
}

static struct json_object *string_of_length(const char *bytes, size_t length_bytes)
{
	return length_bytes > INT32_MAX ? NULL
					: json_object_new_string_len(bytes, (int)length_bytes);
}

struct json_object *json_string_make(const char *bytes, size_t length_bytes)
{
	struct json_object *string;
	size_t used = 0;
	char *text;

	if (json_is_utf8(bytes, length_bytes))
		return string_of_length(bytes, length_bytes);
	text = malloc(3 * length_bytes);
	if (!text)
		return NULL;
	for (size_t at = 0; at < length_bytes;) {
		int step = utf8_step((const unsigned char *)bytes + at, length_bytes - at);
		size_t part = (size_t)abs(step);

		memcpy(text + used, step < 0 ? replacement : bytes + at, step < 0 ? 3 : part);
		used += step < 0 ? 3 : part;
		at += part;
	}
	string = string_of_length(text, used);
	free(text);
	return string;
}

struct json_object *json_base64_make(const char *bytes, size_t length_bytes)
{
	size_t size = (length_bytes + 2) / 3 * 4;
	char *text = malloc(size + 1), *to = text;
	struct json_object *string;

	if (!text)
		return NULL;
	for (size_t at = 0; at < length_bytes; at += 3) {
		size_t left = length_bytes - at;
		const unsigned char *from = (const unsigned char *)bytes + at;
		uint32_t bits = (uint32_t)from[0] << 16 | (left > 1 ? (uint32_t)from[1] << 8 : 0) |
				(left > 2 ? from[2] : 0);

		*to++ = alphabet[bits >> 18];
		*to++ = alphabet[bits >> 12 & 63];
		*to++ = left > 1 ? alphabet[bits >> 6 & 63] : '=';
		*to++ = left > 2 ? alphabet[bits & 63] : '=';
	}
	string = string_of_length(text, size);
	free(text);
	return string;
}

/* Four characters into one to three bytes; how many, or -EINVAL. Padding is for the last group. */
static int base64_group(const char *text, bool last, unsigned char out[3])
{
	int pad = last ? (text[3] == '=') + (text[3] == '=' && text[2] == '=') : 0;
	uint32_t bits = 0;

	for (int i = 0; i < 4; i++) {
		const char *digit = i < 4 - pad ? memchr(alphabet, text[i], 64) : alphabet;

		if (!digit)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)(digit - alphabet);
	}
	for (int i = 0; i < 3; i++)
		out[i] = (unsigned char)(bits >> (16 - 8 * i));
	for (int i = 3 - pad; i < 3; i++)
		if (out[i])
			return -EINVAL;
	return 3 - pad;
}

int json_base64_decode(const char *text, size_t limit, char **out)
{
	size_t length = strlen(text), used = 0;
	char *bytes;

	if (length % 4)
		return -EINVAL;
	if (length / 4 * 3 > limit + 2)
		return -ENAMETOOLONG;
	bytes = malloc(length / 4 * 3 + 1);
	if (!bytes)
		return -ENOMEM;
	for (size_t at = 0; at < length; at += 4) {
		int got = base64_group(text + at, at + 4 == length, (unsigned char *)bytes + used);

		if (got < 0)
			goto err_free;
		used += (size_t)got;
	}
	bytes[used] = '\0';
	if (strlen(bytes) != used)
		goto err_free;
	if (used > limit) {
		free(bytes);
		return -ENAMETOOLONG;
	}
	*out = bytes;
	return 0;

err_free:
	free(bytes);
	return -EINVAL;
}

int json_add(struct json_object *object, const char *key, struct json_object *value)
{
	if (value && !json_object_object_add_ex(object, key, value, CONSTANT_KEY))
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

int json_add_u64(struct json_object *object, const char *key, uint64_t value)
{
	return json_add(object, key, json_object_new_uint64(value));
}

int json_add_bool(struct json_object *object, const char *key, bool value)
{
	return json_add(object, key, json_object_new_boolean(value));
}

int json_add_text(struct json_object *object, const char *key, const char *text)
{
	return json_add(object, key, json_string_make(text, strlen(text)));
}

typedef struct json_object *string_maker(const char *bytes, size_t length_bytes);

static struct json_object *string_array(char *const *strings, size_t count, string_maker *make)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < count; i++) {
		struct json_object *string = make(strings[i], strlen(strings[i]));

		if (string && !json_object_array_add(array, string))
			continue;
		json_object_put(string);
		json_object_put(array);
		return NULL;
	}
	return array;
}

int json_add_paths(struct json_object *object, char *const *paths, size_t count)
{
	bool all_utf8 = true;
	int error;

	for (size_t i = 0; i < count; i++)
		all_utf8 = all_utf8 && json_is_utf8(paths[i], strlen(paths[i]));
	error = json_add(object, "paths", string_array(paths, count, json_string_make));
	if (error || all_utf8)
		return error;
	return json_add(object, "paths_raw", string_array(paths, count, json_base64_make));
}

const char *json_line(struct json_object *object, size_t *length_bytes)
{
	return json_object_to_json_string_length(
	    object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, length_bytes);
}

struct json_object *json_parse_object(const char *text, size_t length_bytes)
{
	struct json_tokener *tokener;
	struct json_object *object;

	/* json-c stops at a NUL and calls what came before complete. */
	if (length_bytes > INT32_MAX || memchr(text, '\0', length_bytes))
		return NULL;
	tokener = json_tokener_new_ex(PARSE_DEPTH);
	if (!tokener)
		return NULL;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	object = json_tokener_parse_ex(tokener, text, (int)length_bytes);
	if (json_tokener_get_error(tokener) != json_tokener_success ||
	    !json_object_is_type(object, json_type_object)) {
		json_object_put(object);
		object = NULL;
	}
	json_tokener_free(tokener);
	return object;
}

int json_get_u64(struct json_object *object, const char *key, uint64_t *out)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value))
		return 0;
	/* json-c saturates: a negative number would read as 0, one beyond 2^64 as the largest. */
	if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0)
		return -EINVAL;
	*out = json_object_get_uint64(value);
	return 1;
}

int json_get_bool(struct json_object *object, const char *key, bool *out)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value))
		return 0;
	if (!json_object_is_type(value, json_type_boolean))
		return -EINVAL;
	*out = json_object_get_boolean(value);
	return 1;
}

int json_get_text(struct json_object *object, const char *key, const char **out)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value))
		return 0;
	if (!json_object_is_type(value, json_type_string) ||
	    strlen(json_object_get_string(value)) != (size_t)json_object_get_string_len(value))
		return -EINVAL;
	*out = json_object_get_string(value);
	return 1;
}
