/* One access to the medium on its way, as the fault classifier sees it. */
#ifndef MEDIA_ACCESS_H
#define MEDIA_ACCESS_H

#include "media/media_types.h"

enum access_kind { ACCESS_LOAD, ACCESS_STORE, ACCESS_ZERO, ACCESS_LINE };

struct access {
	enum access_kind kind;
	devoff_t offset;
	unsigned char *to;         /* loads */
	const unsigned char *from; /* stores of bytes */
	uint64_t length;
	uint64_t done;
};

static inline devoff_t access_at(const struct access *access)
{
	return access->offset + access->done;
}

static inline devoff_t access_end(const struct access *access)
{
	return access->offset + access->length;
}

#endif
