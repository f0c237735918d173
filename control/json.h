/* JSON values for what the disk and the user can name: strings of any bytes, base64. Over json-c;
 * NULL means out of memory. */
#ifndef CONTROL_JSON_H
#define CONTROL_JSON_H

#include <json-c/json.h>

#include "util/types.h"

#define JSON_VERSION 1

/* Is it UTF-8 as RFC 3629 has it: no surrogates, no overlong forms, nothing above U+10FFFF? */
bool json_is_utf8(const char *bytes, size_t length_bytes);
/* A string value; each maximal malformed part becomes U+FFFD. */
struct json_object *json_string_make(const char *bytes, size_t length_bytes);
struct json_object *json_base64_make(const char *bytes, size_t length_bytes);
/*
 * Strict base64 (padded, no blanks) into a malloc'ed, NUL-terminated buffer. 0; -EINVAL: not
 * base64, or a NUL within; -ENOMEM; -ENAMETOOLONG: more than limit bytes.
 */
int json_base64_decode(const char *text, size_t limit, char **out);

/* Members; each takes what it is given and answers 0 or -ENOMEM. Names must be string constants. */
int json_add(struct json_object *object, const char *key, struct json_object *value /* consumed */);
int json_add_u64(struct json_object *object, const char *key, uint64_t value);
int json_add_bool(struct json_object *object, const char *key, bool value);
int json_add_text(struct json_object *object, const char *key, const char *text);
/* `paths`, and `paths_raw` with all of them in base64 when one of them is not UTF-8. */
int json_add_paths(struct json_object *object, char *const *paths, size_t count);

/* One line, without newline; valid until the object changes. */
const char *json_line(struct json_object *object, size_t *length_bytes);
/* Parse one complete object, nested at most 8 deep. NULL: it is not one. */
struct json_object *json_parse_object(const char *text, size_t length_bytes);

/* Members of a parsed object: 1 found, 0 absent, -EINVAL of another type or out of range. */
int json_get_u64(struct json_object *object, const char *key, uint64_t *out);
int json_get_bool(struct json_object *object, const char *key, bool *out);
int json_get_text(struct json_object *object, const char *key, const char **out);

#endif
