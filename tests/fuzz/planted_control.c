/* The mistake to be found: a path in base64 gets no room for the byte that ends it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/json.h"

int __real_json_base64_decode(const char *text, size_t limit, char **out);
int __wrap_json_base64_decode(const char *text, size_t limit, char **out);

int __wrap_json_base64_decode(const char *text, size_t limit, char **out)
{
	char *whole, *copy;
	int error = __real_json_base64_decode(text, limit, &whole);

	if (error)
		return error;
	copy = malloc(strlen(whole) ? strlen(whole) : 1);
	if (copy)
		memcpy(copy, whole, strlen(whole)); /* and no end */
	free(whole);
	*out = copy;
	return copy ? 0 : -ENOMEM;
}
