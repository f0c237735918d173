#include "fuse/ticket.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/random.h>
#include <time.h>

#include "util/siphash.h"

static uint8_t key[16];
static bool has_key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void key_make(void)
{
	has_key = getrandom(key, sizeof(key), 0) == sizeof(key);
}

static uint64_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec;
}

int ticket_seal(const struct ticket *ticket, struct mendfs_ticket *out)
{
	const uint64_t words[] = {ticket->ino, (uint64_t)ticket->rights << 32 | ticket->generation, seconds_now()};

	pthread_once(&key_once, key_make);
	if (!has_key)
		return -ENOMEM;
	*out = (struct mendfs_ticket){{words[0], words[1], words[2], siphash(key, words, sizeof(words))}};
	return 0;
}

int ticket_open(const struct mendfs_ticket *sealed, struct ticket *out)
{
	const uint64_t words[] = {sealed->opaque[0], sealed->opaque[1], sealed->opaque[2]};

	pthread_once(&key_once, key_make);
	if (!has_key || siphash(key, words, sizeof(words)) != sealed->opaque[3])
		return -EBADF;
	if (seconds_now() - words[2] > MENDFS_TICKET_SECONDS)
		return -ESTALE;
	*out = (struct ticket){.ino = words[0], .generation = (uint32_t)words[1], .rights = (uint32_t)(words[1] >> 32)};
	return 0;
}
