/* What the asking and the answering side of a claim share. */
#ifndef MEDIA_CLAIM_SOCKET_H
#define MEDIA_CLAIM_SOCKET_H

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "util/types.h"

/* The address of attempt `attempt`, and its length for bind() and connect(). */
socklen_t claim_socket_address(const struct stat *st, unsigned attempt,
			       struct sockaddr_un *address);
int64_t claim_now_ms(void);

#endif
