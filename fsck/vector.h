/* Arrays that grow. */
#ifndef FSCK_VECTOR_H
#define FSCK_VECTOR_H

#include <stdlib.h>

#include "util/types.h"

/* Room for one more item behind `count`. */
static inline bool vector_reserve(void **items, size_t count, size_t *capacity, size_t size)
{
	size_t wanted = *capacity ? 2 * *capacity : 16;
	void *grown;

	if (count < *capacity)
		return true;
	grown = reallocarray(*items, wanted, size);
	if (!grown)
		return false;
	*items = grown;
	*capacity = wanted;
	return true;
}

#endif
