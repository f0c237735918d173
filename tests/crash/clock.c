#include "tests/crash/clock.h"

#include <stdatomic.h>
#include <time.h>

static _Atomic uint64_t clock_ns;

int __real_clock_gettime(clockid_t id, struct timespec *out);
int __wrap_clock_gettime(clockid_t id, struct timespec *out);

int __wrap_clock_gettime(clockid_t id, struct timespec *out)
{
	uint64_t now;

	if (id != CLOCK_REALTIME || !clock_ns)
		return __real_clock_gettime(id, out);
	now = clock_ns += 1000;
	out->tv_sec = (time_t)(now / 1000000000u);
	out->tv_nsec = (long)(now % 1000000000u);
	return 0;
}

void crash_clock_set(uint64_t start_ns)
{
	clock_ns = start_ns;
}

static double clock_seconds(clockid_t id)
{
	struct timespec now;

	__real_clock_gettime(id, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double crash_clock_seconds(void)
{
	return clock_seconds(CLOCK_MONOTONIC);
}

double crash_clock_cpu_seconds(void)
{
	return clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
}
