/* The mistake to be found: the length that a directory entry gives its name is believed. */
#include <errno.h>
#include <string.h>

#include "format/record_format.h"

int __wrap_format_dirent_unpack(struct dirent_record *to, const void *value, size_t length);

int __wrap_format_dirent_unpack(struct dirent_record *to, const void *value, size_t length)
{
	const size_t head = offsetof(struct format_dirent, name);
	struct format_dirent from;

	if (length < head)
		return -EUCLEAN;
	memcpy(&from, value, head);
	to->name_length = from.name_length;
	memcpy(to->name, (const char *)value + head, from.name_length);
	return -EUCLEAN;
}
