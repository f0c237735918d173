/* The health of the DIMMs that a medium lies on, as their firmware tells it. Twin files: with and without libndctl. Touches no medium. */
#ifndef NOTIFY_HEALTH_H
#define NOTIFY_HEALTH_H

#include "media/media.h"

#define HEALTH_DIMMS_MAX 16

enum dimm_field { /* what a DIMM tells; most tell only some */
	DIMM_STATE = 1 << 0,
	DIMM_SPARES = 1 << 1,
	DIMM_LIFE_USED = 1 << 2,
	DIMM_TEMPERATURE = 1 << 3,
	DIMM_ALARMS = 1 << 4,
	DIMM_SPARES_THRESHOLD = 1 << 5,
	DIMM_TEMPERATURE_THRESHOLD = 1 << 6,
};
enum dimm_state { DIMM_OK, DIMM_NON_CRITICAL, DIMM_CRITICAL, DIMM_FATAL };
enum dimm_alarm { DIMM_ALARM_SPARES = 1 << 0, DIMM_ALARM_TEMPERATURE = 1 << 1, DIMM_ALARM_CONTROLLER = 1 << 2 };

struct dimm_health {
	char name[32];	/* "nmem0" */
	unsigned known; /* enum dimm_field */
	enum dimm_state state;
	unsigned alarms;		     /* enum dimm_alarm */
	unsigned spares_percent, life_used_percent;
	int temperature_sixteenths;	     /* of a degree Celsius, as firmware counts */
	unsigned spares_threshold_percent;   /* below it there is an alarm */
	int temperature_threshold_sixteenths; /* above it */
};

const char *dimm_state_name(enum dimm_state state); /* "ok", "non-critical", "critical", "fatal" */
/* Something is not as it should be. */
bool dimm_is_ailing(const struct dimm_health *dimm);
/* Would a reader of both see another state or alarm? What only drifts (degrees, percent) is no news. */
bool dimm_differs(const struct dimm_health *a, const struct dimm_health *b);

/* DIMMs that tell, at most `max`: how many, or -ENOTSUP (on no NVDIMM), -EACCES (only root may ask). */
int health_read(struct media *media, struct dimm_health *out, size_t max);
/*
 * Descriptors that poll() reports with POLLPRI when a DIMM's health has changed, once they were read with pread(): at most `max`, how many. The caller
 * closes them.
 */
size_t health_watch(struct media *media, int *fds, size_t max);

#endif
