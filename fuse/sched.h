/*
 * The scheduling class of the io_uring threads. A client that wakes one should go on where it is: as SCHED_IDLE the thread never drives it
 * to another CPU, which is worth a factor of 2 to 4 on small requests. But where something else wants the CPU such a thread starves; so
 * one thread watches how long they wait to run, and makes them ordinary ones as long as they do.
 */
#ifndef FUSE_SCHED_H
#define FUSE_SCHED_H

#include <stdbool.h>

/* Before the first request. Without it, or where the class could not be left again (an ordinary user), the others do nothing. */
void sched_start(void);
/* After the last. */
void sched_stop(void);
/* This thread is one of them; and no more. */
void sched_join(void);
void sched_leave(void);
/* Before and after each wait for requests: nobody watches a mount that nobody uses. */
void sched_wait_begin(void);
void sched_wait_end(void);
/*
 * The end is near: wait, at most SCHED_SETTLE_MS, until each of these threads has served what the kernel had handed to it and sleeps. They stay
 * ordinary ones from now on.
 */
#define SCHED_SETTLE_MS 10000
void sched_settle(void);

#endif
