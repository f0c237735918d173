/* Without libndctl no bus can be asked for anything. */
#include <errno.h>

#include "notify/health.h"
#include "notify/scrub.h"

int scrub_ask(struct media *media, struct scrub_state *out, struct why *why)
{
	(void)out;
	return why_set(why, -ENOTSUP, "%s: this mendfs was built without libndctl, which asks for scrubs", media_path(media));
}

int scrub_start(struct media *media, struct why *why)
{
	struct scrub_state state;

	return scrub_ask(media, &state, why);
}

int health_read(struct media *media, struct dimm_health *out, size_t max)
{
	(void)media, (void)out, (void)max;
	return -ENOTSUP;
}

size_t health_watch(struct media *media, int *fds, size_t max)
{
	(void)media, (void)fds, (void)max;
	return 0;
}
