/*
 * The bus and the DIMMs under a medium, through libndctl. Which region it is says the place of its device in sysfs, for which no privilege is needed:
 * .../ndbus0/region1/... is above a dax device as well as above the block device that a file lies on.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <ndctl/libndctl.h>

#include "notify/health.h"
#include "notify/scrub.h"

/* "ndbus0" and "region1". */
static int place_of(const struct media *media, char *bus, char *region, size_t size)
{
	char link[64], *path, *at;
	unsigned bus_number, region_number;
	struct stat st;
	dev_t dev;
	int rc = -ENOTSUP;

	if (stat(media_real_path(media), &st))
		return -errno;
	dev = S_ISREG(st.st_mode) ? st.st_dev : st.st_rdev;
	snprintf(link, sizeof(link), "/sys/dev/%s/%u:%u", S_ISCHR(st.st_mode) ? "char" : "block", major(dev), minor(dev));
	path = realpath(link, NULL);
	if (!path)
		return -ENOTSUP;
	at = strstr(path, "/ndbus");
	if (at && sscanf(at, "/ndbus%u/region%u/", &bus_number, &region_number) == 2) {
		snprintf(bus, size, "ndbus%u", bus_number);
		snprintf(region, size, "region%u", region_number);
		rc = 0;
	}
	free(path);
	return rc;
}

/* 0: *ctx is the caller's, and *region lives as long. */
static int region_open(const struct media *media, struct ndctl_ctx **ctx, struct ndctl_region **out)
{
	char bus_name[32], region_name[32];
	struct ndctl_region *region;
	struct ndctl_bus *bus;
	int rc = place_of(media, bus_name, region_name, sizeof(bus_name));

	if (rc == 0)
		rc = ndctl_new(ctx);
	if (rc)
		return rc;
	ndctl_bus_foreach(*ctx, bus) ndctl_region_foreach(bus, region)
	{
		if (!strcmp(ndctl_bus_get_devname(bus), bus_name) && !strcmp(ndctl_region_get_devname(region), region_name)) {
			*out = region;
			return 0;
		}
	}
	ndctl_unref(*ctx);
	return -ENOTSUP;
}

/* --- scrub --- */

static int scrub_explain(const struct media *media, struct why *why)
{
	return why_set(why, -ENOTSUP, "%s lies on no NVDIMM: there is no bus that could scrub it", media_path(media));
}

int scrub_ask(struct media *media, struct scrub_state *out, struct why *why)
{
	struct scrub_state state;
	struct ndctl_region *region;
	struct ndctl_ctx *ctx;
	struct ndctl_bus *bus;
	int running, rc = region_open(media, &ctx, &region);

	if (rc)
		return scrub_explain(media, why);
	bus = ndctl_region_get_bus(region);
	running = ndctl_bus_get_scrub_state(bus);
	if (running < 0)
		rc = why_set(why, -ENOTSUP, "%s: its bus %s cannot scrub (no address range scrub in its firmware)", media_path(media),
			     ndctl_bus_get_devname(bus));
	state = (struct scrub_state){.is_running = running > 0, .count_finished = ndctl_bus_get_scrub_count(bus)};
	snprintf(state.bus, sizeof(state.bus), "%s", ndctl_bus_get_devname(bus));
	ndctl_unref(ctx);
	if (rc == 0)
		*out = state;
	return rc;
}

int scrub_start(struct media *media, struct why *why)
{
	struct ndctl_region *region;
	struct ndctl_ctx *ctx;
	int rc = region_open(media, &ctx, &region);

	if (rc)
		return scrub_explain(media, why);
	rc = ndctl_bus_start_scrub(ndctl_region_get_bus(region));
	ndctl_unref(ctx);
	if (rc == -EACCES || rc == -EPERM)
		return why_set(why, -EACCES, "%s: only root may start a scrub of its bus", media_path(media));
	return rc ? why_set(why, rc, "%s: its bus refuses to scrub: %s", media_path(media), strerror(-rc)) : 0;
}

/* --- health --- */

static enum dimm_state state_of(unsigned health)
{
	return health & ND_SMART_FATAL_HEALTH ? DIMM_FATAL
	       : health & ND_SMART_CRITICAL_HEALTH ? DIMM_CRITICAL
	       : health & ND_SMART_NON_CRITICAL_HEALTH ? DIMM_NON_CRITICAL
						       : DIMM_OK;
}

static unsigned alarms_of(unsigned flags)
{
	return (flags & ND_SMART_SPARE_TRIP ? DIMM_ALARM_SPARES : 0) | (flags & ND_SMART_MTEMP_TRIP ? DIMM_ALARM_TEMPERATURE : 0) |
	       (flags & ND_SMART_CTEMP_TRIP ? DIMM_ALARM_CONTROLLER : 0);
}

static void take_smart(struct ndctl_cmd *cmd, struct dimm_health *dimm)
{
	const unsigned flags = ndctl_cmd_smart_get_flags(cmd);

	if (flags & ND_SMART_HEALTH_VALID)
		dimm->state = state_of(ndctl_cmd_smart_get_health(cmd));
	if (flags & ND_SMART_SPARES_VALID)
		dimm->spares_percent = ndctl_cmd_smart_get_spares(cmd);
	if (flags & ND_SMART_USED_VALID)
		dimm->life_used_percent = ndctl_cmd_smart_get_life_used(cmd);
	if (flags & ND_SMART_MTEMP_VALID)
		dimm->temperature_sixteenths = (int16_t)ndctl_cmd_smart_get_media_temperature(cmd);
	if (flags & ND_SMART_ALARM_VALID)
		dimm->alarms = alarms_of(ndctl_cmd_smart_get_alarm_flags(cmd));
	dimm->known = (flags & ND_SMART_HEALTH_VALID ? DIMM_STATE : 0) | (flags & ND_SMART_SPARES_VALID ? DIMM_SPARES : 0) |
		      (flags & ND_SMART_USED_VALID ? DIMM_LIFE_USED : 0) | (flags & ND_SMART_MTEMP_VALID ? DIMM_TEMPERATURE : 0) |
		      (flags & ND_SMART_ALARM_VALID ? DIMM_ALARMS : 0);
}

/* Thresholds that raise no alarm are none. */
static void take_thresholds(struct ndctl_cmd *cmd, struct dimm_health *dimm)
{
	const unsigned control = ndctl_cmd_smart_threshold_get_alarm_control(cmd);

	if (control & ND_SMART_SPARE_TRIP) {
		dimm->spares_threshold_percent = ndctl_cmd_smart_threshold_get_spares(cmd);
		dimm->known |= DIMM_SPARES_THRESHOLD;
	}
	if (control & ND_SMART_MTEMP_TRIP) {
		dimm->temperature_threshold_sixteenths = (int16_t)ndctl_cmd_smart_threshold_get_media_temperature(cmd);
		dimm->known |= DIMM_TEMPERATURE_THRESHOLD;
	}
}

/* Takes the command. */
static int dimm_ask(struct ndctl_cmd *cmd, struct dimm_health *dimm, void (*take)(struct ndctl_cmd *cmd, struct dimm_health *dimm))
{
	int rc;

	if (!cmd)
		return -ENOTSUP;
	rc = ndctl_cmd_submit(cmd);
	if (rc >= 0 && ndctl_cmd_get_firmware_status(cmd) == 0)
		take(cmd, dimm);
	else if (rc >= 0)
		rc = -EIO;
	ndctl_cmd_unref(cmd);
	return rc < 0 ? rc : 0;
}

static int dimm_read(struct ndctl_dimm *dimm, struct dimm_health *out)
{
	int rc;

	*out = (struct dimm_health){0};
	snprintf(out->name, sizeof(out->name), "%s", ndctl_dimm_get_devname(dimm));
	rc = dimm_ask(ndctl_dimm_cmd_new_smart(dimm), out, take_smart);
	if (rc == 0)
		dimm_ask(ndctl_dimm_cmd_new_smart_threshold(dimm), out, take_thresholds);
	return rc;
}

int health_read(struct media *media, struct dimm_health *out, size_t max)
{
	struct ndctl_region *region;
	struct ndctl_dimm *dimm;
	struct ndctl_ctx *ctx;
	size_t count = 0;
	int rc = region_open(media, &ctx, &region), refused = 0;

	if (rc)
		return rc;
	ndctl_dimm_foreach_in_region(region, dimm)
	{
		if (count == max)
			break;
		rc = dimm_read(dimm, &out[count]);
		count += rc == 0;
		refused = rc == -EACCES || rc == -EPERM ? -EACCES : refused;
	}
	ndctl_unref(ctx);
	return count == 0 && refused ? refused : (int)count;
}

size_t health_watch(struct media *media, int *fds, size_t max)
{
	struct ndctl_region *region;
	struct ndctl_dimm *dimm;
	struct ndctl_ctx *ctx;
	size_t count = 0;

	if (region_open(media, &ctx, &region))
		return 0;
	ndctl_dimm_foreach_in_region(region, dimm)
	{
		int fd = count < max ? ndctl_dimm_get_health_eventfd(dimm) : -1;

		/* That one ends with the context. */
		fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (fd >= 0)
			fds[count++] = fd;
	}
	ndctl_unref(ctx);
	return count;
}
