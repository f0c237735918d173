#include "notify/health.h"

const char *dimm_state_name(enum dimm_state state)
{
	static const char *const names[] = {
	    [DIMM_OK] = "ok", [DIMM_NON_CRITICAL] = "non-critical", [DIMM_CRITICAL] = "critical", [DIMM_FATAL] = "fatal"};

	return names[state];
}

bool dimm_is_ailing(const struct dimm_health *dimm)
{
	return dimm->state != DIMM_OK || dimm->alarms;
}

bool dimm_differs(const struct dimm_health *a, const struct dimm_health *b)
{
	return a->state != b->state || a->alarms != b->alarms;
}
