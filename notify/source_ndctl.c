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

#include "notify/source.h"
#include "util/types.h"

/* Physical addresses. */
struct dax_range {
	unsigned long long start, end;
};

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

static struct daxctl_dev *dev_find(struct daxctl_ctx *ctx, dev_t rdev)
{
	struct daxctl_region *region;
	struct daxctl_dev *dev;

	daxctl_region_foreach(ctx, region) daxctl_dev_foreach(region, dev)
	{
		if (daxctl_dev_get_major(dev) == (int)major(rdev) && daxctl_dev_get_minor(dev) == (int)minor(rdev))
			return dev;
	}
	return NULL;
}

static bool range_find_dev(struct daxctl_ctx *ctx, dev_t rdev, struct dax_range *out)
{
	struct daxctl_dev *dev = dev_find(ctx, rdev);

	return dev && range_of_dev(dev, out);
}

static int region_list(struct ndctl_region *region, const struct dax_range *range,
		       struct source_list *list)
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
			rc = source_list_add(list, start - range->start, end - start);
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

/* A device that lies in no region of this bus kind (CXL memory, carved-out DRAM) has no such list: unknown, not clean. */
static int buses_list(struct ndctl_ctx *ctx, const struct dax_range *range, struct source_list *list)
{
	struct ndctl_region *region;
	struct ndctl_bus *bus;
	int rc = 0;

	ndctl_bus_foreach(ctx, bus) ndctl_region_foreach(bus, region)
	{
		if (rc || !region_overlaps(region, range))
			continue;
		if (!region_tells(region))
			return why_set(&list->why, 0, "/sys/bus/nd/devices/%s/badblocks cannot be read: is the region enabled? (ndctl enable-region)",
				       ndctl_region_get_devname(region));
		list->state = SOURCE_KNOWN;
		rc = region_list(region, range, list);
	}
	return rc;
}

/* Where nothing could be placed, is it because addresses are kept from us? */
static bool regions_hide(struct ndctl_ctx *ctx)
{
	struct ndctl_region *region;
	struct ndctl_bus *bus;

	ndctl_bus_foreach(ctx, bus) ndctl_region_foreach(bus, region)
	{
		if (ndctl_region_get_resource(region) == ULLONG_MAX)
			return true;
	}
	return false;
}

/* There is no line for 0: it was listed. */
static void explain_unknown(struct ndctl_ctx *ctx, const char *path, dev_t rdev, struct source_list *list)
{
	struct daxctl_dev *dev = dev_find(ndctl_get_daxctl_ctx(ctx), rdev);
	struct dax_range range;

	list->state = SOURCE_UNKNOWN;
	if (list->why.text[0])
		return;
	if (!dev)
		why_set(&list->why, 0, "%s is not among the devices that libdaxctl finds", path);
	else if (!range_of_dev(dev, &range) || regions_hide(ctx))
		why_set(&list->why, 0,
			"the addresses in /sys/bus/dax/devices/%s/resource and /sys/bus/nd/devices/region*/resource are for root only; "
			"be root, or have CAP_DAC_READ_SEARCH, or make them readable by a udev rule (mendfs(8), PERMISSIONS)",
			daxctl_dev_get_devname(dev));
	else
		why_set(&list->why, 0, "%s lies in no NVDIMM region: nobody lists bad blocks of such memory", path);
}

int source_device_badblocks(const char *path, struct source_list *out)
{
	struct dax_range range;
	struct ndctl_ctx *ctx;
	struct stat st;
	int rc = stat(path, &st) ? -errno : ndctl_new(&ctx);

	if (rc)
		return rc;
	if (range_find_dev(ndctl_get_daxctl_ctx(ctx), st.st_rdev, &range))
		rc = buses_list(ctx, &range, out);
	if (rc == 0 && out->state != SOURCE_KNOWN)
		explain_unknown(ctx, path, st.st_rdev, out);
	ndctl_unref(ctx);
	return rc;
}

static int buses_open_list(struct ndctl_ctx *ctx, const struct dax_range *range)
{
	struct ndctl_region *region;
	struct ndctl_bus *bus;

	ndctl_bus_foreach(ctx, bus) ndctl_region_foreach(bus, region) if (region_overlaps(region, range)) return region_open_list(region);
	return -ENOTSUP;
}

int source_device_watch(const char *path)
{
	struct dax_range range;
	struct ndctl_ctx *ctx;
	struct stat st;
	int rc = stat(path, &st) ? -errno : ndctl_new(&ctx);

	if (rc)
		return rc;
	rc = range_find_dev(ndctl_get_daxctl_ctx(ctx), st.st_rdev, &range) ? buses_open_list(ctx, &range) : -ENOTSUP;
	ndctl_unref(ctx);
	return rc;
}
