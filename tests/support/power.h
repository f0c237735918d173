/* Power that is lost at the n-th store. For programs that are linked with -Wl,--wrap=media_write; of one file each. */
#ifndef TESTS_POWER_H
#define TESTS_POWER_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#include "media/media.h"

static atomic_uint power_stores_left = UINT32_MAX; /* this many: no end */
static atomic_bool power_is_lost;
static bool power_yields; /* now and then at a store, so that others come in between also where there is one CPU */
static atomic_uint power_stores;

int __real_media_write(struct media *media, devoff_t offset, const void *from, size_t length, devoff_t *bad);
int __wrap_media_write(struct media *media, devoff_t offset, const void *from, size_t length, devoff_t *bad);
int __wrap_media_write(struct media *media, devoff_t offset, const void *from, size_t length, devoff_t *bad)
{
	if (atomic_load(&power_is_lost))
		return 0;
	if (atomic_load(&power_stores_left) != UINT32_MAX && atomic_fetch_sub(&power_stores_left, 1) == 0) {
		power_is_lost = true;
		return 0;
	}
	if (power_yields && atomic_fetch_add(&power_stores, 1) % 3 == 0)
		sched_yield();
	return __real_media_write(media, offset, from, length, bad);
}

static inline void power_return(void)
{
	power_stores_left = UINT32_MAX;
	power_is_lost = false;
}

#endif
