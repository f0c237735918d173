/*
 * Bad blocks that the kernel knows on a device-dax device. libndctl lists them per region, in
 * sectors of the region (for a namespace of this mode it lists none); they are moved to the
 * device's own bytes and clipped to it at both ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <daxctl/libdaxctl.h>
#include <ndctl/libndctl.h>

#include "notify/notify.h"

/* Physical addresses. */
struct dax_range {
	unsigned long long start, end;
};

struct badblock_list {
	struct source_badblock *blocks;
	size_t count, capacity;
};

static int list_add(struct badblock_list *list, devoff_t offset, uint64_t length)
{
	if (list->count == list->capacity) {
		const size_t capacity = list->capacity ? list->capacity * 2 : 16;
		struct source_badblock *blocks =
		    reallocarray(list->blocks, capacity, sizeof(*blocks));

		if (!blocks)
			return -ENOMEM;
		list->blocks = blocks;
		list->capacity = capacity;
	}
	list->blocks[list->count++] = (struct source_badblock){.offset = offset, .length = length};
	return 0;
}

/* Without privilege resources read as ULLONG_MAX: nothing can be placed then. */
static bool range_of_dev(struct daxctl_dev *dev, struct dax_range *out)
{
	const unsigned long long resource = daxctl_dev_get_resource(dev),
				 size = daxctl_dev_get_size(dev);

	if (resource == ULLONG_MAX || resource == 0 || size == 0 || size > ULLONG_MAX - resource)
		return false;
	*out = (struct dax_range){resource, resource + size};
	return true;
}

static bool range_find_dev(struct daxctl_ctx *ctx, dev_t rdev, struct dax_range *out)
{
	struct daxctl_region *region;
	struct daxctl_dev *dev;

	daxctl_region_foreach(ctx, region)
	    daxctl_dev_foreach(region, dev) if (daxctl_dev_get_major(dev) == (int)major(rdev) &&
						daxctl_dev_get_minor(dev) ==
						    (int)minor(rdev)) return range_of_dev(dev, out);
	return false;
}

static int region_list(struct ndctl_region *region, const struct dax_range *range,
		       struct badblock_list *list)
{
	const unsigned long long base = ndctl_region_get_resource(region);
	struct badblock *bad;
	int rc = 0;

	ndctl_region_badblock_foreach(region, bad)
	{
		const unsigned long long at = base + bad->offset * (unsigned long long)SECTOR_BYTES;
		const unsigned long long start = max_u64(at, range->start);
		const unsigned long long end =
		    min_u64(at + bad->len * (unsigned long long)SECTOR_BYTES, range->end);

		if (start < end && rc == 0)
			rc = list_add(list, start - range->start, end - start);
	}
	return rc;
}

static bool region_overlaps(struct ndctl_region *region, const struct dax_range *range)
{
	const unsigned long long base = ndctl_region_get_resource(region);

	return base != ULLONG_MAX && base < range->end &&
	       base + ndctl_region_get_size(region) > range->start;
}

static int region_open_list(struct ndctl_region *region)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/nd/devices/%s/badblocks", ndctl_region_get_devname(region));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The list of a region that no driver has reads as an error, which libndctl does not tell from an
 * empty one. */
static bool region_tells(struct ndctl_region *region)
{
	char first[32];
	ssize_t got;
	int fd = region_open_list(region);

	if (fd < 0)
		return false;
	got = read(fd, first, sizeof(first));
	close(fd);
	return got >= 0;
}

/* A device that lies in no region of this bus kind (CXL memory, carved-out DRAM) has no such list:
 * unknown, not clean. */
static int buses_list(struct ndctl_ctx *ctx, const struct dax_range *range,
		      struct badblock_list *list, int *known)
{
	struct ndctl_region *region;
	struct ndctl_bus *bus;
	int rc = 0;

	ndctl_bus_foreach(ctx, bus) ndctl_region_foreach(
	    bus, region) if (rc == 0 && region_overlaps(region, range) && region_tells(region))
	{
		*known = 1;
		rc = region_list(region, range, list);
	}
	return rc;
}

static int device_list(dev_t rdev, struct badblock_list *list, int *known)
{
	struct dax_range range;
	struct ndctl_ctx *ctx;
	int rc = ndctl_new(&ctx);

	if (rc)
		return rc;
	if (range_find_dev(ndctl_get_daxctl_ctx(ctx), rdev, &range))
		rc = buses_list(ctx, &range, list, known);
	ndctl_unref(ctx);
	return rc;
}

int source_badblocks(const char *path, struct source_badblock **out, size_t *count, int *known)
{
	struct badblock_list list = {0};
	struct stat st;
	int is_known = 0, rc;

	if (stat(path, &st))
		return -errno;
	if (S_ISCHR(st.st_mode)) {
		rc = device_list(st.st_rdev, &list, &is_known);
		if (rc) {
			free(list.blocks);
			return rc;
		}
	} else {
		is_known = S_ISREG(st.st_mode);
	}
	*out = list.blocks;
	*count = list.count;
	*known = is_known;
	return 0;
}

static int buses_open_list(struct ndctl_ctx *ctx, const struct dax_range *range)
{
	struct ndctl_region *region;
	struct ndctl_bus *bus;

	ndctl_bus_foreach(ctx, bus) ndctl_region_foreach(bus, region) if (region_overlaps(region, range)) return region_open_list(region);
	return -ENOTSUP;
}

int source_watch(const char *path)
{
	struct dax_range range;
	struct ndctl_ctx *ctx;
	struct stat st;
	int rc;

	if (stat(path, &st))
		return -errno;
	if (!S_ISCHR(st.st_mode))
		return -ENOTSUP;
	rc = ndctl_new(&ctx);
	if (rc)
		return rc;
	rc = range_find_dev(ndctl_get_daxctl_ctx(ctx), st.st_rdev, &range) ? buses_open_list(ctx, &range) : -ENOTSUP;
	ndctl_unref(ctx);
	return rc;
}
